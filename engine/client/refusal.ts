/** What the gateway refused, and what cut a request off, as our error. */
import { CODES, type Code } from '../../spec/codes.ts'
import { AgentctlError, EXIT, type ExitCode } from '../errors.ts'

/** The user gave something wrong (exit 2), rather than the world saying no (exit 1). */
const USAGE: ReadonlySet<Code> = new Set<Code>(['AG6002', 'AG6003', 'AG6005', 'AG6006', 'AG7001'])
const BY_STATUS: Readonly<Record<number, Code>> = { 400: 'AG6006', 404: 'AG6001', 413: 'AG6005', 429: 'AG6008', 503: 'AG5002' }

/** `{error: {code, message, hint}}` of the gateway as our error; a body that is none of that is shown as it is. */
export function refusal(status: number, body: string): AgentctlError {
  const error = parseError(body)
  const code: Code = error !== null && error.code in CODES ? (error.code as Code) : (BY_STATUS[status] ?? 'AG5001')
  const message = error?.message ?? `the gateway answered ${status}: ${body.slice(0, 200)}`
  const exit: ExitCode = USAGE.has(code) ? EXIT.usage : EXIT.failed
  return new AgentctlError(code, message, { hint: error?.hint ?? CODES[code].fix, exit })
}

function parseError(body: string): { code: string; message: string; hint?: string } | null {
  try {
    const { error } = JSON.parse(body) as { error?: { code?: unknown; message?: unknown; hint?: unknown } }
    if (typeof error?.code !== 'string' || typeof error.message !== 'string') return null
    return { code: error.code, message: error.message, ...(typeof error.hint === 'string' ? { hint: error.hint } : {}) }
  } catch {
    return null
  }
}

export const interrupted = (cause: unknown): AgentctlError =>
  new AgentctlError('AG7002', 'interrupted', { hint: CODES.AG7002.fix, exit: EXIT.interrupted, cause })

export const reason = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error)
  return message === 'socket hang up' ? 'it closed the connection' : message
}
