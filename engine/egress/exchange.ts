/** One request that is allowed, sent on, and its answer. */
import { type ClientRequest, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Ask } from './decide.ts'
import { type RequestHead, responseHeaders } from './headers.ts'
import { IDLE_MS } from './join.ts'
import type { Live } from './live.ts'
import type { Pool } from './pool.ts'
import type { Core } from './proxy.ts'
import { Refused, refuseResponse } from './refused.ts'
import type { Client } from './segments.ts'
import type { Target } from './target.ts'

/** Methods that mean nothing by a body: for the others an empty one is said. */
const WITHOUT_BODY = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])
/** Bytes. */
const SHORT = 16_384

export interface Allowed {
  readonly client: Client
  readonly ask: Ask
  readonly rule: string
  readonly target: Target
  readonly head: RequestHead
}

export class Exchange {
  readonly #core: Core
  readonly #pool: Pool
  readonly #allowed: Allowed
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #live: Live
  #outgoing: ClientRequest | null = null
  #told = false

  constructor(core: Core, pool: Pool, allowed: Allowed, request: IncomingMessage, response: ServerResponse) {
    this.#core = core
    this.#pool = pool
    this.#allowed = allowed
    this.#request = request
    this.#response = response
    this.#live = {
      client: allowed.client,
      ask: allowed.ask,
      address: null,
      close: () => {
        this.#request.socket.destroy()
        this.#outgoing?.destroy()
      },
    }
  }

  /** Throws when the replica has too much open. */
  start(): void {
    const { end } = this.#core.open(this.#live)
    this.#request.on('error', () => {})
    this.#response.on('error', () => {})
    this.#response.once('close', () => {
      end()
      // A client that went away does not want the rest.
      if (!this.#response.writableFinished) this.#outgoing?.destroy()
    })
    this.#send(true)
  }

  #send(mayRetry: boolean): void {
    const { client, ask, target, head } = this.#allowed
    const dial = (it: Ask): ReturnType<Core['dial']> => this.#core.dial(client, it)
    const method = ask.method ?? 'GET'
    const empty = !head.hasBody && !WITHOUT_BODY.has(method) && !head.headers.some((it) => it.toLowerCase() === 'content-length')
    const options = {
      method,
      host: target.host.host,
      port: target.port,
      path: target.url,
      headers: empty ? [...head.headers, 'content-length', '0'] : head.headers,
      agent: this.#pool.of(client.agent, dial, head.hasBody),
      ask,
    }
    const outgoing = httpRequest(options)
    this.#outgoing = outgoing
    outgoing.setTimeout(IDLE_MS, () => outgoing.destroy())
    outgoing.once('socket', (socket) => this.#connected(outgoing, socket))
    outgoing.on('response', (answer) => this.#answer(answer))
    outgoing.on('error', (error) => {
      if (this.#response.headersSent || this.#response.destroyed) return void this.#response.destroy()
      if (mayRetry && outgoing.reusedSocket && !head.hasBody && !(error instanceof Refused)) return this.#send(false)
      refuseResponse(this.#response, this.#told ? lost(error) : this.#core.refused(client, ask, error))
    })
    if (head.hasBody) this.#request.pipe(outgoing)
    else outgoing.end()
  }

  /** Before a byte of it is written. */
  #connected(outgoing: ClientRequest, socket: Socket): void {
    const { client, ask } = this.#allowed
    const address = this.#pool.addressOf(socket)
    this.#live.address = address
    try {
      if (outgoing.reusedSocket && address !== null) this.#core.recheck(client, ask, address)
    } catch (error) {
      return void outgoing.destroy(error as Refused)
    }
    if (this.#told) return
    this.#told = true
    this.#core.tell(this.#allowed.client, this.#allowed.ask, { verdict: 'allow', reason: 'allowed', rule: this.#allowed.rule })
  }

  #answer(answer: IncomingMessage): void {
    const response = this.#response
    response.sendDate = false
    try {
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', responseHeaders(answer.rawHeaders))
    } catch {
      // What Node reads is more than what it writes.
      answer.destroy()
      return refuseResponse(response, new Refused(502, 'unreachable', 'the answer of the host cannot be passed on'))
    }
    answer.on('error', () => response.destroy())
    answer.once('close', () => {
      if (!answer.complete) response.destroy()
    })
    // Of a short answer head and body are one write (of a string: Buffers go beside the head), which is most of what passing it on costs.
    if (Number(answer.headers['content-length'] ?? SHORT) < SHORT) {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.once('end', () => response.end(Buffer.concat(chunks).toString('latin1'), 'latin1'))
    } else answer.pipe(response)
  }
}

const lost = (error: unknown): Refused =>
  new Refused(
    502,
    'unreachable',
    `the host closed the connection${error instanceof Error && 'code' in error ? `: ${String(error.code)}` : ''}`,
  )
