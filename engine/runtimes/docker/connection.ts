/** One call to the engine: deadline, abort and errors are handled here and nowhere else. */
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent, type AgentOptions } from 'node:https'
import type { Readable, Duplex } from 'node:stream'
import { inspect } from 'node:util'
import type Docker from 'dockerode'
import { EngineTimeout, interrupted, statusOf, toAgentctlError } from './failure.ts'
import { describeAddress, type EngineAddress } from './discovery.ts'
import { limitTo } from './limit.ts'
import { loadDockerode } from './load.ts'

export const CALL_TIMEOUT_MS = 60_000
/** The engine works on about this many calls at once anyway; more only queue there, on one socket each. */
const MAX_SOCKETS = 16

export interface Call {
  /** "create container x": completes "Could not …". */
  readonly doing: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD'
  readonly path: string
  readonly query?: { readonly [name: string]: string | number | boolean | readonly string[] }
  readonly body?: object
  readonly file?: Buffer | NodeJS.ReadableStream
  readonly signal?: AbortSignal | undefined
  /** Until the answer (streams: until its first byte). */
  readonly timeout_ms?: number
  /** Takes long by design (a stop's grace): must not keep others from the pool. */
  readonly slow?: boolean
}

export interface Connection {
  readonly endpoint: string
  /** Parsed JSON; an empty answer is null. */
  json(call: Call): Promise<unknown>
  /** As `json`, with null for 404. */
  jsonOrNull(call: Call): Promise<unknown>
  /** The body as a stream that the call's signal destroys. Never from the pool: a stream may stay open for days. */
  stream(call: Call): Promise<Readable>
  /** A raw duplex (exec). Ending it ends the remote stdin. */
  hijack(call: Call): Promise<Duplex>
  close(): void
}

const ACCEPTED = { 101: true, 200: true, 201: true, 202: true, 204: true, 304: true } as const

export async function openConnection(address: EngineAddress, version: string | null): Promise<Connection> {
  const Dockerode = await loadDockerode()
  const pooled = quiet(newAgent(address, { keepAlive: true, maxSockets: MAX_SOCKETS }))
  const single = quiet(newAgent(address, { keepAlive: false }))
  const options = connectionOptions(address, version)
  // The types do not know `agent`; the modem does.
  const calls = new Dockerode({ ...options, ...{ agent: pooled } })
  const streams = new Dockerode({ ...options, ...{ agent: single } })
  const endpoint = describeAddress(address)

  const dial = (docker: Docker, call: Call, shape: { isStream?: boolean; hijack?: boolean }): Promise<unknown> =>
    dialOnce(docker, call, shape, endpoint)
  const limited = limitTo(MAX_SOCKETS)
  const json = async (call: Call): Promise<unknown> => {
    const answer = await (call.slow ? dial(streams, call, {}) : limited(() => dial(calls, call, {})))
    return Buffer.isBuffer(answer) ? null : answer
  }
  return {
    endpoint,
    json,
    jsonOrNull: (call) =>
      json(call).catch((error: unknown) => {
        if (statusOf(error instanceof Error ? error.cause : null) === 404) return null
        throw error
      }),
    stream: (call) => dial(streams, call, { isStream: true }) as Promise<Readable>,
    hijack: (call) => dial(streams, call, { isStream: true, hijack: true }) as Promise<Duplex>,
    close: () => {
      pooled.destroy()
      single.destroy()
    },
  }
}

async function dialOnce(docker: Docker, call: Call, shape: { isStream?: boolean; hijack?: boolean }, endpoint: string): Promise<unknown> {
  const { signal, timeout_ms = CALL_TIMEOUT_MS } = call
  if (signal?.aborted) throw interrupted(call.doing, signal.reason)
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(new EngineTimeout(timeout_ms)), timeout_ms)
  const onAbort = (): void => controller.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const release = (): void => signal?.removeEventListener('abort', onAbort)
  try {
    const answer = await new Promise<unknown>((resolve, reject) => {
      docker.modem.dial(
        {
          // The trailing "?" makes the modem append the query.
          path: `${call.path}?`,
          method: call.method,
          options: { _query: call.query ?? {}, _body: call.body ?? {} },
          ...(call.file === undefined ? {} : { file: call.file }),
          ...(shape.hijack ? { hijack: true, openStdin: true } : {}),
          isStream: shape.isStream ?? false,
          statusCodes: ACCEPTED,
          abortSignal: controller.signal,
        },
        (error, result) => (error === null || error === undefined ? resolve(result) : reject(error)),
      )
    })
    if (shape.isStream) followAbort(answer as Duplex, controller, release)
    else release()
    return answer
  } catch (error) {
    release()
    // A hijacked request that was refused stays open, its stdin never ended.
    const reason: unknown = controller.signal.aborted ? controller.signal.reason : null
    if (!controller.signal.aborted) controller.abort()
    if (signal?.aborted && !(reason instanceof EngineTimeout)) throw interrupted(call.doing, reason)
    throw toAgentctlError(reason instanceof EngineTimeout ? reason : error, call.doing, endpoint)
  } finally {
    clearTimeout(timer)
  }
}

/** After an upgrade the request no longer listens to its signal: destroy the stream ourselves. */
function followAbort(stream: Duplex, controller: AbortController, release: () => void): void {
  const destroy = (): void => void stream.destroy()
  controller.signal.addEventListener('abort', destroy, { once: true })
  stream.once('close', () => {
    release()
    controller.signal.removeEventListener('abort', destroy)
  })
}

/** The modem inspects its options, agent and all its sockets included, for a debug line at every call. */
function quiet<T extends HttpAgent>(agent: T): T {
  return Object.defineProperty(agent, inspect.custom, { value: () => 'Agent', enumerable: false })
}

function newAgent(address: EngineAddress, options: AgentOptions): HttpAgent {
  if (address.kind === 'unix' || address.tls === null) return new HttpAgent(options)
  return new HttpsAgent({ ...options, rejectUnauthorized: address.tls.verify })
}

function connectionOptions(address: EngineAddress, version: string | null): Docker.DockerOptions {
  // Explicit undefined: the modem fills what is missing from DOCKER_HOST of this process.
  const versioned = { ...(version === null ? {} : { version: `v${version}` }), timeout: undefined }
  if (address.kind === 'unix') return { socketPath: address.path, host: undefined, protocol: 'http', ...versioned }
  const { tls } = address
  return {
    protocol: tls === null ? 'http' : 'https',
    host: address.host,
    port: address.port,
    ca: tls?.ca ?? undefined,
    cert: tls?.cert ?? undefined,
    key: tls?.key ?? undefined,
    ...versioned,
  }
}
