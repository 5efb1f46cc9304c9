import type { Diagnostic } from '../spec/diagnostic.ts'
import type { Code } from '../spec/codes.ts'

export const EXIT = { done: 0, failed: 1, usage: 2, partial: 3, interrupted: 130 } as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** The world said no (engine, Redis, file system, a task). Thrown once at the port, with what we were doing; `cause` is kept for AGENTCTL_DEBUG. */
export class AgentctlError extends Error {
  readonly code: Code
  readonly hint: string
  readonly exit: ExitCode
  constructor(code: Code, message: string, options: { hint: string; exit?: ExitCode; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'AgentctlError'
    this.code = code
    this.hint = options.hint
    this.exit = options.exit ?? EXIT.failed
  }
}

/** The user's files are wrong: every problem at once, exit 2. */
export class DiagnosticsError extends Error {
  readonly diagnostics: readonly Diagnostic[]
  constructor(diagnostics: readonly Diagnostic[]) {
    super(`${diagnostics.length} problem(s) in the project's files`)
    this.name = 'DiagnosticsError'
    this.diagnostics = diagnostics
  }
}
