/** The task protocol for agents (docs/protocol.md), over HTTP on every role network. An agent is hostile: nothing it says about itself counts. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import {
  MAX_BODY_BYTES,
  MAX_CHILDREN,
  MAX_DEPTH,
  MAX_PAYLOAD_BYTES,
  MAX_WAIT_MS,
  PROTOCOL_VERSION,
  SESSION_HEADER,
  type Settlement,
} from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import { jsonBytes } from '../pipeline.ts'
import { traceIdOf } from '../telemetry/traceparent.ts'
import { type Identity, verifyReplicaToken } from '../tokens.ts'
import { BodyBudget } from './body-budget.ts'
import type { Config } from './config.ts'
import { Connections } from './connections.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { RunEvents } from './events.ts'
import { decoded, type Fields, HttpError, readBody, readJson, type Reserve, sendError, sendJson, urlOf, waitMs } from './http.ts'
import type { Replica, Session } from './replicas.ts'
import { childField } from './run-record.ts'
import type { Runs } from './runs.ts'
import { MAX_TRACES_BYTES, ownTraces, type TraceForwarder } from './traces.ts'
import type { Tracing } from './tracing.ts'
import { completeCall, delegateCall, failCall, heartbeatCall, leaseCall, progressCall } from './validate.ts'
import type { Views } from './views.ts'
import { encodeTask, type Lease, type Task } from './work.ts'

/** An orchestrator may wait for many children at once; no replica may hold the gateway's sockets. */
const MAX_REQUESTS = 256
/** A request that meets a broker (or gateway) that is not ready is held for so long, then 503: below the 5 s after which runtimes give an answer up. */
const READY_MS = 2_000

export interface AgentApiOptions {
  readonly key: string
  readonly config: Config
  readonly broker: Broker
  readonly dispatcher: Dispatcher
  readonly runs: Runs
  readonly views: Views
  readonly events: RunEvents
  readonly tracing: Tracing
  readonly traces: TraceForwarder
  /** The state of the gateway before is taken over. */
  readonly ready: Promise<void>
  readonly log: (message: string) => void
}

type Call = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly session: Session
  readonly replica: Replica
  readonly signal: AbortSignal
  readonly url: URL
}

const unavailable = (): HttpError => new HttpError(503, 'unavailable', 'the broker is away', 'Send the request again.')
const lost = (): HttpError =>
  new HttpError(409, 'lease_lost', 'the lease is dead, or not of this replica', 'Stop the work; its result would be refused.')
const tooManyChildren = (): HttpError =>
  new HttpError(429, 'too_many_children', `a task has at most ${MAX_CHILDREN} unfinished children`, 'Wait until some have ended.')
const tooLarge = (what: string, bytes: number): HttpError =>
  new HttpError(
    413,
    'payload_too_large',
    `the ${what} has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`,
    'Write large data to a volume and pass its place.',
  )

export function agentServer(options: AgentApiOptions): Server {
  const connections = new Connections()
  const api = new AgentApi(options, connections)
  const server = createServer((request, response) => void api.serve(request, response))
  // Agents keep their connections open: that they do is how the gateway knows that they live.
  server.keepAliveTimeout = 0
  server.requestTimeout = 60_000
  server.headersTimeout = 20_000
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
  #ready = false

  constructor(options: AgentApiOptions, connections: Connections) {
    this.#options = options
    this.#connections = connections
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
      await this.#route(request, response, replica, session)
    } catch (error) {
      sendError(response, error, 'unavailable', this.#options.log)
    } finally {
      if (replica !== null) replica.requests -= 1
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, replica: Replica, session: Session): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    const call: Call = { request, response, replica, session, signal: gone.signal, url: urlOf(request, 'http://gateway') }
    const { pathname } = call.url
    if (pathname.startsWith('/v1/tasks/')) {
      method(request, 'GET')
      return this.#task(call, decoded(pathname.slice('/v1/tasks/'.length)))
    }
    const handler = this.#handlers[pathname]
    if (handler === undefined) throw new HttpError(404, 'not_found', `there is no ${pathname}`, 'See docs/protocol.md.')
    method(request, 'POST')
    await handler(call)
  }

  readonly #handlers: { readonly [path: string]: (call: Call) => Promise<void> } = {
    '/v1/lease': (call) => this.#lease(call),
    '/v1/progress': (call) => this.#progress(call),
    '/v1/delegate': (call) => this.#delegate(call),
    '/v1/traces': (call) => this.#traces(call),
    '/v1/complete': async (call) => this.#settle(call, completeCall(await this.#json(call))),
    '/v1/fail': async (call) => this.#settle(call, failCall(await this.#json(call))),
    '/v1/heartbeat': (call) => this.#heartbeat(call),
  }

  #json(call: Call): Promise<Fields> {
    return readJson(call.request, MAX_BODY_BYTES, this.#reserve(call))
  }

  /** Room is held until the answer is out: what a request says is in memory as long as it is open. */
  #reserve({ replica, response }: Call): Reserve {
    let held = 0
    response.once('close', () => this.#budget.release(replica, held))
    return (bytes) => {
      this.#budget.reserve(replica, bytes)
      held += bytes
    }
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

  async #lease(call: Call): Promise<void> {
    const { request, response, session, signal } = call
    const asked = leaseCall(await this.#json(call))
    const { dispatcher } = this.#options
    await this.#whenReady(signal)
    const working = dispatcher.lease(session, asked, signal)
    const reply = await inTime(working, asked.wait_ms + READY_MS)
    if (reply === null || signal.aborted) {
      // What it brings later goes out with another request; what it settles is known then.
      working.then(
        ({ leases }) => dispatcher.undelivered(leases),
        (error: unknown) => this.#options.log(String(error)),
      )
      throw unavailable()
    }
    const { leases, settled, cancel } = reply
    response.once('finish', () => dispatcher.delivered(session, leases, request.socket))
    response.once('close', () => {
      if (!response.writableFinished) dispatcher.undelivered(leases)
    })
    sendJson(
      response,
      200,
      `{"tasks":[${leases.map((lease) => dispatcher.view(lease)).join(',')}],"settled":${JSON.stringify(settled)},"cancel":${JSON.stringify(cancel)}}`,
    )
  }

  async #settle({ response, session, signal }: Call, settlement: Settlement): Promise<void> {
    await this.#whenReady(signal)
    const settling = this.#options.dispatcher.settle(session, settlement)
    const reply = await inTime(settling, READY_MS)
    settling.catch(() => {})
    if (reply === null) throw unavailable()
    const { ok, code } = reply
    if (code === 'payload_too_large' && settlement.status === 'completed') throw tooLarge('result', jsonBytes(settlement.result))
    if (!ok) throw lost()
    sendJson(response, 200, '{"ok":true}')
  }

  async #heartbeat(call: Call): Promise<void> {
    const { response, replica, signal } = call
    const token = heartbeatCall(await this.#json(call))
    await this.#whenReady(signal)
    const lease = this.#held(replica, token)
    if (lease.cancel !== null) lease.cancel.told = true
    sendJson(response, 200, JSON.stringify({ ok: true, cancel: lease.cancel === null ? [] : [token] }))
  }

  async #progress(call: Call): Promise<void> {
    const { response, replica } = call
    const { lease, message, percent, data } = progressCall(await this.#json(call))
    this.#options.events.add(this.#held(replica, lease).task, 'progress', message, percent, data)
    sendJson(response, 200, '{"ok":true}')
  }

  async #delegate(call: Call): Promise<void> {
    const { request, response, replica, signal } = call
    const { lease: token, key, agent, type, input } = delegateCall(await this.#json(call))
    const bytes = jsonBytes(input)
    if (bytes > MAX_PAYLOAD_BYTES) throw tooLarge('input', bytes)
    await this.#whenReady(signal)
    const lease = this.#held(replica, token)
    const own = this.#options.config.agent(replica.agent)
    if (own?.delegates_to.includes(agent) !== true)
      throw new HttpError(
        403,
        'not_allowed',
        `agent "${replica.agent}" may not delegate to "${agent}"`,
        `Add it to delegates_to of "${replica.agent}".`,
      )
    if (this.#options.config.agent(agent) === null) throw new HttpError(403, 'not_allowed', `the project has no agent "${agent}" any more`)
    if (lease.task.depth + 1 > MAX_DEPTH) throw new HttpError(403, 'too_deep', `delegation is ${MAX_DEPTH} deep at most`)
    const task = await this.#child(lease, key, agent, type, JSON.stringify(input), request.headers['traceparent'])
    sendJson(response, 200, JSON.stringify({ task }))
  }

  /** The same key again is the same child, whoever asks: this attempt of the parent, a later one, or a request that was sent twice. */
  async #child(
    lease: Lease,
    key: string,
    agent: string,
    type: string,
    input: string,
    traceparent: string | string[] | undefined,
  ): Promise<string> {
    const { dispatcher, broker, runs, tracing } = this.#options
    const parent = lease.task
    const id = `${parent.id}.${createHash('sha256').update(key).digest('hex').slice(0, 16)}`
    if (dispatcher.task(id)?.agent === agent) return id
    // Before anything is written for it.
    if (parent.children >= MAX_CHILDREN) throw tooManyChildren()
    const claimed = await broker.claimRunField(parent.run, childField(id), agent)
    if (claimed !== agent)
      throw new HttpError(
        400,
        'bad_request',
        `the key "${key}" was used before, for agent "${claimed}"`,
        'A key names one child of a task.',
      )
    const [state] = await broker.read([{ queue: agent, id }])
    if (state !== null || dispatcher.task(id) !== undefined) return id
    if (!runs.isOpen(parent.run) || parent.lease !== lease) throw lost()
    // Others came meanwhile.
    if (parent.children >= MAX_CHILDREN) throw tooManyChildren()
    const process = tracing.process(parent, lease.epoch)
    const above =
      typeof traceparent === 'string' && traceIdOf(traceparent) !== null && traceIdOf(traceparent) === traceIdOf(process)
        ? traceparent
        : process
    const sent = tracing.send(above, id)
    const head = { run: parent.run, job: null, parent: parent.id, depth: parent.depth + 1, type, sent }
    const task: Task = { id, agent, ...head, children: 0, lease: null }
    runs.childAdded(task)
    await dispatcher.add([{ task, data: encodeTask(head, input) }])
    tracing.sent(sent, above, agent, parent.run, 1)
    return id
  }

  /** Only the replica that holds the parent sees a child; for all others it is not there. */
  async #task({ response, replica, signal, url }: Call, id: string): Promise<void> {
    await this.#whenReady(signal)
    const wait = waitMs(url, MAX_WAIT_MS)
    const { dispatcher, views } = this.#options
    const parent = dispatcher.task(id.slice(0, Math.max(0, id.lastIndexOf('.'))))
    const missing = (): HttpError =>
      new HttpError(404, 'not_found', `you have no task "${id.slice(0, 200)}"`, 'Only the children of a task that you hold are yours.')
    if (parent?.lease?.replica !== replica) throw missing()
    await dispatcher.whenEnded(id, wait, signal)
    const view = await views.task(id)
    if (view === null) throw missing()
    sendJson(response, 200, JSON.stringify(view))
  }

  async #traces(call: Call): Promise<void> {
    const { request, response, replica } = call
    const body = await readBody(request, MAX_TRACES_BYTES, this.#reserve(call))
    this.#options.traces.forward(ownTraces(body, replica, this.#options.config.project.name), 'application/json')
    sendJson(response, 200, '{}')
  }

  #held(replica: Replica, token: string): Lease {
    const lease = this.#options.dispatcher.held(replica, token)
    if (lease === null) throw lost()
    return lease
  }
}

function sessionId(request: IncomingMessage): string {
  const id = request.headers[SESSION_HEADER]
  if (id === undefined) return ''
  if (typeof id !== 'string' || !/^[A-Za-z0-9_-]{8,64}$/.test(id))
    throw new HttpError(400, 'bad_request', `${SESSION_HEADER} must be 8 to 64 characters of A-Z a-z 0-9 _ -`)
  return id
}

function method(request: IncomingMessage, expected: 'GET' | 'POST'): void {
  if (request.method !== expected) throw new HttpError(405, 'bad_request', `expected ${expected}, got ${request.method}`)
}

/** null: not in time. */
async function inTime<T>(work: Promise<T>, ms: number): Promise<T | null> {
  const late = Promise.withResolvers<null>()
  const timer = setTimeout(() => late.resolve(null), ms)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
