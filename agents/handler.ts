/** What the supervisor asks of a handler. */
import { type LeasedTask, type LogLine, MAX_PAYLOAD_BYTES, type WorkError } from '../spec/protocol.ts'
import type { Answer, Ask, ChildOutcome, FromThread, Outcome, SpanData } from './messages.ts'

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
  /** `pull` gives the next bytes of a stream that the task sends; null: its end. */
  ask(n: number, ask: Ask, pull: () => Promise<Uint8Array | null>, answer: (answer: Answer) => void): void
  log(n: number, stream: LogLine['stream'], text: string): void
  span(span: SpanData): void
}

export interface Handler {
  start(task: HandlerTask): Execution
  /** Ends everything at once (the process is about to exit). */
  close(): void
}

/** `after`: with `retryable`, not before so many ms from now. */
export const failure = (
  code: string,
  message: string,
  retryable = false,
  after?: number,
): { readonly ok: false; readonly error: WorkError } => ({
  ok: false,
  error: {
    code,
    message: message.length > 4_096 ? `${message.slice(0, 4_096)}…` : message,
    retryable,
    ...(after === undefined ? {} : { after_ms: after }),
  },
})

export const tooLarge = (bytes: number): Outcome =>
  failure(
    'payload_too_large',
    `the result is ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}. Write files to a volume and return their names.`,
  )
