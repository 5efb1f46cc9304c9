/** What the supervisor asks of a handler. */
import { type LeasedTask, MAX_PAYLOAD_BYTES, type WorkError } from '../spec/protocol.ts'
import type { ChildOutcome, FromThread, Outcome, SpanData } from './messages.ts'

export interface Execution {
  /** Stop soon; `done` is still called once. */
  abort(reason: string): void
}

export interface HandlerTask {
  readonly n: number
  readonly leased: LeasedTask
  readonly trace: { readonly traceId: string; readonly spanId: string } | null
  readonly done: (outcome: Outcome) => void
}

/** What a running task may ask of the supervisor. */
export interface TaskServices {
  progress(n: number, progress: Extract<FromThread, { kind: 'progress' }>): void
  delegate(request: Extract<FromThread, { kind: 'delegate' }>, answer: (outcome: ChildOutcome) => void): void
  span(span: SpanData): void
}

export interface Handler {
  start(task: HandlerTask): Execution
  /** Ends everything at once (the process is about to exit). */
  close(): void
}

export const failure = (code: string, message: string, retryable = false): { readonly ok: false; readonly error: WorkError } => ({
  ok: false,
  error: { code, message: message.length > 4_096 ? `${message.slice(0, 4_096)}…` : message, retryable },
})

export const tooLarge = (bytes: number): Outcome =>
  failure(
    'payload_too_large',
    `the result is ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}. Write files to a volume and return their names.`,
  )
