/** What tasks write, to the gateway: in batches, bounded, and lost rather than in anybody's way. */
import type { LogLine, LogsRequest } from '../spec/protocol.ts'

export const FLUSH_MS = 250
/** Of one request; the gateway takes 64 KiB, and a thousand lines. */
const BATCH_BYTES = 48_000
const BATCH_LINES = 900
/** Of one task, waiting to be sent. Beyond it the oldest go. */
const BUFFER_BYTES = 131_072
/** A longer line comes in pieces. */
export const LINE_CHARS = 8_000
const COMPACT_LINES = 10_000
/** The end of a task waits for its lines, but not for longer. */
const END_MS = 1_000

interface Buffered {
  lines: LogLine[]
  /** Those before it were dropped: a shift per line would cost a chatty command dear. */
  head: number
  /** About: characters, and something for each line. */
  bytes: number
  dropped: number
  /** A request with lines of it is under way. */
  isSending: boolean
  then: (() => void) | null
}

const FRAME_BYTES = 32
const roughly = ({ text }: LogLine): number => text.length + FRAME_BYTES
/** As JSON in a request. */
const exactly = ({ text }: LogLine): number => Buffer.byteLength(JSON.stringify(text)) + FRAME_BYTES

export class LogQueue {
  readonly #send: (body: string) => Promise<{ readonly status: number }>
  readonly #byLease = new Map<string, Buffered>()
  #timer: NodeJS.Timeout | null = null

  constructor(send: (body: string) => Promise<{ readonly status: number }>) {
    this.#send = send
  }

  push(lease: string, stream: LogLine['stream'], text: string): void {
    let buffer = this.#byLease.get(lease)
    if (buffer === undefined) {
      buffer = { lines: [], head: 0, bytes: 0, dropped: 0, isSending: false, then: null }
      this.#byLease.set(lease, buffer)
    }
    for (let start = 0; start === 0 || start < text.length; start += LINE_CHARS) {
      const line = { stream, text: text.slice(start, start + LINE_CHARS) }
      buffer.lines.push(line)
      buffer.bytes += roughly(line)
    }
    for (let oldest = buffer.lines[buffer.head]; buffer.bytes > BUFFER_BYTES && oldest !== undefined; oldest = buffer.lines[buffer.head]) {
      buffer.bytes -= roughly(oldest)
      buffer.head += 1
      buffer.dropped += 1
    }
    if (buffer.head > COMPACT_LINES) {
      buffer.lines = buffer.lines.slice(buffer.head)
      buffer.head = 0
    }
    this.#flushSoon()
  }

  /** Calls `then` when all lines of this lease were sent, or a second has passed: at once when there are none. */
  after(lease: string, then: () => void): void {
    const buffer = this.#byLease.get(lease)
    if (buffer === undefined) return then()
    const timer = setTimeout(() => buffer.then?.(), END_MS)
    buffer.then = () => {
      buffer.then = null
      clearTimeout(timer)
      this.#byLease.delete(lease)
      then()
    }
    void this.#drain(lease, buffer)
  }

  #flushSoon(): void {
    if (this.#timer === null) this.#timer = setTimeout(() => this.#flush(), FLUSH_MS)
  }

  #flush(): void {
    this.#timer = null
    for (const [lease, buffer] of this.#byLease) void this.#drain(lease, buffer)
  }

  async #drain(lease: string, buffer: Buffered): Promise<void> {
    if (buffer.isSending) return
    buffer.isSending = true
    do {
      const lines = take(buffer)
      if (lines.length === 0) break
      const request: LogsRequest = { lease, lines }
      // The gateway is away or will not have them: these lines are lost, the task is not.
      await this.#send(JSON.stringify(request)).catch(() => null)
      // Until its end a task sends no more than one batch at a time: what it writes faster than that is dropped here.
    } while (buffer.then !== null)
    buffer.isSending = false
    if (buffer.then !== null) return buffer.then()
    if (buffer.lines.length > 0) this.#flushSoon()
    else this.#byLease.delete(lease)
  }
}

function take(buffer: Buffered): readonly LogLine[] {
  let exact = 0
  let end = buffer.head
  for (let line = buffer.lines[end]; line !== undefined; line = buffer.lines[end]) {
    const size = exactly(line)
    if (end - buffer.head >= BATCH_LINES || (end > buffer.head && exact + size > BATCH_BYTES)) break
    exact += size
    buffer.bytes -= roughly(line)
    end += 1
  }
  const lines = buffer.lines.slice(buffer.head, end)
  buffer.lines = buffer.lines.slice(end)
  buffer.head = 0
  if (buffer.dropped === 0) return lines
  const dropped = { stream: 'log', text: `(${buffer.dropped} lines left out: they were written faster than they could be sent)` } as const
  buffer.dropped = 0
  return [dropped, ...lines]
}
