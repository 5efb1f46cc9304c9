/** Between the supervisor and the thread of the user's module. Arrays, so that a busy agent pays for one message per tick. */
import type { Json, WorkError } from '../spec/protocol.ts'

/** A task, named by a number of this process: leases are secrets and stay with the supervisor. */
export interface ThreadTask {
  readonly n: number
  readonly id: string
  readonly run: string
  readonly type: string
  readonly input: Json
  readonly attempt: number
  readonly deadline: number | null
  /** The context of the task's `invoke_agent` span, when it is traced. */
  readonly trace: { readonly traceId: string; readonly spanId: string } | null
}

/** A finished span of `ctx.span`; times in Unix ms with a fraction. */
export interface SpanData {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly name: string
  readonly start: number
  readonly end: number
  readonly attributes: { readonly [name: string]: string | number }
  readonly error: string | null
}

/** `json` is the result's text: the thread serialises, so that a large result does not block the supervisor. */
export type Outcome = { readonly ok: true; readonly json: string } | { readonly ok: false; readonly error: WorkError }

export type ToThread =
  | { readonly kind: 'task'; readonly task: ThreadTask }
  | { readonly kind: 'abort'; readonly n: number; readonly reason: string }
  | { readonly kind: 'child'; readonly call: number; readonly outcome: ChildOutcome }
  | { readonly kind: 'ping' }

export type ChildOutcome =
  | { readonly ok: true; readonly result: Json }
  | { readonly ok: false; readonly code: string; readonly message: string; readonly task: string | null }

export type FromThread =
  | { readonly kind: 'settled'; readonly n: number; readonly outcome: Outcome }
  | { readonly kind: 'progress'; readonly n: number; readonly message?: string; readonly percent?: number; readonly data?: Json }
  | {
      readonly kind: 'delegate'
      readonly n: number
      readonly call: number
      readonly key: string
      readonly agent: string
      readonly type: string
      readonly input: Json
      readonly spanId: string | null
    }
  | { readonly kind: 'span'; readonly span: SpanData }
  | { readonly kind: 'unloadable'; readonly message: string }
  | { readonly kind: 'pong' }
