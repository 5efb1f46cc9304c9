/** The task protocol for agents (docs/protocol.md), over HTTP on every role network. An agent is hostile: nothing it says about itself counts. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { MAX_BODY_BYTES, PROTOCOL_VERSION, SESSION_HEADER } from '../../spec/protocol.ts'
import { type Identity, verifyReplicaToken } from '../tokens.ts'
import { type AgentApiOptions, type Call, type Kit, lost, READY_MS, unavailable } from './agent/call.ts'
import { openapi } from './agent/openapi.ts'
import { isStream, routesAt } from './agent/routes.ts'
import { BodyBudget } from './body-budget.ts'
import { Connections } from './connections.ts'
import { decoded, HttpError, readJson, sendError, sendJson, urlOf } from './http.ts'
import type { Replica } from './replicas.ts'
import { Slow } from './slow.ts'

/** An orchestrator may wait for many children at once; no replica may hold the gateway's sockets. */
const MAX_REQUESTS = 256
/** Of silence; then a probe each second, and after ten without an answer the connection is closed. */
const PROBE_AFTER_MS = 15_000

export function agentServer(options: AgentApiOptions): Server {
  const connections = new Connections()
  const api = new AgentApi(options, connections)
  // The request of an idle agent is held for minutes: the kernel asks whether it is there, which costs this process nothing.
  const server = createServer({ keepAlive: true, keepAliveInitialDelay: PROBE_AFTER_MS }, (request, response) => {
    if (options.door?.(request, response) !== true) return void api.serve(request, response)
    connections.known(request.socket)
  })
  // Agents keep their connections open: that they do is how the gateway knows that they live.
  server.keepAliveTimeout = 0
  // Bodies of any length come in artifacts: who sends slowly is found by Slow, and by the pace of an upload.
  server.requestTimeout = 0
  server.headersTimeout = 20_000
  server.on('checkContinue', (request, response) => {
    // An upload is told to go on once it is admitted.
    if (request.method !== 'PUT') response.writeContinue()
    void api.serve(request, response)
  })
  server.on('close', () => api.close())
  server.on('connection', (socket) => {
    socket.setNoDelay(true)
    connections.opened(socket)
  })
  return server
}

class AgentApi {
  readonly #options: AgentApiOptions
  readonly #connections: Connections
  readonly #budget = new BodyBudget()
  readonly #tokens = new Map<string, Identity>()
  readonly #kit: Kit
  readonly #slow = new Slow()
  #document: string | null = null
  #ready = false

  constructor(options: AgentApiOptions, connections: Connections) {
    this.#options = options
    this.#connections = connections
    this.#kit = {
      ...options,
      json: (call) => readJson(call.request, MAX_BODY_BYTES, this.#kit.reserve(call)),
      reserve: ({ replica, response }) => {
        // What a request says is in memory as long as it is open.
        let held = 0
        response.once('close', () => this.#budget.release(replica, held))
        return (bytes) => {
          this.#budget.reserve(replica, bytes)
          held += bytes
        }
      },
      whenReady: (signal) => this.#whenReady(signal),
      held: (replica, token) => {
        const lease = options.dispatcher.held(replica, token)
        if (lease !== null) return lease
        // Until the leases of the gateway before are taken over, none is known, and none is lost.
        if (!this.#ready) throw unavailable()
        const session = replica.session ?? replica.sessionless
        if (session !== null) options.dispatcher.refused(session, token, 'use')
        throw lost()
      },
    }
    void options.ready.then(() => {
      this.#ready = true
    })
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let replica: Replica | null = null
    try {
      const path = request.url ?? '/'
      if (path === '/v1/health') {
        sendJson(response, 200, JSON.stringify({ ok: true, protocol: PROTOCOL_VERSION }))
        return
      }
      if (path === '/v1/openapi.json') {
        sendJson(response, 200, (this.#document ??= JSON.stringify(openapi())))
        return
      }
      replica = this.#options.dispatcher.replicas.of(this.#identify(request))
      this.#connections.known(request.socket)
      if (++replica.requests > MAX_REQUESTS)
        throw new HttpError(
          429,
          'too_many_requests',
          `more than ${MAX_REQUESTS} open requests of one replica`,
          'Wait for answers before asking more.',
        )
      const session = this.#options.dispatcher.replicas.enter(replica, sessionId(request), request.socket)
      await this.#route({ request, response, replica, session })
    } catch (error) {
      sendError(response, error, 'unavailable', this.#options.log)
    } finally {
      if (replica !== null) replica.requests -= 1
      this.#slow.delete(request)
    }
  }

  async #route(from: Pick<Call, 'request' | 'response' | 'replica' | 'session'>): Promise<void> {
    const { request, response } = from
    const gone = new AbortController()
    // An abort for nobody would cost its error's stack.
    response.once('close', () => {
      if (!response.writableFinished) gone.abort()
    })
    const url = urlOf(request, 'http://gateway')
    const { routes, rest } = routesAt(url.pathname)
    if (routes.length === 0) throw new HttpError(404, 'not_found', `there is no ${url.pathname}`, 'See docs/protocol.md.')
    const route = routes.find((it) => it.method === request.method)
    if (route === undefined)
      throw new HttpError(405, 'bad_request', `expected ${routes.map((it) => it.method).join(' or ')}, got ${request.method}`)
    if (!isStream(route)) this.#slow.add(request)
    await route.handle(this.#kit, { ...from, url, signal: gone.signal, rest: decoded(rest) })
  }

  close(): void {
    this.#slow.close()
  }

  /** The HMAC is made once per token: a busy replica asks a thousand times a second. */
  #identify(request: IncomingMessage): Identity {
    const header = request.headers.authorization ?? ''
    const token = /^bearer /i.test(header) ? header.slice('bearer '.length).trim() : ''
    let identity = this.#tokens.get(token) ?? null
    if (identity === null) {
      identity = verifyReplicaToken(this.#options.key, this.#options.config.project.name, token)
      if (identity === null)
        throw new HttpError(
          401,
          'unauthorized',
          token === '' ? 'there is no bearer token' : 'the token is not of this project',
          'Send "Authorization: Bearer" and the content of /run/secrets/agentctl-token.',
        )
      this.#tokens.set(token, identity)
    }
    if (this.#options.config.agent(identity.agent) === null)
      throw new HttpError(403, 'unknown_agent', `the project has no agent "${identity.agent}" any more`)
    return identity
  }

  async #whenReady(signal: AbortSignal): Promise<void> {
    if (this.#ready && this.#options.broker.connected) return
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, READY_MS)
    signal.addEventListener('abort', () => late.resolve(), { once: true })
    const connected = Promise.withResolvers<void>()
    const off = this.#options.broker.onConnected(() => connected.resolve())
    await Promise.race([Promise.all([this.#options.ready, connected.promise]), late.promise])
    clearTimeout(timer)
    off()
    if (!this.#ready || !this.#options.broker.connected) throw unavailable()
  }
}

function sessionId(request: IncomingMessage): string {
  const id = request.headers[SESSION_HEADER]
  if (id === undefined) return ''
  if (typeof id !== 'string' || !/^[A-Za-z0-9_-]{8,64}$/.test(id))
    throw new HttpError(400, 'bad_request', `${SESSION_HEADER} must be 8 to 64 characters of A-Z a-z 0-9 _ -`)
  return id
}
