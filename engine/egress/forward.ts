/** Plain HTTP: each request is read whole, decided on by host, method and path, and written anew. Redirects are the client's to follow, and are decided on again. */
import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Ask } from './decide.ts'
import { Exchange } from './exchange.ts'
import { requestHead, responseHeaders } from './headers.ts'
import { IDLE_MS, join } from './join.ts'
import type { Live } from './live.ts'
import { Pool } from './pool.ts'
import type { Core } from './proxy.ts'
import { Refused, refuseResponse, refuseSocket } from './refused.ts'
import type { Client } from './segments.ts'
import { absoluteTarget, hostHeader, originTarget, type Target } from './target.ts'

type To = Pick<Target, 'host' | 'port'>

export class Forward {
  readonly #core: Core
  readonly #pool = new Pool()
  /** Sockets on which a tunnel carries plain HTTP, and where it leads. */
  readonly #inside = new WeakMap<Duplex, To>()

  constructor(core: Core) {
    this.#core = core
  }

  inTunnel(socket: Duplex, to: To): void {
    this.#inside.set(socket, to)
  }

  reset(): void {
    this.#pool.reset()
  }

  request(request: IncomingMessage, response: ServerResponse): void {
    let client: Client
    try {
      client = this.#core.clientOf(request.socket)
    } catch (error) {
      return refuseResponse(response, error as Refused)
    }
    let ask: Ask | null = null
    try {
      const target = this.#target(request)
      ask = askOf(request, target, 'http')
      const rule = this.#core.permit(client, ask)
      const head = requestHead(request.rawHeaders, hostHeader(target))
      new Exchange(this.#core, this.#pool, { client, ask, rule, target, head }, request, response).start()
    } catch (error) {
      refuseResponse(response, this.#core.refused(client, ask, error))
    }
  }

  async upgrade(request: IncomingMessage, socket: Duplex, first: Buffer): Promise<void> {
    socket.on('error', () => {})
    let client: Client
    try {
      client = this.#core.clientOf(socket)
    } catch {
      return void socket.destroy()
    }
    let ask: Ask | null = null
    try {
      if (request.headers.upgrade?.toLowerCase() !== 'websocket' || request.method !== 'GET')
        throw new Refused(400, 'malformed', 'refused: no upgrade but GET to websocket is passed on')
      const target = this.#target(request)
      ask = askOf(request, target, 'ws')
      const rule = this.#core.permit(client, ask)
      await this.#webSocket(client, ask, rule, target, { request, socket, first })
    } catch (error) {
      refuseSocket(socket, this.#core.refused(client, ask, error))
    }
  }

  #target(request: IncomingMessage): Target {
    const inside = this.#inside.get(request.socket)
    return inside === undefined ? absoluteTarget(request.url ?? '') : originTarget(request.url ?? '', inside)
  }

  /** Throws until something has been said to the client. */
  async #webSocket(client: Client, ask: Ask, rule: string, target: Target, near: Near): Promise<void> {
    const { request, socket, first } = near
    const { headers } = requestHead(request.rawHeaders, hostHeader(target))
    let far: Socket | null = null
    const live: Live = { client, ask, address: null, close: () => (socket.destroy(), far?.destroy()) }
    const { end } = this.#core.open(live)
    socket.once('close', () => {
      far?.destroy()
      end()
    })
    try {
      const dialled = await this.#core.dial(client, ask)
      far = dialled.socket
      live.address = dialled.address
    } catch (error) {
      end()
      throw error
    }
    const made = far
    if (socket.destroyed) return void made.destroy()
    this.#core.tell(client, ask, { verdict: 'allow', reason: 'allowed', rule })
    const outgoing = httpRequest({
      method: 'GET',
      path: target.url,
      headers: [...headers, 'connection', 'Upgrade', 'upgrade', 'websocket'],
      createConnection: () => made,
    })
    outgoing.on('upgrade', (answer, upgraded, farFirst) => {
      socket.write(headText(answer, ['connection', 'Upgrade', 'upgrade', 'websocket']))
      if (farFirst.length > 0) socket.write(farFirst)
      if (first.length > 0) upgraded.write(first)
      join(socket, upgraded, end)
    })
    // The server says no, in its own words.
    outgoing.on('response', (answer) => {
      socket.write(headText(answer, ['connection', 'close']))
      answer.pipe(socket)
    })
    outgoing.on('error', () => socket.destroy())
    outgoing.setTimeout(IDLE_MS, () => outgoing.destroy())
    outgoing.end()
  }
}

interface Near {
  readonly request: IncomingMessage
  readonly socket: Duplex
  readonly first: Buffer
}

const askOf = ({ method = 'GET' }: IncomingMessage, { host, port, path }: Target, scheme: 'http' | 'ws'): Ask => ({
  host,
  port,
  scheme,
  method,
  path,
})

function headText(answer: IncomingMessage, more: readonly string[]): string {
  const raw = [...responseHeaders(answer.rawHeaders), ...more]
  const lines = raw.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${raw[index + 1]}\r\n`] : []))
  return `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n${lines.join('')}\r\n`
}
