/**
 * The proxy that agents' HTTP_PROXY names: who asks, may they, then where is it, and only then bytes. Each step can only refuse.
 * CONNECT is in tunnel.ts, plain HTTP and WebSockets in forward.ts; here is what both hang on.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { EgressPolicy } from '../../spec/model.ts'
import type { Audit, Entry } from './audit.ts'
import { type Ask, decide, vet } from './decide.ts'
import { explainDenial, showRule } from './denial.ts'
import { type Dialled, dial, refusedAddress } from './dial.ts'
import { Forward } from './forward.ts'
import { listen } from './listen.ts'
import { Counts, type Live, MAX_CONNECTIONS, MAX_OPEN } from './live.ts'
import { Lookups } from './lookups.ts'
import type { Net } from './net.ts'
import { Refused, refuseSocket } from './refused.ts'
import { type Client, NOBODY, type Segments } from './segments.ts'
import { Tunnels } from './tunnel.ts'

const MAX_HEAD_BYTES = 16_384
/** All replicas together; a tunnel has two descriptors. */
const MAX_TOTAL = 4_096
const HEAD_MS = 10_000
const KEEP_ALIVE_MS = 30_000

export interface ProxyOptions {
  readonly port: number
  readonly host?: string
  readonly net: Net
  readonly audit: Audit
}

export interface Proxy {
  readonly port: number
  /** From now on these; what they do not allow is closed. */
  use(segments: Segments): void
  stop(): Promise<void>
}

/** What the two ways through the proxy share. */
export interface Core {
  /** Throws Refused when it is nobody's. */
  clientOf(socket: Duplex): Client
  policiesOf(client: Client): readonly EgressPolicy[]
  /** The rule that allows it; throws Refused with the text that the client is told. */
  permit(client: Client, ask: Ask): string
  dial(client: Client, ask: Ask): Promise<Dialled>
  /** Of a connection that another request has left: throws Refused where this one may not have it. */
  recheck(client: Client, ask: Ask, address: string): void
  /** Counts it against its replica and remembers it, until `end`. Throws Refused when it has too many. */
  open(live: Live): { readonly end: () => void }
  tell(client: Client, ask: Ask | null, outcome: Pick<Entry, 'verdict' | 'reason' | 'rule'>): void
  refused(client: Client, ask: Ask | null, error: unknown): Refused
}

export async function startProxy({ port, host = '0.0.0.0', net, audit }: ProxyOptions): Promise<Proxy> {
  let segments: Segments = NOBODY
  const live = new Set<Live>()
  const [opened, connections] = [new Counts(MAX_OPEN), new Counts(MAX_CONNECTIONS)]
  const lookups = new Lookups(net)
  const origins = new WeakMap<Duplex, { readonly local: string | undefined; readonly remote: string | undefined }>()
  const sockets = new Set<Socket>()

  const identify = (socket: Duplex): Client | null => {
    const from = origins.get(socket)
    return from === undefined ? null : segments.identify(from.local, from.remote)
  }
  const core: Core = {
    clientOf: (socket) => {
      const client = identify(socket)
      if (client === null) throw new Refused(403, 'no_rule', 'denied: the agent has no egress policy')
      return client
    },
    policiesOf: ({ agent }) => segments.policiesOf(agent),
    permit: (client, ask) => {
      const policies = segments.policiesOf(client.agent)
      const decision = decide(policies, ask)
      if (decision.allowed) return showRule(decision)
      const { by, reason } = decision
      throw new Refused(403, reason, explainDenial(policies, ask, decision), by === null ? null : showRule(by))
    },
    dial: async (client, ask) => {
      const bounded: Net = { ...net, resolve: (host) => lookups.resolve(client, host) }
      const dialled = await dial({ net: bounded, segments, policies: segments.policiesOf(client.agent), ask })
      try {
        // The rules may have changed meanwhile.
        core.permit(client, ask)
        core.recheck(client, ask, dialled.address)
        return dialled
      } catch (error) {
        dialled.socket.destroy()
        throw error
      }
    },
    recheck: ({ agent }, ask, address) => {
      const policies = segments.policiesOf(agent)
      const vetted = vet(address, { policies, ask, isOwn: segments.isOwn })
      if (!vetted.ok) throw refusedAddress(policies, ask, vetted)
    },
    open: (entry) => {
      if (!opened.take(entry.client))
        throw new Refused(429, 'limit', `denied: this replica has ${MAX_OPEN} connections and requests open, which is the most`)
      live.add(entry)
      let over = false
      const end = (): void => {
        if (over) return
        over = true
        live.delete(entry)
        opened.give(entry.client)
      }
      return { end }
    },
    tell: (client, ask, outcome) =>
      audit.tell(client, {
        host: ask?.host.host ?? null,
        port: ask?.port ?? null,
        scheme: ask?.scheme ?? 'http',
        method: ask?.method ?? null,
        ...outcome,
      }),
    refused: (client, ask, error) => {
      const refusal = error instanceof Refused ? error : new Refused(502, 'unreachable', 'the connection was lost')
      core.tell(client, ask, { verdict: 'deny', reason: refusal.reason, rule: refusal.rule })
      return refusal
    },
  }

  const forward = new Forward(core)
  const server = createServer(SERVER, (request, response) => forward.request(request, response))
  const tunnels = new Tunnels(core, (socket, first, to) => {
    forward.inTunnel(socket, to)
    socket.unshift(first)
    // The same server reads it, with the same limits.
    server.emit('connection', socket)
    socket.resume()
  })
  server.maxConnections = MAX_TOTAL
  server.on('connection', (socket: Socket) => {
    // Plain HTTP out of a tunnel: it is counted already.
    if (origins.has(socket)) return
    origins.set(socket, { local: socket.localAddress, remote: socket.remoteAddress })
    const client = identify(socket)
    // Nobody of ours, or on a network where it has no business.
    if (client === null || !connections.take(client)) return void socket.destroy()
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => {
      sockets.delete(socket)
      connections.give(client)
    })
  })
  server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => void tunnels.connect(request, socket, head))
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => void forward.upgrade(request, socket, head))
  onMalformed(server, identify, core)
  await listen(server, port, host)

  return {
    port: (server.address() as AddressInfo).port,
    use: (next) => {
      segments = next
      // Pooled connections were vetted under the old rules.
      forward.reset()
      for (const each of live) {
        if (isAllowed(next, each)) continue
        core.tell(each.client, each.ask, { verdict: 'deny', reason: 'narrowed', rule: null })
        each.close()
      }
    },
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const each of live) each.close()
      for (const socket of sockets) socket.destroy()
      forward.reset()
      server.closeAllConnections()
      await closed
      audit.flush()
    },
  }
}

/** Strict parsing is Node's default: no bare LF, no Content-Length beside chunked, no invalid header. */
const SERVER = {
  maxHeaderSize: MAX_HEAD_BYTES,
  headersTimeout: HEAD_MS,
  // A body may take its time; what does not move for IDLE_MS is closed by its socket.
  requestTimeout: 0,
  connectionsCheckingInterval: 1_000,
  keepAliveTimeout: KEEP_ALIVE_MS,
  noDelay: true,
} as const

function onMalformed(server: Server, identify: (socket: Duplex) => Client | null, core: Pick<Core, 'refused'>): void {
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const client = identify(socket)
    // An answer that has begun cannot become another one.
    const current = (socket as { _httpMessage?: { headersSent?: boolean } | null })._httpMessage
    if (client === null || error.code === 'ECONNRESET' || !socket.writable || current?.headersSent === true) return void socket.destroy()
    const [status, reason] = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? ([408, 'timeout'] as const) : ([400, 'malformed'] as const)
    refuseSocket(
      socket,
      core.refused(client, null, new Refused(status, reason, `refused: the request cannot be read (${error.code ?? 'error'})`)),
    )
  })
}

function isAllowed(segments: Segments, { client, ask, address }: Live): boolean {
  const policies = segments.policiesOf(client.agent)
  if (!decide(policies, ask).allowed) return false
  return address === null || vet(address, { policies, ask, isOwn: segments.isOwn }).ok
}
