/** One request to the control API, sent again while a gateway or broker restarts; refusals are final. */
import { type Agent, type IncomingMessage, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { CODES, type Code } from '../../spec/codes.ts'
import { AgentctlError } from '../errors.ts'
import { interrupted, reason, refusal } from './refusal.ts'

/** Beyond the `wait_ms` of a request: time for the exec, the broker's answer and the way back. */
const REQUEST_TIMEOUT_MS = 15_000
/** A killed gateway is back within 5 s (supervisor or controller); an answer that does not come in twice that is a failure. */
const RETRY_MS = 10_000
export const RETRY_PAUSE_MS = 100
const MAX_PAUSE_MS = 1_000

export interface ClientOptions {
  /** Ends everything that is under way. */
  readonly signal?: AbortSignal
  /** How long lost connections are retried before AG5001. Default 10 s. */
  readonly retry_ms?: number
  /** Beyond what a request itself waits for. Default 15 s. */
  readonly request_timeout_ms?: number
}

/** How the control API is reached. */
export interface Transport {
  readonly agent: Agent
  /** Where a connection leads, for node:http; none: the agent knows. */
  readonly place: { readonly socketPath?: string; readonly host?: string; readonly port?: number }
  readonly headers: { readonly [name: string]: string }
  /** In messages: `the gateway of project "x"`. */
  readonly name: string
}

export interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers?: { readonly [name: string]: string }
  readonly body?: Uint8Array
  /** Beyond the usual: what the request itself waits for. null: no limit (a stream). */
  readonly wait_ms: number | null
  readonly signal?: AbortSignal | undefined
}

export type Send = <T>(call: Call, read: (response: IncomingMessage) => Promise<T>) => Promise<T>

export function makeSend({ agent, place, headers, name }: Transport, options: ClientOptions): Send {
  const retryMs = options.retry_ms ?? RETRY_MS
  const requestMs = options.request_timeout_ms ?? REQUEST_TIMEOUT_MS
  const unreachable = (cause: unknown): AgentctlError =>
    new AgentctlError('AG5001', `${name} does not answer: ${reason(cause)}`, { hint: CODES.AG5001.fix, cause })

  /** One attempt: the response once its head is there. */
  const attempt = (call: Call, signal: AbortSignal | null): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const ms = call.wait_ms === null ? null : requestMs + call.wait_ms
      const limits = [...(signal === null ? [] : [signal]), ...(ms === null ? [] : [AbortSignal.timeout(ms)])]
      const all: Record<string, string | number> = { accept: 'application/json', ...headers, ...call.headers }
      if (call.body !== undefined) all['content-length'] = call.body.byteLength
      const sent = request(
        {
          ...place,
          agent,
          method: call.method,
          path: call.path,
          headers: all,
          ...(limits.length === 0 ? {} : { signal: AbortSignal.any(limits) }),
        },
        resolve,
      )
      sent.on('error', (error) => reject(isTimeout(limits, signal) ? new Error(`no answer within ${ms} ms`, { cause: error }) : error))
      sent.end(call.body)
    })

  return async (call, read) => {
    const given = [options.signal, call.signal].filter((it) => it !== undefined)
    const signal = given.length === 0 ? null : AbortSignal.any(given)
    const until = Date.now() + retryMs
    for (let pause = RETRY_PAUSE_MS; ; pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
      try {
        const response = await attempt(call, signal)
        if ((response.statusCode ?? 500) < 400) return await read(response)
        throw refusal(response.statusCode ?? 500, await textOf(response))
      } catch (error) {
        if (signal?.aborted === true) throw interrupted(error)
        if (isFinal(error)) throw error
        if (Date.now() + pause > until) throw isAnswer(error) ? error : unreachable(error)
        await sleep(pause, undefined, signal === null ? {} : { signal }).catch((cause) => Promise.reject(interrupted(cause)))
      }
    }
  }
}

const isTimeout = (limits: readonly AbortSignal[], signal: AbortSignal | null): boolean =>
  limits.some((it) => it !== signal && it.aborted) && signal?.aborted !== true

export async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  if (!response.complete) throw new Error('the connection broke inside the answer')
  return Buffer.concat(chunks).toString('utf8')
}

/** AG5xxx passes by itself (a broker or gateway that restarts), and so may AG4005, AG4012: a container that is just being replaced. */
const PASSING: ReadonlySet<Code> = new Set<Code>(['AG5001', 'AG5002', 'AG4005', 'AG4012'])
const isFinal = (error: unknown): boolean => (error instanceof AgentctlError && !PASSING.has(error.code)) || error instanceof SyntaxError
const isAnswer = (error: unknown): boolean => error instanceof AgentctlError && (error.code === 'AG5001' || error.code === 'AG5002')
