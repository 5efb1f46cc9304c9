/** A child task: made under its key (idempotent, so a lost answer is asked for again), then waited for. */
import { type DelegateReply, type DelegateRequest, type Json, TERMINAL, type TaskView } from '../spec/protocol.ts'
import { ANSWER_MS, ask, pause } from './asking.ts'
import type { LanePool } from './http.ts'
import type { ChildOutcome } from './messages.ts'

const WAIT_MS = 10_000
/** With more children than lanes, everyone's turn is short. */
const CROWDED_WAIT_MS = 200
/** The least time between two looks at a child. */
const LOOK_MS = 20

export const childFailure = (view: TaskView): ChildOutcome => ({
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
