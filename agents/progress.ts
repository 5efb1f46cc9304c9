/** Progress of tasks, in order, one request at a time; bounded, and lost rather than in anybody's way. */
import type { ProgressRequest } from '../spec/protocol.ts'

const MAX_QUEUED = 1_000
/** The end of a task waits for its progress, but not for longer. */
const FLUSH_MS = 1_000

export class ProgressQueue {
  readonly #send: (body: string) => Promise<unknown>
  readonly #queue: ProgressRequest[] = []
  readonly #unsent = new Map<string, number>()
  readonly #flushing = new Map<string, () => void>()
  #isSending = false

  constructor(send: (body: string) => Promise<unknown>) {
    this.#send = send
  }

  push(progress: ProgressRequest): void {
    const dropped = this.#queue.length >= MAX_QUEUED ? this.#queue.shift() : undefined
    if (dropped !== undefined) this.#sent(dropped.lease)
    this.#queue.push(progress)
    this.#unsent.set(progress.lease, (this.#unsent.get(progress.lease) ?? 0) + 1)
    if (!this.#isSending) void this.#drain()
  }

  /** Calls `then` when all of this lease was sent: at once when there is none (the common case costs nothing). */
  after(lease: string, then: () => void): void {
    if (!this.#unsent.has(lease)) return then()
    const timer = setTimeout(() => finish(), FLUSH_MS)
    const finish = (): void => {
      clearTimeout(timer)
      this.#flushing.delete(lease)
      then()
    }
    this.#flushing.set(lease, finish)
  }

  async #drain(): Promise<void> {
    this.#isSending = true
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      try {
        await this.#send(JSON.stringify(next))
      } catch {
        // The gateway is away: this message is lost, the task is not.
      }
      this.#sent(next.lease)
    }
    this.#isSending = false
  }

  #sent(lease: string): void {
    const left = (this.#unsent.get(lease) ?? 1) - 1
    if (left > 0) return void this.#unsent.set(lease, left)
    this.#unsent.delete(lease)
    this.#flushing.get(lease)?.()
  }
}
