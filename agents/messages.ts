/** Between the supervisor and the thread of the user's module. Arrays, so that a busy agent pays for one message per tick. */
import type { ArtifactView, JournalEntry, Json, LogLine, StepBeat, WorkError } from '../spec/protocol.ts'

/** A task, named by a number of this process: leases are secrets and stay with the supervisor. */
export interface ThreadTask {
  readonly n: number
  readonly id: string
  readonly run: string
  readonly type: string
  readonly input: Json
  readonly attempt: number
  readonly deadline: number | null
  /** Steps that earlier executions recorded. */
  readonly journal: number
  /** Where `ctx.workspace` is, once it is asked for. */
  readonly workspace: string
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
  | { readonly kind: 'answer'; readonly call: number; readonly answer: Answer }
  /** The next chunk of this call's stream is wanted. */
  | { readonly kind: 'more'; readonly call: number }
  | { readonly kind: 'ping' }

export type ChildOutcome =
  | { readonly ok: true; readonly result: Json }
  | { readonly ok: false; readonly code: string; readonly message: string; readonly task: string | null }

/** What a task asks of the gateway, through the supervisor, beside `delegate`. */
export type Ask =
  | { readonly op: 'journal.read' }
  | { readonly op: 'journal.write'; readonly entry: JournalEntry }
  | { readonly op: 'delegate.all'; readonly children: readonly ChildRequest[]; readonly spanId: string | null }
  | { readonly op: 'approve'; readonly key: string; readonly message: string; readonly data: Json }
  | { readonly op: 'artifact.put'; readonly name: string; readonly type: string; readonly source: ArtifactSource }
  /** `to`: a file; null: the bytes themselves. */
  | { readonly op: 'artifact.get'; readonly digest: string; readonly to: string | null }
  /** One that an earlier execution stored is this one's too. */
  | { readonly op: 'artifact.keep'; readonly artifact: ArtifactView }
  | { readonly op: 'checkpoint'; readonly name: string; readonly folder: string }
  | { readonly op: 'restore'; readonly digest: string; readonly folder: string }

export interface ChildRequest {
  readonly key: string
  readonly agent: string
  readonly type: string
  readonly input: Json
}
export type ArtifactSource =
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'stream' }

export type Answer =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly code: string; readonly message: string; readonly retryable?: boolean }

export type FromThread =
  | { readonly kind: 'settled'; readonly n: number; readonly outcome: Outcome }
  | {
      readonly kind: 'progress'
      readonly n: number
      readonly message?: string
      readonly percent?: number
      readonly data?: Json
      readonly step?: StepBeat
    }
  | { readonly kind: 'log'; readonly n: number; readonly stream: LogLine['stream']; readonly text: string }
  /** `ctx.workspace` was asked for the first time. */
  | { readonly kind: 'workspace'; readonly n: number }
  | { readonly kind: 'ask'; readonly n: number; readonly call: number; readonly ask: Ask }
  /** Of a stream; null: its end. */
  | { readonly kind: 'chunk'; readonly call: number; readonly bytes: Uint8Array | null; readonly error?: string }
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
