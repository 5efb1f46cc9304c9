/** A gateway of a few lines, for what tests need to see or break on the wire. What it should do is in docs/protocol.md; that the real one does it is shown in test/integration/agents. */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Json, LeaseReply, LeaseRequest, Settled, Settlement } from '../../../spec/protocol.ts'

export interface Seen {
  readonly path: string
  readonly method: string
  /** null: it was not JSON. */
  readonly body: Json
  readonly raw: Buffer
  readonly headers: http.IncomingHttpHeaders
}

interface Waiting {
  readonly want: number
  readonly settled: readonly Settled[]
  readonly answer: (reply: LeaseReply) => void
}

export class ScriptedGateway {
  readonly requests: Seen[] = []
  readonly settlements: Settlement[] = []
  readonly leases: LeaseRequest[] = []
  /** Replaces the answer to a request; hold: there is none; null: the usual one. */
  script: (seen: Seen) => { readonly status: number; readonly body: unknown } | 'destroy' | 'hold' | null = () => null
  settle: (settlement: Settlement) => Settled = ({ lease }) => ({ lease, ok: true })
  readonly #tasks: { readonly lease: string; readonly input: Json; readonly more: object }[] = []
  readonly #cancel: string[] = []
  #waiting: Waiting | null = null
  #server: http.Server
  #next = 1

  constructor() {
    this.#server = this.#make()
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** An agent's request is held, also when that agent is dead and its socket not closed yet. */
  get isAsked(): boolean {
    return this.#waiting !== null
  }

  async start(port = 0): Promise<void> {
    await new Promise<void>((resolve, reject) => this.#server.once('error', reject).listen(port, '127.0.0.1', resolve))
  }

  /** As a kill does: every connection breaks. */
  async die(): Promise<void> {
    this.#waiting = null
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
    this.#server = this.#make()
  }

  task(input: Json, more: object = {}): string {
    const lease = `lease-${this.#next++}`
    this.#tasks.push({ lease, input, more })
    this.#handOut()
    return lease
  }

  cancel(lease: string): void {
    this.#cancel.push(lease)
    this.#handOut()
  }

  async ended(lease: string, timeoutMs = 10_000): Promise<Settlement> {
    for (const until = Date.now() + timeoutMs; Date.now() < until; await new Promise((resolve) => setTimeout(resolve, 5))) {
      const found = this.settlements.find((settlement) => settlement.lease === lease)
      if (found !== undefined) return found
    }
    throw new Error(`${lease} did not end within ${timeoutMs} ms`)
  }

  #handOut(): void {
    if (this.#waiting === null || (this.#waiting.want === 0 && this.#cancel.length === 0)) return
    if (this.#tasks.length === 0 && this.#cancel.length === 0) return
    this.#reply()
  }

  #reply(empty = false): void {
    const waiting = this.#waiting
    this.#waiting = null
    if (waiting === null) return
    const tasks = empty ? [] : this.#tasks.splice(0, waiting.want)
    const leased = tasks.map(({ lease, input, more }) => ({
      lease,
      id: `run_x.job.${lease}`,
      run: 'run_x',
      agent: 'worker',
      type: 'task',
      input,
      attempt: 1,
      deadline: null,
      traceparent: null,
      ...more,
    }))
    waiting.answer({ tasks: leased, settled: waiting.settled, cancel: this.#cancel.splice(0) })
  }

  #make(): http.Server {
    return http.createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const raw = Buffer.concat(chunks)
        const isJson = raw.length > 0 && request.headers['content-type'] === 'application/json'
        const body = isJson ? (JSON.parse(raw.toString()) as Json) : null
        this.#handle({ path: request.url ?? '', method: request.method ?? '', body, raw, headers: request.headers }, response)
      })
    })
  }

  #handle(seen: Seen, response: http.ServerResponse): void {
    this.requests.push(seen)
    const send = (status: number, body: unknown): void =>
      void response.writeHead(status, { 'content-type': 'application/json' }).end(body instanceof Buffer ? body : JSON.stringify(body))
    const scripted = this.script(seen)
    if (scripted === 'destroy') return void response.destroy()
    if (scripted === 'hold') return
    if (scripted !== null) return send(scripted.status, scripted.body)
    if (seen.path !== '/v1/lease') return send(200, {})
    const lease = seen.body as unknown as LeaseRequest
    this.leases.push(lease)
    const settled = (lease.done ?? []).map((settlement) => {
      const answer = this.settle(settlement)
      if (answer.ok) this.settlements.push(settlement)
      return answer
    })
    this.#reply(true)
    const waiting: Waiting = { want: lease.want, settled, answer: (reply) => send(200, reply) }
    this.#waiting = waiting
    if ((this.#tasks.length > 0 && lease.want > 0) || this.#cancel.length > 0 || !lease.wait_ms) return this.#reply()
    const timer = setTimeout(() => this.#waiting === waiting && this.#reply(), lease.wait_ms)
    response.on('close', () => {
      clearTimeout(timer)
      if (this.#waiting === waiting) this.#waiting = null
    })
  }
}
