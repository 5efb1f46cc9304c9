/** POST of a small body with a timeout, on node:http alone: `fetch` would load undici (some 8 MB) into parts whose memory is counted. */
import { type Agent, request as httpRequest } from 'node:http'

export interface PostOptions {
  readonly headers: { readonly [name: string]: string }
  readonly timeout_ms: number
  readonly signal?: AbortSignal
  readonly agent?: Agent
}

/** The answer's status; its body is drained and thrown away. Rejects when there is no whole answer in time. */
export async function post(url: URL, body: Uint8Array, options: PostOptions): Promise<number> {
  const request = url.protocol === 'https:' ? (await import('node:https')).request : httpRequest
  const limits = [AbortSignal.timeout(options.timeout_ms), ...(options.signal === undefined ? [] : [options.signal])]
  return await new Promise<number>((resolve, reject) => {
    const outgoing = request(
      url,
      {
        method: 'POST',
        headers: { ...options.headers, 'content-length': body.byteLength },
        signal: AbortSignal.any(limits),
        ...(options.agent === undefined || url.protocol === 'https:' ? {} : { agent: options.agent }),
      },
      (answer) => {
        answer.on('error', reject)
        answer.on('end', () => resolve(answer.statusCode ?? 0))
        answer.resume()
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
