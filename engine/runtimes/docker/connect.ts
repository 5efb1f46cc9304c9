/** Finds the engine as the docker CLI does and agrees on an API version. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { AgentctlError } from '../../errors.ts'
import type { ContainerRuntime } from '../../ports.ts'
import { openConnection, type Connection } from './connection.ts'
import { describeAddress, type EngineAddress, engineAddresses } from './discovery.ts'
import { EngineTimeout, toAgentctlError } from './failure.ts'
import { fields, list, text } from '../../fields.ts'
import { dockerRuntime, type Engine } from './runtime.ts'

/** Private cgroup namespaces and the event filters that we use; Docker 20.10. */
const MIN_API: Version = [1, 41]
/** First Docker with bridges that give the host no address. */
const ISOLATED_GATEWAY_MAJOR = 28
const CONNECT_TIMEOUT_MS = 10_000

type Version = readonly [number, number]

export interface ConnectOptions {
  readonly environment: { readonly [name: string]: string | undefined }
  readonly signal?: AbortSignal
  /** Until the engine answers, per address. */
  readonly timeout_ms?: number
}

/** The first engine that answers; what was tried is in the error's hint. */
export async function connectDocker(options: ConnectOptions): Promise<ContainerRuntime> {
  const addresses = engineAddresses({ environment: options.environment, home: homedir(), readFile })
  const failures: { readonly address: EngineAddress; readonly error: AgentctlError }[] = []
  for (const address of addresses) {
    try {
      return await connectTo(address, options)
    } catch (cause) {
      const error = toAgentctlError(cause, 'answer', describeAddress(address))
      if (error.code === 'AG7002') throw error
      failures.push({ address, error })
    }
  }
  throw noEngine(failures)
}

async function connectTo(address: EngineAddress, { signal, timeout_ms = CONNECT_TIMEOUT_MS }: ConnectOptions): Promise<ContainerRuntime> {
  const probe = await openConnection(address, null)
  const engine = await readEngine(probe, signal, timeout_ms).finally(() => probe.close())
  return dockerRuntime(await openConnection(address, engine.api), engine)
}

async function readEngine(
  connection: Connection,
  signal: AbortSignal | undefined,
  timeout_ms: number,
): Promise<Engine & { readonly api: string }> {
  const answer = fields(await connection.json({ doing: 'tell its version', method: 'GET', path: '/version', signal, timeout_ms }))
  const version = text(answer['Version'])
  const newest = parseVersion(text(answer['ApiVersion']))
  const oldest = parseVersion(text(answer['MinAPIVersion'])) ?? MIN_API
  if (newest === null || isBefore(newest, MIN_API)) {
    const found = newest === null ? 'no API version' : `API ${newest.join('.')}`
    throw new AgentctlError(
      'AG4005',
      `The engine at ${connection.endpoint} is too old: expected API ${MIN_API.join('.')} (Docker 20.10) or newer, found ${found}`,
      {
        hint: 'Update the engine, or point DOCKER_HOST at a newer one.',
      },
    )
  }
  const isDocker = list(answer['Components']).some((component) => text(fields(component)['Name']) === 'Engine')
  return {
    version,
    api_version: newest.join('.'),
    // The oldest that both know: one behaviour on every engine.
    api: (isBefore(MIN_API, oldest) ? oldest : MIN_API).join('.'),
    hasIsolatedGateway: isDocker && Number.parseInt(version, 10) >= ISOLATED_GATEWAY_MAJOR,
  }
}

function noEngine(failures: readonly { readonly address: EngineAddress; readonly error: AgentctlError }[]): AgentctlError {
  const [first] = failures
  // An engine that is there but closed to us, or too old, says more than the sockets that do not exist.
  const telling = failures.find(({ error }) => error.code !== 'AG4001' && !(error.cause instanceof EngineTimeout))
  if (telling !== undefined) return telling.error
  if (failures.length === 1 && first !== undefined && first.address.source !== 'default') {
    return new AgentctlError('AG4001', `No container engine answers at ${describeAddress(first.address)} (from ${first.address.source})`, {
      hint: `Start it, or correct ${first.address.source}. Tried: ${tried(first)}`,
      cause: first.error,
    })
  }
  return new AgentctlError('AG4001', 'No container engine answers', {
    hint: `Start Docker, or set DOCKER_HOST or DOCKER_CONTEXT. Tried: ${failures.map(tried).join(', ')}`,
    cause: first?.error,
  })
}

function tried({ address, error }: { readonly address: EngineAddress; readonly error: AgentctlError }): string {
  const { cause } = error
  const why =
    cause instanceof EngineTimeout ? cause.message : cause instanceof Error && 'code' in cause ? String(cause.code) : error.message
  return `${describeAddress(address)} (${why})`
}

function parseVersion(value: string): Version | null {
  const match = /^(\d+)\.(\d+)/.exec(value)
  return match === null ? null : [Number(match[1]), Number(match[2])]
}

const isBefore = (a: Version, b: Version): boolean => a[0] < b[0] || (a[0] === b[0] && a[1] < b[1])

function readFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
