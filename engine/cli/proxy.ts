/**
 * The control API for applications on this machine: HTTP passed on, as it is, over exec streams to the gateway. A socket is for whoever
 * may open the file; a port is for whoever has the token, and for no page that a browser has open.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { type Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

export type ProxyPlace = { readonly socket: string } | { readonly address: string; readonly port: number; readonly token: string }

export interface ProxyOptions {
  readonly place: ProxyPlace
  /** Its connections are those to the gateway. */
  readonly agent: Agent
  /** In messages. */
  readonly project: string
}
export interface Proxy {
  readonly port: number | null
  close(): Promise<void>
}

/** Of one hop: they are about the connection, not the message (RFC 9110, 7.6.1). */
const HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'upgrade',
  'host',
  'authorization',
  'expect',
])

export async function startProxy({ place, agent, project }: ProxyOptions): Promise<Proxy> {
  const refused = 'token' in place ? gate(place.token) : () => null
  const server = createServer((incoming, response) => {
    const why = refused(incoming)
    if (why === null) pass(incoming, response, agent, project)
    else refuse(incoming, response, why)
  })
  // The gateway has bounds of its own; a stream has none.
  server.requestTimeout = 0
  const open = new Set<Socket>()
  server.on('connection', (socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  server.on('clientError', (_error, socket) => socket.destroy())
  await listen(server, place)
  return {
    port: 'socket' in place ? null : (server.address() as AddressInfo).port,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of open) socket.destroy()
      agent.destroy()
      await closed
    },
  }
}

/** Node removes the file of a socket when its server closes. */
async function listen(server: Server, place: ProxyPlace): Promise<void> {
  // Between bind and chmod it would be open to others.
  const before = 'socket' in place ? process.umask(0o177) : null
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen('socket' in place ? { path: place.socket } : { host: place.address, port: place.port }, () => {
        server.off('error', reject)
        resolve()
      })
    })
  } finally {
    if (before !== null) process.umask(before)
  }
}

interface Refusal {
  readonly status: number
  readonly message: string
  readonly hint: string
}

/** What a port is asked for by a browser page, or without the token; null: it may pass. */
export function gate(token: string): (incoming: Pick<IncomingMessage, 'headers'>) => Refusal | null {
  const expected = digest(token)
  return ({ headers }) => {
    // A page whose name was made to lead here (DNS rebinding) sends that name.
    if (!isLoopbackHost(headers.host ?? ''))
      return {
        status: 403,
        message: `the host "${(headers.host ?? '').slice(0, 100)}" is not this machine`,
        hint: 'Use 127.0.0.1 or localhost.',
      }
    if (headers.origin !== undefined || (headers['sec-fetch-site'] ?? 'none') !== 'none')
      return { status: 403, message: 'pages in browsers are not served', hint: 'Call it from a program.' }
    const [, given = ''] = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '') ?? []
    // Digests have one length, so the time that this takes says nothing about the token.
    if (!timingSafeEqual(digest(given), expected))
      return {
        status: 401,
        message: given === '' ? 'there is no bearer token' : 'the token is wrong',
        hint: 'Send "Authorization: Bearer TOKEN" with the token of `agentctl proxy`.',
      }
    return null
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

export function isLoopbackHost(host: string): boolean {
  const name = host.replace(/:\d+$/, '').toLowerCase()
  return name === 'localhost' || name === '[::1]' || /^127(\.\d{1,3}){3}$/.test(name)
}

function pass(incoming: IncomingMessage, response: ServerResponse, agent: Agent, project: string): void {
  const headers: Record<string, string | string[]> = { host: 'control' }
  for (const [name, value] of Object.entries(incoming.headers)) if (value !== undefined && !HOP.has(name)) headers[name] = value
  const upstream = request({ agent, method: incoming.method ?? 'GET', path: incoming.url ?? '/', headers }, (answer) => {
    const back: Record<string, string | string[]> = {}
    for (const [name, value] of Object.entries(answer.headers))
      if (value !== undefined && !HOP.has(name) && name !== 'transfer-encoding') back[name] = value
    response.writeHead(answer.statusCode ?? 502, back)
    // A stream says something before its first event.
    response.flushHeaders()
    answer.pipe(response)
    answer.once('error', () => response.destroy())
    // It broke inside: the reader must not take it for the end.
    answer.once('close', () => !answer.complete && response.destroy())
  })
  upstream.once('error', (error) => {
    if (response.headersSent) response.destroy()
    else
      respond(response, 503, {
        code: 'AG5001',
        message: `the gateway of project "${project}" does not answer: ${error.message}`,
        hint: 'See `agentctl ps`; `agentctl up` restores it.',
      })
  })
  response.once('close', () => upstream.destroy())
  incoming.pipe(upstream)
}

/** The rest of a request that was refused is not read. */
function refuse(incoming: IncomingMessage, response: ServerResponse, { status, message, hint }: Refusal): void {
  response.setHeader('connection', 'close')
  if (status === 401) response.setHeader('www-authenticate', 'Bearer')
  incoming.resume()
  respond(response, status, { code: status === 401 ? 'unauthorized' : 'not_allowed', message, hint })
}

function respond(
  response: ServerResponse,
  status: number,
  error: { readonly code: string; readonly message: string; readonly hint: string },
): void {
  if (response.destroyed) return
  const body = JSON.stringify({ error })
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body)
}
