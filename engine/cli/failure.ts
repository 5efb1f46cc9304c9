/** Any error as the document that `--format json` prints, its text, and the exit code. */
import { CODES, type Code } from '../../spec/codes.ts'
import { AgentctlError, DiagnosticsError, EXIT } from '../errors.ts'
import { clean, type Paint } from './io.ts'

export interface FailureView {
  readonly error: { readonly code: Code; readonly message: string; readonly hint: string }
}

export const usage = (message: string, hint: string = CODES.AG7001.fix): AgentctlError =>
  new AgentctlError('AG7001', message, { hint, exit: EXIT.usage })

export const interruption = (cause?: unknown): AgentctlError =>
  new AgentctlError('AG7002', 'interrupted', { hint: CODES.AG7002.fix, exit: EXIT.interrupted, cause })

/** A bug is anything that is neither ours nor commander's. */
export function asFailure(error: unknown): AgentctlError | DiagnosticsError {
  if (error instanceof AgentctlError || error instanceof DiagnosticsError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new AgentctlError('AG9001', `this is a bug in agentctl: ${message}`, { hint: CODES.AG9001.fix, cause: error })
}

export const exitCode = (error: AgentctlError | DiagnosticsError): number => (error instanceof DiagnosticsError ? EXIT.usage : error.exit)

export const failureView = (error: AgentctlError): FailureView => ({
  error: { code: error.code, message: error.message, hint: error.hint },
})

export function renderFailure({ error }: FailureView, paint: Paint): string {
  const [first = '', ...rest] = clean(error.message).split('\n')
  const more = rest.map((line) => `    ${line}\n`).join('')
  return `${paint('red', '✘')} ${paint('bold', `error ${error.code}`)}: ${first}\n${more}  help: ${clean(error.hint)}\n`
}

/** With AGENTCTL_DEBUG: the stack, and those of its causes. */
export function stacks(error: unknown): string {
  let text = ''
  for (let it = error, depth = 0; it !== undefined && depth < 6; it = it instanceof Error ? it.cause : undefined, depth++) {
    text += `${depth === 0 ? '' : 'caused by: '}${it instanceof Error ? (it.stack ?? it.message) : String(it)}\n`
  }
  return text
}
