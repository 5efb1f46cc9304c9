/** The other gateways, as the first asks them. */
import { Agent, type IncomingMessage, request as send } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { HttpError } from '../http.ts'
import { refuse } from '../submission.ts'
import type { Call, Route } from '../control/call.ts'
import { PREFIX } from './door.ts'

/** Above the time for which a gateway that is not ready lets its callers wait. */
export const ANSWER_MS = 15_000
/** Above that for which an answer is held, and twice the pause between two signs of life of a stream. */
const SILENCE_MS = 60_000
/** Followers of runs have one each; a gateway takes 300 from one address. */
const MAX_SOCKETS = 256
const MAX_REPLY_BYTES = 67_108_864
const PASSED_ON = ['content-type', 'content-length', 'content-disposition', 'x-content-type-options', 'etag', 'cache-control'] as const
const ASKED = ['accept', 'last-event-id', 'content-type'] as const

interface Question {
  readonly method?: 'GET' | 'POST'
  readonly path: string
  readonly body?: string
  readonly headers?: { readonly [name: string]: string }
  readonly timeout_ms?: number
  readonly signal?: AbortSignal
}

export class Peer {
  /** As its container's ExtraHosts calls it: gateway-2. */
  readonly name: string
  readonly #url: URL
  readonly #token: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, maxFreeSockets: 8 })

  constructor(name: string, url: string, token: string) {
    this.name = name
    this.#url = new URL(url)
    this.#token = token
  }

  /** The answer as JSON; one that is an error is thrown as the caller would have got it. */
  async ask<T>(question: Question): Promise<T> {
    const limit = AbortSignal.timeout(question.timeout_ms ?? ANSWER_MS)
    const signal = question.signal === undefined ? limit : AbortSignal.any([limit, question.signal])
    const answer = await this.#open({ ...question, signal })
    let text = ''
    try {
      answer.setEncoding('utf8')
      for await (const chunk of answer) {
        text += chunk as string
        if (text.length > MAX_REPLY_BYTES) throw new Error('its answer is too long')
      }
    } catch (error) {
      throw this.#away(error)
    }
    if (answer.statusCode === 200) return JSON.parse(text) as T
    const { error } = (JSON.parse(text) as { error?: { code: string; message: string; hint?: string } } | null) ?? {}
    throw new HttpError(answer.statusCode ?? 500, error?.code ?? 'internal', error?.message ?? `${this.name} refused`, error?.hint)
  }

  /** The caller's request, and the answer as it comes. */
  async pass({ method, body: schema }: Route, { request, response, body, signal, url }: Call): Promise<void> {
    const headers = Object.fromEntries(
      ASKED.flatMap((name) => (request.headers[name] === undefined ? [] : [[name, String(request.headers[name])]])),
    )
    const path = url.pathname + url.search
    const answer = await this.#open({ method, path, headers, signal, ...(schema === undefined ? {} : { body: JSON.stringify(body) }) })
    const passed = PASSED_ON.flatMap((name) => (answer.headers[name] === undefined ? [] : [[name, answer.headers[name]]]))
    response.writeHead(answer.statusCode ?? 502, Object.fromEntries(passed))
    response.flushHeaders()
    // Whoever breaks it off breaks off both.
    await pipeline(answer, response).catch(() => response.destroy())
  }

  close(): void {
    this.#agent.destroy()
  }

  async #open(question: Question): Promise<IncomingMessage> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#send(question)
      } catch (error) {
        // A kept socket that the other side closed; all that is asked may be asked again.
        const isStale = (error as { stale?: boolean }).stale === true
        if (!isStale || attempt > MAX_SOCKETS) throw this.#away(error)
      }
    }
  }

  #send({ method = 'GET', path, body, headers = {}, signal }: Question): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const asked = send(
        {
          agent: this.#agent,
          host: this.#url.hostname,
          port: this.#url.port,
          method,
          path: PREFIX + path,
          timeout: SILENCE_MS,
          headers: {
            ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
            ...headers,
            authorization: `Bearer ${this.#token}`,
          },
          ...(signal === undefined ? {} : { signal }),
        },
        resolve,
      )
      asked.once('timeout', () => asked.destroy(new Error(`nothing for ${SILENCE_MS / 1_000} s`)))
      asked.on('error', (error: NodeJS.ErrnoException) =>
        reject(Object.assign(error, { stale: asked.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code ?? '') })),
      )
      asked.end(body)
    })
  }

  #away(error: unknown): HttpError {
    const why = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error)
    return refuse(
      503,
      'AG5001',
      `${this.name} does not answer: ${why}`,
      `What it has waits until it is back; see \`agentctl logs agentctl-${this.name}\`.`,
    )
  }
}
