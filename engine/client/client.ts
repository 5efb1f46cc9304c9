/**
 * The client of the control API, over any transport. Every call is safe to repeat (a submit carries its run id), so lost connections
 * are retried; what the gateway refuses is thrown as an AgentctlError with its code.
 */
import type { Readable } from 'node:stream'
import {
  type ApprovalView,
  type ArtifactView,
  type DeadLetter,
  type DeadLetterSummary,
  type Explanation,
  type Json,
  type Proof,
  type ReplicaView,
  type RunExplanation,
  type RunEvent,
  type RunSummary,
  type RunView,
  type SubmitReply,
  type SubmitRequest,
  type TaskView,
  TERMINAL,
  type WorkStatus,
} from '../../spec/protocol.ts'
import { newRunId } from '../ulid.ts'
import { streamEvents } from './events.ts'
import { type ClientOptions, makeSend, type Send, textOf, type Transport } from './send.ts'

/** One request is held this long; the gateway clamps at 30 s. */
const WAIT_MS = 20_000
const JSON_TYPE = 'application/json'

export interface RunFilter {
  /** At most so many; the gateway's default is 100, its most 1,000. */
  readonly limit?: number
  /** Older than this run: `next` of the page before. */
  readonly before?: string
  readonly status?: WorkStatus
  /** With a job of this agent. */
  readonly agent?: string
}
export interface RunPage {
  readonly runs: readonly RunSummary[]
  /** `before` of the next page; null: there is none. */
  readonly next: string | null
}
export interface DeadLetterFilter {
  readonly limit?: number
  /** Ended before this dead letter: `next` of the page before. */
  readonly before?: string
  readonly agent?: string
}
export interface DeadLetterPage {
  readonly tasks: readonly DeadLetterSummary[]
  readonly next: string | null
}

export class ControlClient {
  readonly #send: Send
  readonly #options: ClientOptions
  readonly #close: () => void

  constructor(transport: Transport, options: ClientOptions = {}) {
    this.#send = makeSend(transport, options)
    this.#options = options
    this.#close = () => transport.agent.destroy()
  }

  health(): Promise<{ readonly ok: boolean; readonly broker: boolean; readonly project: string }> {
    return this.#get(path('health'))
  }

  /** Without an `id` it gets one here, so that a submit whose answer was lost makes no second run. */
  submit(request: SubmitRequest): Promise<SubmitReply> {
    return this.#post(path('runs'), { id: newRunId(), ...request })
  }

  runs(filter: RunFilter = {}): Promise<RunPage> {
    return this.#get(path('runs') + query({ ...filter }))
  }

  /** With `wait_ms`: held until the run has ended or the time is over. */
  run(run: string, wait_ms?: number): Promise<RunView> {
    return this.#get(path('runs', run) + query({ wait_ms }), wait_ms)
  }

  /** The run as it ended. */
  async wait(run: string, options: { readonly signal?: AbortSignal } = {}): Promise<RunView> {
    for (;;) {
      const view = await this.#get<RunView>(path('runs', run) + query({ wait_ms: WAIT_MS }), WAIT_MS, options.signal)
      if (TERMINAL.has(view.status)) return view
    }
  }

  /** What happened so far; `follow`: and what comes, until the run has ended. A lost connection is re-opened after the last event. */
  events(
    run: string,
    options: { readonly follow?: boolean; readonly after?: string; readonly signal?: AbortSignal } = {},
  ): AsyncIterable<RunEvent> {
    return streamEvents(this.#send, path('runs', run, 'events'), options, this.#options.signal)
  }

  async cancel(run: string): Promise<void> {
    await this.#post(path('runs', run, 'cancel'), {})
  }

  /** A new run: of plain tasks those that did not complete (`all`: every one), of a pipeline with the same inputs. */
  retry(run: string, options: { readonly all?: boolean; readonly id?: string } = {}): Promise<SubmitReply> {
    return this.#post(path('runs', run, 'retry'), { id: newRunId(), ...options })
  }

  task(id: string, wait_ms?: number): Promise<TaskView> {
    return this.#get(path('tasks', id) + query({ wait_ms }), wait_ms)
  }

  /** Why the task waits. */
  explain(id: string): Promise<Explanation> {
    return this.#get(path('tasks', id, 'explain'))
  }

  /** Why a run does not go on: its unfinished tasks, in pages. */
  explainRun(run: string, page: { readonly limit?: number; readonly after?: string } = {}): Promise<RunExplanation> {
    return this.#get(path('runs', run, 'explain') + query({ ...page }))
  }

  deadLetters(filter: DeadLetterFilter = {}): Promise<DeadLetterPage> {
    return this.#get(path('dlq') + query({ ...filter }))
  }

  deadLetter(task: string): Promise<DeadLetter> {
    return this.#get(path('dlq', task))
  }

  /** A new run of this one task, with another input if one is given. */
  retryDeadLetter(task: string, options: { readonly input?: Json; readonly id?: string } = {}): Promise<SubmitReply> {
    return this.#post(path('dlq', task, 'retry'), { id: newRunId(), ...options })
  }

  async dropDeadLetter(task: string): Promise<void> {
    await this.#post(path('dlq', task, 'drop'), {})
  }

  /** Default: those that are pending. */
  async approvals(status: ApprovalView['status'] | 'all' = 'pending'): Promise<readonly ApprovalView[]> {
    return (await this.#get<{ approvals: readonly ApprovalView[] }>(path('approvals') + query({ status }))).approvals
  }

  approve(id: string, comment?: string): Promise<ApprovalView> {
    return this.#post(path('approvals', id), { decision: 'approve', ...(comment === undefined ? {} : { comment }) })
  }

  reject(id: string, comment?: string): Promise<ApprovalView> {
    return this.#post(path('approvals', id), { decision: 'reject', ...(comment === undefined ? {} : { comment }) })
  }

  async artifacts(run: string): Promise<readonly ArtifactView[]> {
    return (await this.#get<{ artifacts: readonly ArtifactView[] }>(path('runs', run, 'artifacts'))).artifacts
  }

  /** The bytes, as they come. */
  artifact(digest: string, options: { readonly signal?: AbortSignal } = {}): Promise<Readable> {
    return this.#send(
      { method: 'GET', path: path('artifacts', digest), headers: { accept: '*/*' }, wait_ms: null, signal: options.signal },
      async (response) => response,
    )
  }

  /** With `connected` and `wait_ms`: held until all of these have a session. */
  async replicas(
    options: {
      readonly wait_ms?: number
      readonly connected?: readonly { readonly agent: string; readonly replica: number }[]
      readonly unproved?: true
    } = {},
  ): Promise<readonly ReplicaView[]> {
    const { wait_ms, connected, unproved } = options
    const wanted = connected?.map((it) => `${it.agent}:${it.replica}`).join(',')
    return (
      await this.#get<{ replicas: readonly ReplicaView[] }>(
        path('replicas') + query({ wait_ms, connected: wanted, unproved: unproved === true ? 1 : undefined }),
        wait_ms,
      )
    ).replicas
  }

  /** For the controller: which replicas were found as they were declared. */
  async prove(proofs: readonly Proof[]): Promise<void> {
    await this.#post(path('replicas', 'proofs'), { proofs })
  }

  /** OTLP/HTTP bytes for the project's receiver. */
  async traces(body: Uint8Array, content_type: string): Promise<void> {
    const headers = { 'content-type': content_type }
    await this.#send({ method: 'POST', path: path('traces'), headers, body, wait_ms: 0 }, textOf)
  }

  /** Its connections; what is under way fails. */
  close(): void {
    this.#close()
  }

  #get<T>(where: string, wait_ms: number | undefined = 0, signal?: AbortSignal): Promise<T> {
    return this.#send({ method: 'GET', path: where, wait_ms, signal }, parse<T>)
  }

  #post<T>(where: string, body: unknown): Promise<T> {
    const headers = { 'content-type': JSON_TYPE }
    return this.#send({ method: 'POST', path: where, headers, body: Buffer.from(JSON.stringify(body)), wait_ms: 0 }, parse<T>)
  }
}

async function parse<T>(response: Parameters<typeof textOf>[0]): Promise<T> {
  const answer = await textOf(response)
  return (answer === '' ? null : JSON.parse(answer)) as T
}

const path = (...parts: readonly string[]): string => `/v1/${parts.map(encodeURIComponent).join('/')}`

function query(values: { readonly [name: string]: string | number | undefined }): string {
  const given = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) given.set(name, String(value))
  return given.size === 0 ? '' : `?${given}`
}
