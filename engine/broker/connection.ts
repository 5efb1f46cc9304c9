/**
 * The one connection to Redis: our own broker's, or that of `broker: {url}`. Nothing is sent on it before the server's settings have
 * been seen, at each connect, as a restart or a failover may have changed them.
 */
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import { Redis } from 'ioredis'
import { type Durability, fsyncRefusal, refusalOf } from './demands.ts'
import type { BrokerProblem } from './port.ts'

const MAX_RETRY_MS = 500

export interface ConnectionOptions {
  readonly host: string
  readonly port: number
  readonly username?: string
  readonly password?: string
  readonly db?: number
  /** TLS with that server, whoever relays to it; `ca`: PEM, in place of the authorities that Node trusts. */
  readonly tls?: { readonly servername: string; readonly ca?: string }
  /** Unix socket instead of host and port. */
  readonly path?: string
  /** Of a broker that we do not run: its settings are checked against this. Absent: not checked. */
  readonly demands?: Durability
  /** Asked before each new attempt: a secret may have been exchanged. */
  readonly refresh?: () => { readonly password?: string; readonly ca?: string }
  /** When the reason why there is no connection changes; null: there is one. */
  readonly note?: (problem: BrokerProblem | null) => void
}

export interface Connection {
  readonly client: Redis
  /** The server answers, and is what it must be. */
  readonly connected: boolean
  readonly problem: BrokerProblem | null
  onConnected(listener: () => void): () => void
}

export function openConnection(options: ConnectionOptions): Connection {
  const listeners = new Set<() => void>()
  let problem: BrokerProblem | null = null
  let up = false
  const say = (next: BrokerProblem | null): void => {
    const changed = problem?.message !== next?.message
    problem = next
    if (changed) options.note?.(next)
  }
  const refuse = (why: string): void => say({ code: 'AG5003', message: `the broker's settings are refused: ${why}` })

  const client = new Redis({
    ...(options.path === undefined ? { host: options.host, port: options.port } : { path: options.path }),
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: options.password }),
    ...(options.db === undefined ? {} : { db: options.db }),
    ...(options.tls === undefined ? {} : { tls: tlsOptions(options.tls) }),
    maxRetriesPerRequest: null,
    retryStrategy: (attempt) => {
      const fresh = options.refresh?.()
      if (fresh?.password !== undefined) client.options.password = fresh.password
      if (fresh?.ca !== undefined && client.options.tls !== undefined) client.options.tls.ca = fresh.ca
      return Math.min(50 * attempt, MAX_RETRY_MS)
    },
    // A password that is not there yet, a Redis that still loads: both pass.
    reconnectOnError: (error) => /^(NOAUTH|WRONGPASS|LOADING|READONLY)/.test(error.message),
    connectTimeout: 2_000,
    // A frozen or cut-off broker is found by the command that gets no answer.
    socketTimeout: 10_000,
    keepAlive: 5_000,
    enableReadyCheck: true,
  })
  if (options.demands !== undefined) demand(client, options.demands, refuse)
  client.on('ready', () => {
    say(null)
    up = true
    for (const listener of listeners) listener()
  })
  client.on('error', (error: Error) => {
    if (client.status !== 'ready') say({ code: 'AG5002', message: `the broker does not answer: ${reasonOf(error)}` })
  })
  client.on('close', () => {
    up = false
    if (problem === null) say({ code: 'AG5002', message: 'the broker does not answer: the connection was closed' })
  })
  return {
    client,
    get connected() {
      return up && client.status === 'ready'
    },
    get problem() {
      return problem
    },
    onConnected(listener) {
      listeners.add(listener)
      if (up && client.status === 'ready') listener()
      return () => void listeners.delete(listener)
    },
  }
}

type Info = { readonly [field: string]: unknown }
type Checked = (error: Error | null, info?: Info) => void

/** ioredis reads INFO before anything that waits is sent. What it does with it is ours to say; a refused one is tried again later. */
function demand(client: Redis, durability: Durability, refuse: (why: string) => void): void {
  const inner = client as unknown as { _readyCheck: (done: Checked) => void }
  const check = inner._readyCheck.bind(client)
  inner._readyCheck = (done) =>
    check((error, info = {}) => {
      if (error !== null && error !== undefined) return done(error)
      const judge = (why: string | null): void => {
        if (why === null) return done(null, info)
        refuse(why)
        client.disconnect(true)
      }
      const why = refusalOf(info, durability)
      if (why !== null || durability !== 'strict') return judge(why)
      fsyncOf(client).then(
        (value) => judge(fsyncRefusal(value)),
        (problem: unknown) => done(problem instanceof Error ? problem : new Error(String(problem))),
      )
    })
}

/** INFO does not tell, and on a connection that is not ready nothing else may be asked: a connection of its own. null: may not be seen. */
async function fsyncOf(client: Redis): Promise<string | null> {
  const probe = client.duplicate({ lazyConnect: true, enableReadyCheck: false, maxRetriesPerRequest: 0, retryStrategy: () => null })
  probe.on('error', () => {})
  try {
    await probe.connect()
    return valueOf(await probe.config('GET', 'appendfsync'))
  } catch (error) {
    if (error instanceof Error && /^NOPERM|unknown command/i.test(error.message)) return null
    throw error
  } finally {
    probe.disconnect()
  }
}

/** The name in the certificate is that of the broker, not of the relay that we connect to. */
function tlsOptions({ servername, ca }: NonNullable<ConnectionOptions['tls']>): object {
  return {
    ...(isIP(servername) === 0
      ? { servername }
      : // An address is no server name in TLS; the certificate must name it all the same.
        {
          checkServerIdentity: (_: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
            checkServerIdentity(servername, certificate),
        }),
    ...(ca === undefined ? {} : { ca }),
  }
}

/** RESP2 gives a list, RESP3 a map. */
function valueOf(reply: unknown): string | null {
  if (Array.isArray(reply)) return typeof reply[1] === 'string' ? reply[1] : null
  const value = (reply as { appendfsync?: unknown } | null)?.appendfsync
  return typeof value === 'string' ? value : null
}

/** Never the password: Redis does not repeat it. */
function reasonOf(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  return error.message === '' ? code || error.name : error.message
}
