/** What a task asks of the gateway beside work and children: its journal, a person's approval, artifacts. Loaded with the first such question. */
import type { ApprovalView, JournalEntry } from '../spec/protocol.ts'
import { ANSWER_MS, ask, type Asked, pause } from './asking.ts'
import type { LanePool } from './http.ts'
import type { Answer, Ask } from './messages.ts'

const APPROVAL_WAIT_MS = 10_000
/** With more waits than lanes, everyone's turn is short. */
const CROWDED_WAIT_MS = 200
const LOOK_MS = 20
/** Four MiB of records, in one answer. */
const JOURNAL_MS = 4 * ANSWER_MS

export interface AskContext {
  readonly lanes: LanePool
  readonly lease: string
  readonly traceparent: string | null
  readonly signal: AbortSignal
  readonly pull: () => Promise<Uint8Array | null>
  readonly gateway: { readonly host: string; readonly port: number; readonly headers: { readonly [name: string]: string } }
}

const post = <T>({ lanes, signal }: AskContext, path: string, body: unknown, timeoutMs = ANSWER_MS): Promise<Asked<T>> => {
  const text = JSON.stringify(body)
  return ask<T>(() => lanes.request({ method: 'POST', path, body: text, timeoutMs }), signal)
}
const get = <T>({ lanes, signal }: AskContext, path: string, timeoutMs: number): Promise<Asked<T>> =>
  ask<T>(() => lanes.request({ method: 'GET', path, timeoutMs }), signal)

async function approval(context: AskContext, key: string, message: string, data: unknown): Promise<Answer> {
  const made = await post<ApprovalView>(context, '/v1/approvals', { lease: context.lease, key, message, data })
  let seen: Asked<ApprovalView> = made
  while (seen.ok && seen.value.status === 'pending' && !context.signal.aborted) {
    const started = performance.now()
    const wait = context.lanes.crowded ? CROWDED_WAIT_MS : APPROVAL_WAIT_MS
    seen = await get<ApprovalView>(
      context,
      `/v1/approvals/${encodeURIComponent(seen.value.id)}?lease=${encodeURIComponent(context.lease)}&wait_ms=${wait}`,
      wait + ANSWER_MS,
    )
    if (performance.now() - started < LOOK_MS) await pause(LOOK_MS, context.signal)
  }
  return seen
}

export async function perform(question: Ask, context: AskContext): Promise<Answer> {
  const { lease, lanes, traceparent, signal } = context
  if (question.op === 'journal.read') {
    const read = await get<{ readonly entries: readonly JournalEntry[] }>(
      context,
      `/v1/journal?lease=${encodeURIComponent(lease)}`,
      JOURNAL_MS,
    )
    return read.ok ? { ok: true, value: read.value.entries } : read
  }
  if (question.op === 'journal.write') return post(context, '/v1/journal', { lease, entries: [question.entry] })
  if (question.op === 'approve') return approval(context, question.key, question.message, question.data)
  if (question.op === 'delegate.all') {
    const { delegateMany } = await import('./delegate-many.ts')
    return { ok: true, value: await delegateMany({ lanes, lease, children: question.children, traceparent, signal }) }
  }
  const { transfer } = await import('./transfers.ts')
  return transfer(question, context)
}
