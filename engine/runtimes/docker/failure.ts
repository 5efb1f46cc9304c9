/** What the engine or the connection said, as an AgentctlError: once, with what we were doing. */
import { AgentctlError, EXIT } from '../../errors.ts'

/** Thrown by the connection's own timer, told apart from the caller's abort. */
export class EngineTimeout extends Error {
  readonly timeout_ms: number
  constructor(timeout_ms: number) {
    super(`no answer within ${timeout_ms / 1000} s`)
    this.name = 'EngineTimeout'
    this.timeout_ms = timeout_ms
  }
}

const NO_CONNECTION = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'ECONNRESET',
  'EPIPE',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'ENOTSOCK',
  'EAI_AGAIN',
])
const PORT_IN_USE = /port is already allocated|address already in use|ports are not available/i
const NO_IMAGE = /no such image|manifest unknown|pull access denied|repository does not exist|manifest for .* not found|image .* not found/i

export function statusOf(error: unknown): number | null {
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : null
  return typeof status === 'number' ? status : null
}

/** The engine's own sentence: dockerode wraps it in "(HTTP code 409) conflict - … ". */
export function engineMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const json = 'json' in error ? error.json : null
  if (typeof json === 'object' && json !== null && 'message' in json && typeof json.message === 'string') return json.message
  return error.message.replace(/^\(HTTP code \d+\) .*? - /, '').trim() || error.name
}

export function toAgentctlError(error: unknown, doing: string, endpoint: string): AgentctlError {
  if (error instanceof AgentctlError) return error
  if (error instanceof EngineTimeout) {
    return new AgentctlError('AG4005', `The engine did not answer while it should ${doing}: ${error.message}`, {
      hint: 'See whether the machine is overloaded or its disk full; `agentctl doctor` checks the engine.',
      cause: error,
    })
  }
  const code = error instanceof Error && 'code' in error ? error.code : null
  if (code === 'EACCES' || code === 'EPERM') {
    return new AgentctlError('AG4002', `No permission on ${endpoint}`, {
      hint: 'Join the group that owns the socket (often `sudo usermod -aG docker $USER`, then log in again), or use a rootless engine.',
      cause: error,
    })
  }
  if (statusOf(error) === null && typeof code === 'string' && NO_CONNECTION.has(code)) {
    return new AgentctlError('AG4001', `The engine at ${endpoint} is gone (${code}) while it should ${doing}`, {
      hint: 'Start it again; `agentctl doctor` shows what was tried.',
      cause: error,
    })
  }
  return fromAnswer(error, doing)
}

function fromAnswer(error: unknown, doing: string): AgentctlError {
  const message = engineMessage(error)
  const status = statusOf(error)
  const text = `Could not ${doing}: ${message}`
  if (NO_IMAGE.test(message))
    return new AgentctlError('AG4003', text, { hint: 'Build or load the image, or correct its name.', cause: error })
  if (PORT_IN_USE.test(message)) {
    return new AgentctlError('AG4004', text, {
      hint: 'Choose another host port, or stop what listens there (`ss -ltnp` shows it).',
      cause: error,
    })
  }
  if (/pool overlaps/i.test(message))
    return new AgentctlError('AG4007', text, {
      hint: 'Run the command again, or set AGENTCTL_SUBNETS to a range of its own.',
      cause: error,
    })
  if (status === 404) return new AgentctlError('AG4012', text, { hint: 'See `agentctl ps`; bring it up with `agentctl up`.', cause: error })
  if (status === 409 && /already in use|already exists/.test(message)) {
    return new AgentctlError('AG4014', text, {
      hint: 'Remove or rename what has the name, or choose another project name with -p.',
      cause: error,
    })
  }
  return new AgentctlError('AG4005', text, { hint: '`agentctl doctor` checks the engine.', cause: error })
}

export function interrupted(doing: string, reason: unknown): AgentctlError {
  if (reason instanceof AgentctlError) return reason
  return new AgentctlError('AG7002', `Interrupted while the engine should ${doing}`, {
    hint: 'What was started goes on; see `agentctl ps`.',
    exit: EXIT.interrupted,
    cause: reason,
  })
}
