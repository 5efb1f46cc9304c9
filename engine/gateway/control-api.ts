/** The control API for the CLI and the controller, on a unix socket: whoever reaches it has the engine, so it asks for no credential. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { CODES } from '../../spec/codes.ts'
import { MAX_WAIT_MS, type SubmitRequest } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import type { Config } from './config.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { RunEvents } from './events.ts'
import { decoded, type Fields, HttpError, readBody, readJson, sendError, sendJson, urlOf, waitMs } from './http.ts'
import type { Runs } from './runs.ts'
import { refuse } from './submission.ts'
import type { TraceForwarder } from './traces.ts'
import type { Views } from './views.ts'

/** 10,000 tasks of a few kilobytes in one submit. */
const MAX_CONTROL_BYTES = 67_108_864
const READY_MS = 10_000
const KEEP_ALIVE_MS = 15_000

export interface ControlApiOptions {
  readonly config: Config
  readonly broker: Broker
  readonly dispatcher: Dispatcher
  readonly runs: Runs
  readonly views: Views
  readonly events: RunEvents
  readonly traces: TraceForwarder
  readonly ready: Promise<void>
  readonly log: (message: string) => void
}

type Call = { readonly request: IncomingMessage; readonly response: ServerResponse; readonly url: URL; readonly signal: AbortSignal }

export function controlServer(options: ControlApiOptions): Server {
  const api = new ControlApi(options)
  const server = createServer((request, response) => void api.serve(request, response))
  server.keepAliveTimeout = 0
  return server
}

class ControlApi {
  readonly #options: ControlApiOptions

  constructor(options: ControlApiOptions) {
    this.#options = options
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    try {
      const url = urlOf(request, 'http://control')
      await this.#route({ request, response, url, signal: gone.signal })
    } catch (error) {
      sendError(response, error, 'AG5002', this.#options.log)
    }
  }

  async #route(call: Call): Promise<void> {
    const [version, kind, id, action, ...rest] = call.url.pathname.slice(1).split('/').map(decoded)
    if (version === 'v1' && rest.length === 0) {
      const name = `${call.request.method} ${kind}${id === undefined ? '' : '/ID'}${action === undefined ? '' : `/${action}`}`
      switch (name) {
        case 'GET health':
          return this.#health(call)
        case 'GET replicas':
          return this.#replicas(call)
        case 'POST reload':
          return this.#reload(call)
        case 'POST traces':
          return this.#traces(call)
        case 'POST runs':
          return this.#submit(call)
        case 'GET runs':
          return this.#list(call)
        case 'GET runs/ID':
          return this.#run(call, id as string)
        case 'POST runs/ID/cancel':
          return this.#cancel(call, id as string)
        case 'GET runs/ID/events':
          return this.#events(call, id as string)
        case 'GET tasks/ID':
          return this.#task(call, id as string)
      }
    }
    throw new HttpError(404, 'not_found', `there is no ${call.request.method} ${call.url.pathname}`)
  }

  async #whenReady(): Promise<void> {
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, READY_MS)
    const connected = Promise.withResolvers<void>()
    const off = this.#options.broker.onConnected(() => connected.resolve())
    const done = await Promise.race([Promise.all([this.#options.ready, connected.promise]), late.promise])
    clearTimeout(timer)
    off()
    if (done === undefined) throw refuse(503, 'AG5002', 'the broker does not answer')
  }

  async #health({ response }: Call): Promise<void> {
    sendJson(
      response,
      200,
      JSON.stringify({ ok: true, broker: this.#options.broker.connected, project: this.#options.config.project.name }),
    )
  }

  async #reload({ response }: Call): Promise<void> {
    await this.#options.config.reload()
    sendJson(response, 200, '{}')
  }

  async #traces({ request, response }: Call): Promise<void> {
    this.#options.traces.forward(await readBody(request, MAX_CONTROL_BYTES), request.headers['content-type'] ?? 'application/json')
    sendJson(response, 200, '{}')
  }

  async #submit({ request, response }: Call): Promise<void> {
    const body = submitRequest(await readJson(request, MAX_CONTROL_BYTES))
    await this.#whenReady()
    sendJson(response, 200, JSON.stringify({ run: await this.#options.runs.submit(body) }))
  }

  async #list({ response }: Call): Promise<void> {
    await this.#whenReady()
    sendJson(response, 200, JSON.stringify({ runs: await this.#options.views.runs() }))
  }

  async #run({ response, url, signal }: Call, id: string): Promise<void> {
    const wait = waitMs(url, MAX_WAIT_MS)
    await this.#whenReady()
    await this.#options.runs.whenEnded(id, wait, signal)
    const view = await this.#options.views.run(id)
    if (view === null) throw refuse(404, 'AG6001', `there is no run "${id.slice(0, 100)}"`)
    sendJson(response, 200, JSON.stringify(view))
  }

  async #cancel({ response }: Call, id: string): Promise<void> {
    await this.#whenReady()
    await this.#options.runs.cancel(id)
    const view = await this.#options.views.run(id)
    if (view === null) throw refuse(404, 'AG6001', `there is no run "${id.slice(0, 100)}"`)
    sendJson(response, 200, JSON.stringify({ run: id, status: view.status }))
  }

  /** `follow=0`: what is kept, and the end. Else also what comes, until the run has ended. */
  async #events({ response, url, signal }: Call, id: string): Promise<void> {
    await this.#whenReady()
    const { broker, events, runs } = this.#options
    if ((await broker.readRunFields([id], ['created']))[0]?.[0] === null)
      throw refuse(404, 'AG6001', `there is no run "${id.slice(0, 100)}"`)
    response.writeHead(200, { 'content-type': 'application/jsonl' })
    response.flushHeaders()
    const stop = await events.watch(id, (lines) => {
      if (lines.length > 0 && !response.destroyed) response.write(`${lines.join('\n')}\n`)
    })
    while (url.searchParams.get('follow') !== '0' && runs.isOpen(id) && !signal.aborted) {
      await runs.whenEnded(id, KEEP_ALIVE_MS, signal)
      // An empty line: the reader skips it, and a reader that is gone is found.
      if (runs.isOpen(id) && !signal.aborted) response.write('\n')
    }
    await events.flush()
    stop()
    response.end()
  }

  async #task({ response, url, signal }: Call, id: string): Promise<void> {
    const wait = waitMs(url, MAX_WAIT_MS)
    await this.#whenReady()
    await this.#options.dispatcher.whenEnded(id, wait, signal)
    const view = await this.#options.views.task(id)
    if (view === null) throw refuse(404, 'AG6001', `there is no task "${id.slice(0, 100)}"`)
    sendJson(response, 200, JSON.stringify(view))
  }

  /** With `connected=agent:replica,…`: held until all of these are, or the time is over. */
  async #replicas({ response, url, signal }: Call): Promise<void> {
    const wait = waitMs(url, MAX_WAIT_MS)
    const { replicas } = this.#options.dispatcher
    const wanted = (url.searchParams.get('connected') ?? '')
      .split(',')
      .filter((it) => it !== '')
      .map((text) => {
        const at = text.lastIndexOf(':')
        return { agent: text.slice(0, at), replica: Number(text.slice(at + 1)) }
      })
    const all = (): boolean => wanted.every((it) => replicas.connected(it.agent, it.replica))
    if (wanted.length > 0 && wait > 0 && !all()) {
      const done = Promise.withResolvers<void>()
      const timer = setTimeout(done.resolve, wait)
      const stop = replicas.watch(() => all() && done.resolve())
      signal.addEventListener('abort', () => done.resolve(), { once: true })
      await done.promise
      clearTimeout(timer)
      stop()
    }
    sendJson(response, 200, JSON.stringify({ replicas: replicas.views() }))
  }
}

function submitRequest(body: Fields): SubmitRequest {
  const { id, pipeline, inputs, agent, type, tasks, traceparent } = body
  const bad = (message: string): HttpError => new HttpError(400, 'AG6006', message, CODES.AG6006.fix)
  for (const [name, value] of Object.entries({ id, pipeline, agent, type, traceparent })) {
    if (value !== undefined && typeof value !== 'string') throw bad(`"${name}" must be a string`)
  }
  if ((pipeline === undefined) === (agent === undefined)) throw bad('give either "pipeline" with "inputs", or "agent" with "tasks"')
  if (pipeline !== undefined && inputs !== undefined && (typeof inputs !== 'object' || inputs === null || Array.isArray(inputs)))
    throw bad('"inputs" must be an object')
  if (agent !== undefined && !Array.isArray(tasks)) throw bad('"tasks" must be a list')
  return (agent !== undefined && type === undefined ? { ...body, type: 'task' } : body) as unknown as SubmitRequest
}
