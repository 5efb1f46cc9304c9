/** A child task: made under its key (idempotent, so a lost answer is asked for again), then waited for. */
import { type DelegateReply, type DelegateRequest, type ErrorBody, type Json, TERMINAL, type TaskView } from '../spec/protocol.ts'
import type { LanePool } from './http.ts'
import type { ChildOutcome } from './messages.ts'

const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 1_000
const ANSWER_MS = 5_000
const WAIT_MS = 10_000
/** With more children than lanes, everyone's turn is short. */
const CROWDED_WAIT_MS = 200
/** The least time between two looks at a child. */
const LOOK_MS = 20

type Answer<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly code: string; readonly message: string }

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(end, ms)
    function end(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    signal.addEventListener('abort', end)
  })

const problem = (status: number, body: string): { readonly code: string; readonly message: string } => {
  try {
    const { error } = JSON.parse(body) as Partial<ErrorBody>
    if (error !== undefined)
      return { code: error.code, message: error.hint === undefined ? error.message : `${error.message} (${error.hint})` }
  } catch {
    // Not ours: the status says what there is to say.
  }
  return { code: `http_${status}`, message: body.slice(0, 300) }
}

/** Asks until there is an answer that asking again would not change. */
async function ask<T>(send: () => Promise<{ readonly status: number; readonly body: string }>, signal: AbortSignal): Promise<Answer<T>> {
  for (let wait = RETRY_MIN_MS; !signal.aborted; wait = Math.min(RETRY_MAX_MS, wait * 2)) {
    try {
      const { status, body } = await send()
      if (status === 200 || status === 201) return { ok: true, value: JSON.parse(body) as T }
      if (status < 500 && status !== 429) return { ok: false, ...problem(status, body) }
    } catch {
      // The gateway is away; it comes back.
    }
    await pause(wait, signal)
  }
  return { ok: false, code: 'aborted', message: 'the task was stopped while it waited for a child' }
}

const childFailure = (view: TaskView): ChildOutcome => ({
  ok: false,
  code: view.error?.code ?? view.status,
  message: `task ${view.id} of agent "${view.agent}" ${view.status === 'dead' ? 'is dead' : view.status === 'cancelled' ? 'was cancelled' : 'failed'}${view.error === null ? '' : `: ${view.error.message}`}`,
  task: view.id,
})

export interface DelegateOptions {
  readonly lanes: LanePool
  readonly request: DelegateRequest
  /** W3C context of the span that delegates. */
  readonly traceparent: string | null
  readonly signal: AbortSignal
}

export async function delegate({ lanes, request, traceparent, signal }: DelegateOptions): Promise<ChildOutcome> {
  const body = JSON.stringify(request)
  const headers = traceparent === null ? {} : { traceparent }
  const made = await ask<DelegateReply>(
    () => lanes.request({ method: 'POST', path: '/v1/delegate', body, headers, timeoutMs: ANSWER_MS }),
    signal,
  )
  if (!made.ok) return { ok: false, code: made.code, message: made.message, task: null }
  const id = made.value.task
  while (!signal.aborted) {
    const started = performance.now()
    const wait = lanes.crowded ? CROWDED_WAIT_MS : WAIT_MS
    const seen = await ask<TaskView>(
      () => lanes.request({ method: 'GET', path: `/v1/tasks/${encodeURIComponent(id)}?wait_ms=${wait}`, timeoutMs: wait + ANSWER_MS }),
      signal,
    )
    if (!seen.ok) return { ok: false, code: seen.code, message: seen.message, task: id }
    const view = seen.value
    if (view.status === 'completed') return { ok: true, result: view.result as Json }
    if (TERMINAL.has(view.status)) return childFailure(view)
    if (performance.now() - started < LOOK_MS) await pause(LOOK_MS, signal)
  }
  return { ok: false, code: 'aborted', message: 'the task was stopped while it waited for a child', task: id }
}
