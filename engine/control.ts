/**
 * Client of the gateway's control API: HTTP/1.1 over an exec stream into the gateway's container, so that who may use it is who may use
 * the engine and nothing is published. Every route is safe to repeat (a submit carries its run id), so lost connections are retried.
 */
import { Agent, type IncomingMessage, request } from 'node:http'
import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { CODES, type Code } from '../spec/codes.ts'
import type { ReplicaView, RunEvent, RunSummary, RunView, SubmitReply, SubmitRequest, TaskView } from '../spec/protocol.ts'
import { execSocket } from './control-socket.ts'
import { AgentctlError, EXIT, type ExitCode } from './errors.ts'
import { PATHS, trustedName } from './names.ts'
import type { ContainerRuntime } from './ports.ts'

/** Beyond the `wait_ms` of a request: time for the exec, the broker's answer and the way back. */
const REQUEST_TIMEOUT_MS = 15_000
/** A killed gateway is back within 5 s (supervisor or controller); an answer that does not come in twice that is a failure. */
const RETRY_MS = 10_000
const RETRY_PAUSE_MS = 100
const MAX_PAUSE_MS = 1_000

export interface ControlOptions {
  /** How long lost connections are retried before AG5001. */
  readonly retry_ms?: number
  readonly request_timeout_ms?: number
}

export interface ControlClient {
  health(): Promise<unknown>
  submit(request: SubmitRequest): Promise<SubmitReply>
  runs(): Promise<readonly RunSummary[]>
  /** With `wait_ms`: held until the run has ended or the time is over. */
  run(run: string, wait_ms?: number): Promise<RunView>
  cancel(run: string): Promise<void>
  /** `follow`: until the run has ended; a lost connection is re-opened and goes on after the last event. */
  events(run: string, options?: { follow?: boolean }): AsyncIterable<RunEvent>
  task(id: string, wait_ms?: number): Promise<TaskView>
  /** With `connected` and `wait_ms`: held until all of these have a session. */
  replicas(options?: { wait_ms?: number; connected?: readonly { agent: string; replica: number }[] }): Promise<readonly ReplicaView[]>
  /** OTLP/HTTP bytes for the project's receiver. */
  traces(body: Uint8Array, content_type: string): Promise<void>
  close(): void
}

interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: Uint8Array
  readonly content_type?: string
  /** 0: no limit (a stream). */
  readonly timeout_ms: number
}

/** Opens nothing yet: the exec stream is made by the first request and kept for the next ones. */
export async function openControl(
  runtime: ContainerRuntime,
  project: string,
  signal: AbortSignal,
  options: ControlOptions = {},
): Promise<ControlClient> {
  const container = trustedName(project, 'gateway')
  const retryMs = options.retry_ms ?? RETRY_MS
  const requestMs = options.request_timeout_ms ?? REQUEST_TIMEOUT_MS
  const agent = controlAgent(runtime, container, signal)

  const unreachable = (cause: unknown): AgentctlError =>
    new AgentctlError('AG5001', `the gateway of project "${project}" does not answer: ${reason(cause)}`, { hint: CODES.AG5001.fix, cause })

  /** One attempt: the response once its head is there. */
  const attempt = (call: Call): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const limit = call.timeout_ms === 0 ? signal : AbortSignal.any([signal, AbortSignal.timeout(call.timeout_ms)])
      const headers: Record<string, string | number> = { host: 'control', accept: 'application/json' }
      if (call.body !== undefined)
        Object.assign(headers, { 'content-type': call.content_type ?? 'application/json', 'content-length': call.body.byteLength })
      const sent = request({ agent, method: call.method, path: call.path, headers, signal: limit }, resolve)
      sent.on('error', (error) =>
        reject(limit.aborted && !signal.aborted ? new Error(`no answer within ${call.timeout_ms} ms`, { cause: error }) : error),
      )
      sent.end(call.body)
    })

  /** Retries what a restarting gateway or broker causes, until the time is over; refusals are final. */
  const send = async <T>(call: Call, read: (response: IncomingMessage) => Promise<T>): Promise<T> => {
    const until = Date.now() + retryMs
    for (let pause = RETRY_PAUSE_MS; ; pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
      try {
        const response = await attempt(call)
        if ((response.statusCode ?? 500) < 400) return await read(response)
        throw refusal(response.statusCode ?? 500, await text(response))
      } catch (error) {
        if (signal.aborted) throw interrupted(error)
        if (isFinal(error)) throw error
        if (Date.now() + pause > until) throw isAnswer(error) ? error : unreachable(error)
        await sleep(pause, undefined, { signal }).catch((cause) => Promise.reject(interrupted(cause)))
      }
    }
  }

  const json = <T>(method: 'GET' | 'POST', path: string, body?: unknown, wait_ms = 0): Promise<T> =>
    send(
      { method, path, timeout_ms: requestMs + wait_ms, ...(body === undefined ? {} : { body: Buffer.from(JSON.stringify(body)) }) },
      async (response) => {
        const answer = await text(response)
        return (answer === '' ? null : JSON.parse(answer)) as T
      },
    )

  const path = (...parts: readonly string[]): string => `/v1/${parts.map(encodeURIComponent).join('/')}`
  const waiting = (wait_ms: number | undefined): string => (wait_ms === undefined ? '' : `?wait_ms=${wait_ms}`)

  async function* events(run: string, { follow = false }: { follow?: boolean } = {}): AsyncIterable<RunEvent> {
    // The gateway tells the kept events again to who comes back; they rise in time, so what was passed on is known by time and text.
    let [last, seen] = ['', new Set<string>()]
    for (;;) {
      const response = await send(
        { method: 'GET', path: `${path('runs', run, 'events')}?follow=${follow ? 1 : 0}`, timeout_ms: follow ? 0 : requestMs },
        async (it) => it,
      )
      try {
        const known = { last, seen: new Set(seen) }
        for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) {
          if (line.trim() === '') continue
          const event = JSON.parse(line) as RunEvent
          if (event.at < known.last || (event.at === known.last && known.seen.has(line))) continue
          if (event.at !== last) [last, seen] = [event.at, new Set()]
          seen.add(line)
          yield event
        }
        if (response.complete) return
      } catch (error) {
        if (error instanceof SyntaxError) throw error
      } finally {
        response.destroy()
      }
      if (signal.aborted) throw interrupted(signal.reason)
      await sleep(RETRY_PAUSE_MS, undefined, { signal }).catch((cause) => Promise.reject(interrupted(cause)))
    }
  }

  return {
    health: () => json('GET', path('health')),
    submit: (submit) => json('POST', path('runs'), submit),
    runs: async () => (await json<{ runs: readonly RunSummary[] }>('GET', path('runs'))).runs,
    run: (run, wait_ms) => json('GET', path('runs', run) + waiting(wait_ms), undefined, wait_ms),
    cancel: async (run) => void (await json('POST', path('runs', run, 'cancel'), {})),
    events,
    task: (id, wait_ms) => json('GET', path('tasks', id) + waiting(wait_ms), undefined, wait_ms),
    replicas: async ({ wait_ms, connected } = {}) => {
      const query = new URLSearchParams()
      if (wait_ms !== undefined) query.set('wait_ms', String(wait_ms))
      if (connected !== undefined) query.set('connected', connected.map((it) => `${it.agent}:${it.replica}`).join(','))
      const suffix = query.size === 0 ? '' : `?${query}`
      return (await json<{ replicas: readonly ReplicaView[] }>('GET', path('replicas') + suffix, undefined, wait_ms)).replicas
    },
    traces: (body, content_type) =>
      send({ method: 'POST', path: path('traces'), body, content_type, timeout_ms: requestMs }, async (it) => void (await text(it))),
    close: () => agent.destroy(),
  }
}

/** An http.Agent whose sockets are exec streams: `socat` inside the container joins them to the control socket. */
function controlAgent(runtime: ContainerRuntime, container: string, signal: AbortSignal): Agent {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: 2 })
  const connect = (_options: unknown, done: (error: Error | null, socket?: Duplex) => void): undefined => {
    runtime.execStream(container, ['socat', '-', `UNIX-CONNECT:${PATHS.controlSocket}`], {}, signal).then(
      (stream) => done(null, execSocket(stream)),
      (error) => done(error instanceof Error ? error : new Error(String(error))),
    )
  }
  // Node calls it with a callback and takes any Duplex; the types know net.Socket alone.
  return Object.assign(agent, { createConnection: connect as unknown as Agent['createConnection'] })
}

async function text(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  if (!response.complete) throw new Error('the connection broke inside the answer')
  return Buffer.concat(chunks).toString('utf8')
}

/** The user gave something wrong (exit 2), rather than the world saying no (exit 1). */
const USAGE: ReadonlySet<Code> = new Set<Code>(['AG6002', 'AG6003', 'AG6005', 'AG6006', 'AG7001'])
const BY_STATUS: Readonly<Record<number, Code>> = { 400: 'AG6006', 404: 'AG6001', 413: 'AG6005', 503: 'AG5002' }

/** `{error: {code, message, hint}}` of the gateway as our error; a body that is none of that is shown as it is. */
export function refusal(status: number, body: string): AgentctlError {
  const error = parseError(body)
  const code: Code = error !== null && error.code in CODES ? (error.code as Code) : (BY_STATUS[status] ?? 'AG5001')
  const message = error?.message ?? `the gateway answered ${status}: ${body.slice(0, 200)}`
  const exit: ExitCode = USAGE.has(code) ? EXIT.usage : EXIT.failed
  return new AgentctlError(code, message, { hint: error?.hint ?? CODES[code].fix, exit })
}

function parseError(body: string): { code: string; message: string; hint?: string } | null {
  try {
    const { error } = JSON.parse(body) as { error?: { code?: unknown; message?: unknown; hint?: unknown } }
    if (typeof error?.code !== 'string' || typeof error.message !== 'string') return null
    return { code: error.code, message: error.message, ...(typeof error.hint === 'string' ? { hint: error.hint } : {}) }
  } catch {
    return null
  }
}

/** AG5xxx passes by itself (a broker or gateway that restarts), and so may AG4005, AG4012: a container that is just being replaced. */
const PASSING: ReadonlySet<Code> = new Set<Code>(['AG5001', 'AG5002', 'AG4005', 'AG4012'])
const isFinal = (error: unknown): boolean => (error instanceof AgentctlError && !PASSING.has(error.code)) || error instanceof SyntaxError
const isAnswer = (error: unknown): boolean => error instanceof AgentctlError && (error.code === 'AG5001' || error.code === 'AG5002')
const interrupted = (cause: unknown): AgentctlError =>
  new AgentctlError('AG7002', 'interrupted', { hint: CODES.AG7002.fix, exit: EXIT.interrupted, cause })
const reason = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error)
  return message === 'socket hang up' ? 'it closed the connection' : message
}
