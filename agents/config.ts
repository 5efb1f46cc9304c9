/** What the container tells the runtime: environment and token file. */
import { readFileSync } from 'node:fs'
import { AGENT_ENV, GATEWAY_PORT } from '../spec/protocol.ts'

export interface Place {
  readonly host: string
  readonly port: number
}

export interface AgentConfig {
  /** At least one. Each hands out work of its own; a task's questions go to the one that it came from. */
  readonly gateways: readonly [Place, ...Place[]]
  readonly token: string
  readonly agent: string
  readonly replica: number
  readonly concurrency: number
  readonly handler: { readonly kind: 'exec' } | { readonly kind: 'module'; readonly file: string }
  readonly traces: boolean
  readonly workspace: string
  readonly readyFile: string
  /** How much of the container's memory a module's heap may take; null: a share of it. */
  readonly heapMb: number | null
  /** From SIGTERM until what still runs is given back. */
  readonly stopGraceMs: number
}

/** The engine kills 10 s after SIGTERM; two of them are for saying so. */
const STOP_GRACE_MS = 8_000

type Env = { readonly [name: string]: string | undefined }

export class ConfigError extends Error {}

const required = (env: Env, name: string): string => {
  const value = env[name]
  if (value === undefined || value === '') throw new ConfigError(`the environment variable ${name} is not set`)
  return value
}

const count = <T>(env: Env, name: string, fallback: T): number | T => {
  const text = env[name]
  if (text === undefined || text === '') return fallback
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new ConfigError(`${name}: expected a whole number from 1 on, got "${text}"`)
  return Number(text)
}

function parseHandler(text: string): AgentConfig['handler'] {
  if (text === 'exec') return { kind: 'exec' }
  const file = text.startsWith('module:') ? text.slice('module:'.length) : ''
  if (!file.startsWith('/')) throw new ConfigError(`${AGENT_ENV.handler}: expected "exec" or "module:/path/to/file", got "${text}"`)
  return { kind: 'module', file }
}

function placeOf(name: string, text: string): Place {
  const url = URL.parse(text)
  if (url?.protocol !== 'http:') throw new ConfigError(`${name}: expected a URL like "http://gateway:${GATEWAY_PORT}", got "${text}"`)
  return { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port: url.port === '' ? 80 : Number(url.port) }
}

/** Paths and bounds can be set by the environment, for runs outside of a container. */
export function readConfig(env: Env, read: (file: string) => string = (file) => readFileSync(file, 'utf8')): AgentConfig {
  const first = placeOf(AGENT_ENV.gateway, required(env, AGENT_ENV.gateway))
  const [, ...others] = (env[AGENT_ENV.gateways] ?? '')
    .split(',')
    .map((text, index) => (index === 0 ? first : placeOf(AGENT_ENV.gateways, text)))
  const tokenFile = env['AGENTCTL_TOKEN_FILE'] ?? AGENT_ENV.tokenFile
  let token = ''
  try {
    token = read(tokenFile).trim()
  } catch (error) {
    throw new ConfigError(`the token cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (!/^[\x21-\x7e]+$/.test(token)) throw new ConfigError(`${tokenFile}: expected a token on one line`)
  return {
    gateways: [first, ...others],
    token,
    agent: required(env, AGENT_ENV.agent),
    replica: count(env, AGENT_ENV.replica, 1),
    concurrency: count(env, AGENT_ENV.concurrency, 1),
    handler: parseHandler(env[AGENT_ENV.handler] ?? 'exec'),
    traces: env['AGENTCTL_TRACES'] === '1',
    workspace: env['AGENTCTL_WORKSPACE'] ?? '/workspace',
    readyFile: env['AGENTCTL_READY_FILE'] ?? '/tmp/.agentctl-ready',
    heapMb: count(env, 'AGENTCTL_MODULE_HEAP_MB', null),
    stopGraceMs: count(env, 'AGENTCTL_STOP_GRACE_MS', STOP_GRACE_MS),
  }
}
