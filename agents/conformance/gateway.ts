/** The gateway that the kit plays: one agent's, in memory, with its faults on demand. Everything that was said is kept. */
import { createHash } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Json, MAX_WAIT_MS, SESSION_HEADER, type Settled, type Settlement } from '../../spec/protocol.ts'
import { requestProblem } from './requests.ts'

export interface Request {
  readonly method: string
  readonly path: string
  /** undefined: it was not JSON. */
  readonly body: Json | undefined
  readonly raw: Buffer
  readonly headers: http.IncomingHttpHeaders
  readonly at: number
}
export type Reply = { readonly status: number; readonly body: unknown }
/** `break`: the connection closes unanswered. `deaf`: it is done, and then the connection closes unanswered. */
export type Fault = Reply | 'break' | 'deaf'

export interface Ended {
  readonly lease: string
  readonly settlement: Settlement
  readonly at: number
  /** What was answered. */
  readonly ok: boolean
}

interface Held {
  readonly want: number
  readonly settled: readonly Settled[]
  readonly send: (reply: Reply) => void
}
type Fields = { readonly [name: string]: unknown }

const SETTLING = new Set(['/v1/complete', '/v1/fail'])

export class KitGateway {
  readonly requests: Request[] = []
  readonly problems: string[] = []
  readonly ends: Ended[] = []
  /** lease → when it was last named by a beat. */
  readonly beats: Map<string, number[]> = new Map<string, number[]>()
  readonly given: Map<string, number> = new Map<string, number>()
  fault: (request: Request) => Fault | null = () => null
  /** What the end of a task is answered with. */
  judge: (settlement: Settlement) => Settled = ({ lease }) => ({ lease, ok: true })
  /** Fields that the protocol does not know, into each lease reply and task. */
  extra: { readonly reply: Fields; readonly task: Fields } = { reply: {}, task: {} }
  readonly #waiting = new Set<Held>()
  readonly #tasks: { readonly lease: string; readonly input: Json }[] = []
  readonly #cancelled = new Set<string>()
  readonly #blobs = new Map<string, Buffer>()
  readonly #journal = new Map<string, Json>()
  readonly #children = new Map<string, Json>()
  #server: http.Server | null = null
  #port = 0
  #next = 1

  get port(): number {
    return this.#port
  }

  async open(): Promise<void> {
    const server = http.createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('error', () => {})
      request.on('end', () => this.#handle(request, Buffer.concat(chunks), response))
    })
    server.keepAliveTimeout = 0
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.#port, '127.0.0.1', resolve))
    this.#port = (server.address() as AddressInfo).port
    this.#server = server
  }

  /** As a kill does: all connections break, new ones are refused. */
  async close(): Promise<void> {
    const server = this.#server
    if (server === null) return
    this.#server = null
    this.#waiting.clear()
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }

  task(input: Json): string {
    const lease = `kit-lease-${this.#next++}`
    this.#tasks.push({ lease, input })
    this.#wake()
    return lease
  }

  cancel(lease: string): void {
    this.#cancelled.add(lease)
    for (const held of [...this.#waiting]) this.#answer(held)
  }

  endsOf(lease: string): readonly Ended[] {
    return this.ends.filter((end) => end.lease === lease)
  }
  accepted(lease: string): Settlement | null {
    return this.ends.find((end) => end.lease === lease && end.ok)?.settlement ?? null
  }
  get leaseRequests(): readonly Request[] {
    return this.requests.filter(({ path }) => path === '/v1/lease')
  }
  /** Its requests carry a session. */
  get isSession(): boolean {
    return this.requests.some(({ headers }) => headers[SESSION_HEADER] !== undefined)
  }

  #handle(incoming: http.IncomingMessage, raw: Buffer, response: http.ServerResponse): void {
    const { pathname: path, searchParams } = new URL(incoming.url ?? '/', 'http://gateway')
    const method = incoming.method ?? ''
    const request: Request = { method, path, body: parsed(raw), raw, headers: incoming.headers, at: Date.now() }
    this.requests.push(request)
    const send = ({ status, body }: Reply): void => {
      const isBytes = body instanceof Buffer
      response.writeHead(status, { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' })
      response.end(isBytes ? body : JSON.stringify(body))
    }
    const problem = requestProblem(method, path, request.body)
    if (problem !== null) {
      this.problems.push(problem)
      return send({ status: 400, body: { error: { code: 'bad_request', message: problem } } })
    }
    const fault = this.fault(request)
    if (fault === 'break') return void response.destroy()
    if (fault !== null && fault !== 'deaf') return send(fault)
    const isDeaf = fault === 'deaf'
    this.#do(request, searchParams, (reply) => (isDeaf ? void response.destroy() : send(reply)), response)
  }

  #do(request: Request, query: URLSearchParams, send: (reply: Reply) => void, response: http.ServerResponse): void {
    const { path, method, body, raw } = request
    const fields = (body ?? {}) as Fields
    const lease = String(fields['lease'] ?? query.get('lease') ?? '')
    if (lease !== '' && !this.given.has(lease)) this.problems.push(`${method} ${path} names the lease "${lease}", which it was never given`)
    if (path === '/v1/lease') return this.#lease(fields, send, response)
    if (SETTLING.has(path)) {
      const settlement = (path === '/v1/complete' ? { ...fields, status: 'completed' } : { ...fields, status: 'failed' }) as Settlement
      const { ok, code } = this.#settle(settlement)
      return send(
        ok
          ? { status: 200, body: { ok: true } }
          : { status: code === 'payload_too_large' ? 413 : 409, body: { error: { code, message: 'as the kit says' } } },
      )
    }
    if (path === '/v1/heartbeat') {
      this.#beat(lease)
      return send({ status: 200, body: { ok: true, cancel: this.#cancelled.has(lease) ? [lease] : [] } })
    }
    send({ status: 200, body: this.#other(path, method, fields, raw) })
  }

  #lease(fields: Fields, send: (reply: Reply) => void, response: http.ServerResponse): void {
    for (const lease of (fields['beat'] ?? []) as readonly string[]) this.#beat(lease)
    const done = (fields['done'] ?? []) as readonly Settlement[]
    const held: Held = { want: Number(fields['want']), settled: done.map((it) => this.#settle(it)), send }
    const wait = Math.min(MAX_WAIT_MS, Number(fields['wait_ms'] ?? 0))
    const isReady = done.length > 0 || wait === 0 || this.#cancelled.size > 0 || (held.want > 0 && this.#tasks.length > 0)
    if (isReady) return this.#answer(held)
    this.#waiting.add(held)
    const timer = setTimeout(() => this.#answer(held), wait)
    response.once('close', () => {
      clearTimeout(timer)
      this.#waiting.delete(held)
    })
  }

  #wake(): void {
    for (const held of [...this.#waiting]) if (held.want > 0 && this.#tasks.length > 0) this.#answer(held)
  }

  #answer(held: Held): void {
    this.#waiting.delete(held)
    const tasks = this.#tasks.splice(0, held.want).map(({ lease, input }) => {
      this.given.set(lease, Date.now())
      const rest = { run: 'run_kit', agent: 'kit', type: 'task', attempt: 1, deadline: null, traceparent: null }
      return { lease, id: `run_kit.job.${lease}`, input, ...rest, ...this.extra.task }
    })
    held.send({ status: 200, body: { tasks, settled: held.settled, cancel: [...this.#cancelled], ...this.extra.reply } })
  }

  #beat(lease: string): void {
    this.beats.set(lease, [...(this.beats.get(lease) ?? []), Date.now()])
  }

  /** The same end of the same task again is one end. */
  #settle(settlement: Settlement): Settled {
    const { lease } = settlement
    if (!this.given.has(lease)) this.problems.push(`it ends the lease "${lease}", which it was never given`)
    const answer = this.judge(settlement)
    this.ends.push({ lease, settlement, at: Date.now(), ok: answer.ok })
    if (answer.ok) this.#cancelled.delete(lease)
    return answer
  }

  /** What this agent may want beside work: all of it goes well. */
  #other(path: string, method: string, fields: Fields, raw: Buffer): unknown {
    if (path.startsWith('/v1/artifacts/')) {
      const name = decodeURIComponent(path.slice('/v1/artifacts/'.length))
      if (method === 'GET') return this.#blobs.get(name) ?? Buffer.alloc(0)
      const digest = `sha256:${createHash('sha256').update(raw).digest('hex')}`
      this.#blobs.set(digest, raw)
      return { name, digest, size: raw.length, type: 'application/octet-stream', task: 'run_kit.job' }
    }
    if (path === '/v1/journal' && method === 'POST') {
      for (const entry of fields['entries'] as readonly { readonly key: string }[])
        if (!this.#journal.has(entry.key)) this.#journal.set(entry.key, entry as unknown as Json)
      return { ok: true }
    }
    if (path === '/v1/journal') return { entries: [...this.#journal.values()] }
    if (path === '/v1/delegate') {
      const many = fields['tasks'] as readonly Fields[] | undefined
      const ids = (many ?? [fields]).map(({ key, input }) => {
        this.#children.set(`kit-child-${String(key)}`, input as Json)
        return `kit-child-${String(key)}`
      })
      return many === undefined ? { task: ids[0] } : { tasks: ids }
    }
    if (path === '/v1/await') return { done: true, tasks: (fields['tasks'] as readonly string[]).map((id) => this.#child(id)) }
    if (path.startsWith('/v1/tasks/')) return this.#child(decodeURIComponent(path.slice('/v1/tasks/'.length)))
    if (path.startsWith('/v1/approvals')) return { id: 'kit-approval', status: 'approved', comment: null }
    return { ok: true }
  }

  /** A child gives back its input. */
  #child(id: string): unknown {
    const result = this.#children.get(id) ?? null
    return { id, agent: 'kit', type: 'task', status: 'completed', attempts: 1, result, error: null, trace_id: null }
  }
}

function parsed(raw: Buffer): Json | undefined {
  if (raw.length === 0) return undefined
  try {
    // Strict: half a character is no JSON.
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(raw)) as Json
  } catch {
    return undefined
  }
}
