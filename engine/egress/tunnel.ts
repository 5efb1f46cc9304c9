/**
 * CONNECT. What a tunnel is allowed for is known before it opens (https, plain HTTP, any bytes); what comes through it is looked at
 * before a byte of it goes on: TLS must ask for the host of the tunnel, plain HTTP is handed to the forwarder, other bytes need `tcp`.
 */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { parseHost } from '../../spec/hosts.ts'
import type { EgressScheme } from '../../spec/model.ts'
import { peekClientHello, UNRECOGNIZED_NAME } from './client-hello.ts'
import { type Ask, decide } from './decide.ts'
import type { Dialled } from './dial.ts'
import { showRule } from './denial.ts'
import { IDLE_MS, join } from './join.ts'
import type { Live } from './live.ts'
import type { Core } from './proxy.ts'
import { Refused, refuseSocket } from './refused.ts'
import type { Client } from './segments.ts'
import { connectTarget, type Target } from './target.ts'

/** How long and how much a client may take to say what it wants. */
const PEEK_MS = 5_000
const PEEK_BYTES = 16_384
const ESTABLISHED = 'HTTP/1.1 200 Connection established\r\n\r\n'

type To = Pick<Target, 'host' | 'port'> & { readonly client: Client }
/** Takes over a socket on which plain HTTP has begun. */
type HandOver = (socket: Duplex, first: Buffer, to: To) => void

/** Which of the things that a tunnel can carry are allowed: the rule of each. */
interface Allowed {
  readonly tcp: string | null
  readonly https: string | null
  readonly http: boolean
}

export class Tunnels {
  readonly #core: Core
  readonly #handOver: HandOver

  constructor(core: Core, handOver: HandOver) {
    this.#core = core
    this.#handOver = handOver
  }

  async connect(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => {})
    let client: Client
    try {
      client = this.#core.clientOf(socket)
    } catch {
      return void socket.destroy()
    }
    let ask: Ask | null = null
    try {
      const to = connectTarget(request.url ?? '')
      ask = { ...to, scheme: guess(to.port), method: 'CONNECT' }
      await this.#open(client, to, socket, head)
    } catch (error) {
      refuseSocket(socket, this.#core.refused(client, ask, error))
    }
  }

  /** Throws what is to be said before the 200; after it there is nothing more to say. */
  async #open(client: Client, to: Pick<Target, 'host' | 'port'>, socket: Duplex, head: Buffer): Promise<void> {
    const allowed = this.#allowed(client, to)
    if (allowed.tcp === null && allowed.https === null && !allowed.http) {
      // Explained as what it most likely is.
      this.#core.permit(client, { ...to, scheme: guess(to.port) })
    }
    const scheme = allowed.tcp !== null ? 'tcp' : allowed.https !== null ? 'https' : 'http'
    const ask: Ask = { ...to, scheme }
    let far: Socket | null = null
    const live: Live = {
      client,
      ask,
      address: null,
      close: () => {
        socket.destroy()
        far?.destroy()
      },
    }
    const { end } = this.#core.open(live)
    // A client that goes, at whatever moment, takes the other side along.
    socket.once('close', () => {
      far?.destroy()
      end()
    })
    try {
      if (scheme !== 'http') {
        const dialled: Dialled = await this.#core.dial(client, ask)
        far = dialled.socket
        live.address = dialled.address
      }
    } catch (error) {
      end()
      throw error
    }
    if (socket.destroyed) return void far?.destroy()
    socket.write(ESTABLISHED)
    if (allowed.tcp !== null && far !== null) {
      this.#core.tell(client, { ...ask, method: 'CONNECT' }, { verdict: 'allow', reason: 'allowed', rule: allowed.tcp })
      return this.#pass(socket, head, far, end)
    }
    await this.#look(client, ask, allowed, { socket, head, far, end })
  }

  #allowed(client: Client, to: Pick<Target, 'host' | 'port'>): Allowed {
    const policies = this.#core.policiesOf(client)
    const rule = (scheme: EgressScheme): string | null => {
      const decision = decide(policies, { ...to, scheme })
      return decision.allowed ? showRule(decision) : null
    }
    return { tcp: rule('tcp'), https: rule('https'), http: rule('http') !== null || rule('ws') !== null }
  }

  #pass(socket: Duplex, first: Buffer, far: Socket, end: () => void): void {
    if (first.length > 0) far.write(first)
    join(socket, far, end)
  }

  async #look(client: Client, ask: Ask, allowed: Allowed, sides: Sides): Promise<void> {
    const { socket, far, end } = sides
    const tls: Ask = { ...ask, scheme: 'https', method: 'CONNECT' }
    const close = (reason: 'name_mismatch' | 'not_tls' | 'timeout' | 'malformed', last: Buffer | string = ''): void => {
      this.#core.tell(client, tls, { verdict: 'deny', reason, rule: allowed.https })
      far?.destroy()
      socket.end(last, () => socket.destroy())
    }
    const seen = await peek(socket, sides.head)
    switch (seen.kind) {
      case 'gone':
        return void socket.destroy()
      case 'timeout':
        return close('timeout')
      case 'malformed':
        return close('malformed', UNRECOGNIZED_NAME)
      case 'hello':
        if (allowed.https === null || far === null || !isNameOf(seen.name, ask)) return close('name_mismatch', UNRECOGNIZED_NAME)
        this.#core.tell(client, tls, { verdict: 'allow', reason: 'allowed', rule: allowed.https })
        return this.#pass(socket, seen.bytes, far, end)
      case 'other':
        if (!allowed.http || !looksLikeHttp(seen.bytes))
          return close('not_tls', looksLikeHttp(seen.bytes) ? notTls(this.#core, client, ask) : '')
        // Its requests are counted one by one from here on, and dialled when they are allowed.
        far?.destroy()
        end()
        return this.#handOver(socket, seen.bytes, { client, host: ask.host, port: ask.port })
    }
  }
}

interface Sides {
  readonly socket: Duplex
  readonly head: Buffer
  readonly far: Socket | null
  readonly end: () => void
}

/** To explain a refusal, and to name what was asked for: the tunnel does not say what it is for. */
const guess = (port: number): EgressScheme => (port === 80 ? 'http' : 'https')

/** TLS to an address has no name in it; to a host exactly that. */
function isNameOf(name: string | null, { host }: Ask): boolean {
  if (host.kind === 'address') return name === null
  const asked = name === null ? null : parseHost(name)
  return asked?.kind === 'name' && asked.host === host.host
}

const looksLikeHttp = (bytes: Buffer): boolean => /^[A-Z]{3,16} [!-~]/.test(bytes.subarray(0, 32).toString('latin1'))

/** It speaks HTTP, so it can be told in HTTP. */
function notTls(core: Core, client: Client, ask: Ask): string {
  try {
    core.permit(client, { ...ask, scheme: 'http' })
  } catch (error) {
    if (error instanceof Refused)
      return `HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n${error.message}\n`
  }
  return ''
}

type Seen =
  | { readonly kind: 'hello'; readonly name: string | null; readonly bytes: Buffer }
  | { readonly kind: 'other'; readonly bytes: Buffer }
  | { readonly kind: 'malformed' | 'timeout' | 'gone' }

/** The first bytes, until they say what they are. The socket is paused after it. */
function peek(socket: Duplex, head: Buffer): Promise<Seen> {
  const { promise, resolve } = Promise.withResolvers<Seen>()
  let bytes = head
  const done = (seen: Seen): void => {
    clearTimeout(timer)
    socket.off('data', onData)
    socket.off('end', onGone)
    socket.off('close', onGone)
    socket.pause()
    ;(socket as Socket).setTimeout(IDLE_MS)
    resolve(seen)
  }
  const look = (): void => {
    const seen = peekClientHello(bytes)
    // A method may come in pieces.
    if (seen.kind === 'other') return bytes.length >= 5 || bytes.includes(10) ? done({ kind: 'other', bytes }) : undefined
    if (seen.kind === 'hello') return done({ ...seen, bytes })
    if (seen.kind === 'malformed' || bytes.length > PEEK_BYTES) done({ kind: 'malformed' })
  }
  const onData = (chunk: Buffer): void => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
    look()
  }
  const onGone = (): void => done({ kind: 'gone' })
  const timer = setTimeout(() => done({ kind: 'timeout' }), PEEK_MS)
  socket.on('data', onData)
  socket.once('end', onGone)
  socket.once('close', onGone)
  if (bytes.length > 0) look()
  return promise
}
