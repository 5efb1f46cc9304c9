/**
 * The way of telemetry: OTLP from the gateway, to the one address in the project record. It is no proxy: CONNECT and absolute URIs
 * are refused. Agents may stand on a network with this container; what they send goes through the gateway, which writes who sent it.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { contains, parseAddress, parseCidr } from '../../spec/addresses.ts'
import { OTLP_PATHS, OTLP_PORT } from '../otlp.ts'
import { watchDestination } from './destination.ts'
import { Forwarder } from './forwarder.ts'
import { listen } from './listen.ts'

const OTLP_TYPES = new Set(['application/json', 'application/x-protobuf'])
/** One export: 512 spans of ours are about 0.4 MB. */
const MAX_BODY_BYTES = 4_194_304
const DRAIN_MS = 1_500

export interface Egress {
  readonly port: number
  /** There is somebody to send to. */
  isForwarding(): boolean
  /** Take nothing new, deliver what waits (for 1.5 s at most), let go. */
  stop(): Promise<void>
}

export interface EgressOptions {
  readonly record: string
  readonly port?: number
  readonly host?: string
  readonly queue_bytes?: number
  /** The network of the gateway: others are hung up on. Absent: everybody may. The container itself always may. */
  readonly from?: string
  /** A line for the log, when something changed. Never a body, never an endpoint's credentials. */
  readonly note?: (message: string) => void
}

export async function startEgress(options: EgressOptions): Promise<Egress> {
  const note = options.note ?? (() => {})
  const stopping = new AbortController()
  const forwarder = new Forwarder(note, options.queue_bytes)
  await watchDestination(
    options.record,
    ({ endpoint, problem }) => {
      if (endpoint?.href !== forwarder.endpoint?.href) note(endpoint === null ? 'telemetry is off' : `telemetry goes to ${endpoint.host}`)
      if (problem !== null) note(problem)
      forwarder.endpoint = endpoint
    },
    stopping.signal,
  )
  const server = createServer({ headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 30_000 }, (request, response) => {
    handle(forwarder, request, response)
  })
  server.maxConnections = 64
  const from = options.from === undefined ? null : parseCidr(options.from)
  server.on('connection', (socket) => {
    const remote = parseAddress(socket.remoteAddress?.replace(/^::ffff:/, '') ?? '')
    const isLocal = socket.remoteAddress?.endsWith('127.0.0.1') === true
    if (options.from !== undefined && !isLocal && (from === null || remote === null || !contains(from, remote))) socket.destroy()
  })
  server.on('connect', (_request, socket) => {
    forwarder.counters.refused++
    socket.on('error', () => {})
    socket.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n')
  })
  server.on('clientError', (_error, socket) => {
    socket.destroy()
  })
  await listen(server, options.port ?? OTLP_PORT, options.host ?? '0.0.0.0')
  return {
    port: (server.address() as AddressInfo).port,
    isForwarding: () => forwarder.endpoint !== null,
    stop: async () => {
      stopping.abort()
      const closed = new Promise((resolve) => server.close(resolve))
      await forwarder.stop(DRAIN_MS)
      server.closeAllConnections()
      await closed
    },
  }
}

function handle(forwarder: Forwarder, request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? ''
  const type = (request.headers['content-type'] ?? '').split(';')[0]?.trim() ?? ''
  if (!path.startsWith('/')) return refuse(403, 'not_a_proxy', 'the egress part forwards telemetry and is no proxy')
  if (request.method === 'GET' && path === '/healthz') return answer(response, 200, health(forwarder))
  if (request.method !== 'POST' || !OTLP_PATHS.has(path))
    return refuse(404, 'not_found', 'expected POST /v1/traces, /v1/metrics or /v1/logs')
  if (!OTLP_TYPES.has(type)) return refuse(415, 'unsupported_type', 'expected application/json or application/x-protobuf')

  const chunks: Buffer[] = []
  let size = 0
  request.on('error', () => {})
  request.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= MAX_BODY_BYTES) chunks.push(chunk)
    else if (!response.headersSent) refuse(413, 'payload_too_large', `a body may have ${MAX_BODY_BYTES} bytes`)
  })
  request.on('end', () => {
    if (response.headersSent) return
    const encoding = request.headers['content-encoding']
    forwarder.push({
      path,
      body: Buffer.concat(chunks),
      headers: { 'content-type': type, ...(encoding === undefined ? {} : { 'content-encoding': encoding }) },
    })
    answer(response, 202, {})
  })

  function refuse(status: number, code: string, message: string): void {
    forwarder.counters.refused++
    response.setHeader('connection', 'close')
    answer(response, status, { error: { code, message } })
    request.resume()
  }
}

const health = (forwarder: Forwarder): object => ({
  status: 'ok',
  // Not the URL: it may hold credentials.
  endpoint: forwarder.endpoint !== null,
  queue: forwarder.queued,
  ...forwarder.counters,
})

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
