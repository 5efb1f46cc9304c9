/** The little of HTTP that both servers need, over node:http. */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** An answer that is an error: `{error: {code, message, hint}}`. */
export class HttpError extends Error {
  readonly status: number
  readonly code: string
  readonly hint: string | undefined
  constructor(status: number, code: string, message: string, hint?: string) {
    super(message)
    this.status = status
    this.code = code
    this.hint = hint
  }
}

export const badRequest = (message: string): HttpError => new HttpError(400, 'bad_request', message)

export function sendJson(response: ServerResponse, status: number, body: string): void {
  if (response.headersSent || response.destroyed) return
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

/** `away`: the code for a broker that refuses (out of memory, disk full), which passes. */
export function sendError(response: ServerResponse, error: unknown, away: string, log: (message: string) => void): void {
  if (error instanceof HttpError) {
    // The rest of a body that was refused or is late is not read: the connection ends with the answer.
    if ((error.status === 408 || error.status === 413) && !response.req.complete) response.setHeader('connection', 'close')
    sendJson(
      response,
      error.status,
      JSON.stringify({ error: { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) } }),
    )
    return
  }
  log(error instanceof Error ? (error.stack ?? error.message) : String(error))
  if (error instanceof Error && error.name === 'ReplyError') {
    sendJson(
      response,
      503,
      JSON.stringify({
        error: { code: away, message: `the broker refused: ${error.message.slice(0, 200)}`, hint: 'See the log of the broker.' },
      }),
    )
    return
  }
  sendJson(
    response,
    500,
    JSON.stringify({ error: { code: 'internal', message: 'the gateway failed at this request', hint: 'See the log of the gateway.' } }),
  )
}

/** Makes room for bytes of a body, or throws. */
export type Reserve = (bytes: number) => void

/** The whole body; over the limit: 413, without reading on. Room for it is reserved at once when its length is declared, else as it comes. */
export function readBody(request: IncomingMessage, limit: number, reserve: Reserve = () => {}): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const tooLarge = (): HttpError =>
      new HttpError(413, 'payload_too_large', `the request body is over the limit of ${limit} bytes`, 'Send less in one request.')
    const declared = request.headers['content-length']
    if (Number(declared ?? 0) > limit) throw tooLarge()
    reserve(Number(declared ?? 0))
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      try {
        if (size > limit) throw tooLarge()
        if (declared === undefined) reserve(chunk.length)
        chunks.push(chunk)
      } catch (error) {
        request.pause()
        request.removeAllListeners('data')
        chunks.length = 0
        reject(error)
      }
    })
    request.on('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)))
    request.on('error', reject)
    // Also comes after a whole body: an error that nobody gets would cost its stack.
    request.on('close', () => {
      if (!request.complete) reject(new HttpError(400, 'bad_request', 'the connection closed inside the request'))
    })
  })
}

export type Fields = { readonly [name: string]: unknown }

export async function readJson(request: IncomingMessage, limit: number, reserve?: Reserve): Promise<Fields> {
  const text = (await readBody(request, limit, reserve)).toString('utf8')
  let value: unknown
  try {
    value = text === '' ? {} : JSON.parse(text)
  } catch (error) {
    throw badRequest(`the body is not JSON: ${error instanceof Error ? error.message.slice(0, 120) : String(error)}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badRequest('the body must be a JSON object')
  return value as Fields
}

/** The URL of a request; what is none is the caller's mistake. */
export function urlOf(request: IncomingMessage, base: string): URL {
  const url = URL.parse(request.url ?? '/', base)
  if (url === null) throw badRequest('the path is not a URL')
  return url
}

export function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    throw badRequest(`the path has a wrong escape: "${segment.slice(0, 100)}"`)
  }
}

/** `?wait_ms=` of a URL, clamped; 0 when absent. */
export function waitMs(url: URL, max: number): number {
  const text = url.searchParams.get('wait_ms')
  if (text === null) return 0
  if (!/^\d{1,9}$/.test(text)) throw badRequest(`wait_ms must be a whole number of milliseconds, got "${text.slice(0, 20)}"`)
  return Math.min(Number(text), max)
}
