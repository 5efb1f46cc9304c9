/** Children by the hundred: made in batches, all or none of each, then waited for in batches, so that each result travels once. */
import type { AwaitReply, AwaitRequest, DelegateManyRequest, Json, TaskView } from '../spec/protocol.ts'
import { TERMINAL } from '../spec/protocol.ts'
import { ANSWER_MS, ask, pause } from './asking.ts'
import { childFailure } from './delegation.ts'
import type { LanePool } from './http.ts'
import type { ChildOutcome, ChildRequest } from './messages.ts'

const BATCH = 200
/** Half of what a request may have: escapes and the frame need room. */
const BATCH_BYTES = 2_000_000
const WAIT_MS = 10_000
/** The least time between two looks. */
const LOOK_MS = 20
/** A batch of many large inputs takes the gateway a while. */
const MAKE_MS = 4 * ANSWER_MS

export interface DelegateManyOptions {
  readonly lanes: LanePool
  readonly lease: string
  readonly children: readonly ChildRequest[]
  readonly traceparent: string | null
  readonly signal: AbortSignal
}

export function batches(children: readonly ChildRequest[]): readonly (readonly ChildRequest[])[] {
  const made: ChildRequest[][] = []
  let bytes = 0
  for (const child of children) {
    const size = Buffer.byteLength(JSON.stringify(child))
    const last = made.at(-1)
    if (last === undefined || last.length >= BATCH || bytes + size > BATCH_BYTES) {
      made.push([child])
      bytes = size
    } else {
      last.push(child)
      bytes += size
    }
  }
  return made
}

/** One outcome per child, in order. A batch that is refused is as many failures. */
export async function delegateMany(options: DelegateManyOptions): Promise<readonly ChildOutcome[]> {
  const { lanes, lease, children, traceparent, signal } = options
  const headers = traceparent === null ? {} : { traceparent }
  const outcomes: ChildOutcome[] = []
  const made: (readonly { readonly id: string; readonly at: number }[])[] = []
  let at = 0
  for (const batch of batches(children)) {
    const request: DelegateManyRequest = { lease, tasks: batch }
    const body = JSON.stringify(request)
    const reply = await ask<{ readonly tasks: readonly string[] }>(
      () => lanes.request({ method: 'POST', path: '/v1/delegate', body, headers, timeoutMs: MAKE_MS }),
      signal,
    )
    const start = at
    at += batch.length
    if (reply.ok) made.push(reply.value.tasks.map((id, index) => ({ id, at: start + index })))
    else for (let index = start; index < at; index += 1) outcomes[index] = { ...reply, task: null }
  }
  for (const batch of made) await awaitBatch(options, batch, outcomes)
  return outcomes
}

async function awaitBatch(
  options: DelegateManyOptions,
  batch: readonly { readonly id: string; readonly at: number }[],
  outcomes: ChildOutcome[],
): Promise<void> {
  const { lanes, lease, signal } = options
  let open = batch
  while (open.length > 0 && !signal.aborted) {
    const started = performance.now()
    const request: AwaitRequest = { lease, tasks: open.map(({ id }) => id), wait_ms: WAIT_MS }
    const body = JSON.stringify(request)
    const reply = await ask<AwaitReply>(
      () => lanes.request({ method: 'POST', path: '/v1/await', body, timeoutMs: WAIT_MS + ANSWER_MS }),
      signal,
    )
    if (!reply.ok && reply.code === 'payload_too_large' && open.length > 1) {
      // Their results are more than one answer may hold.
      const half = Math.ceil(open.length / 2)
      await awaitBatch(options, open.slice(0, half), outcomes)
      return awaitBatch(options, open.slice(half), outcomes)
    }
    if (!reply.ok) {
      for (const { id, at } of open) outcomes[at] = { ok: false, code: reply.code, message: reply.message, task: id }
      return
    }
    const ended = new Map(reply.value.tasks.filter(({ status }) => TERMINAL.has(status)).map((view) => [view.id, view]))
    for (const { id, at } of open) {
      const view = ended.get(id)
      if (view !== undefined) outcomes[at] = outcomeOf(view)
    }
    open = open.filter(({ id }) => !ended.has(id))
    if (open.length > 0 && performance.now() - started < LOOK_MS) await pause(LOOK_MS, signal)
  }
  for (const { id, at } of open) outcomes[at] = { ok: false, code: 'aborted', message: 'the task was stopped while it waited', task: id }
}

const outcomeOf = (view: TaskView): ChildOutcome =>
  view.status === 'completed' ? { ok: true, result: view.result as Json } : childFailure(view)
