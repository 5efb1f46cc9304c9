/** Reading all of the broker again after a loss, until it succeeds: what is in memory is of before until then. */
import { setTimeout as sleep } from 'node:timers/promises'

const FIRST_PAUSE_MS = 100
const MAX_PAUSE_MS = 2_000

export class Rereading {
  readonly #readAll: () => Promise<unknown>
  readonly #signal: AbortSignal
  readonly #log: (message: string) => void
  /** Losses told, and how many of them the last whole reading came after. */
  #told = 0
  #read = 0
  #running: Promise<void> | null = null

  constructor(readAll: () => Promise<unknown>, signal: AbortSignal, log: (message: string) => void) {
    this.#readAll = readAll
    this.#signal = signal
    this.#log = log
  }

  get isStale(): boolean {
    return this.#read < this.#told
  }

  /** One at a time; what is told during one is read once more after it. */
  again(): Promise<void> {
    this.#told += 1
    this.#running ??= this.#run()
    return this.#running
  }

  async #run(): Promise<void> {
    let pause = FIRST_PAUSE_MS
    while (this.isStale && !this.#signal.aborted) {
      const told = this.#told
      try {
        await this.#readAll()
        this.#read = told
        pause = FIRST_PAUSE_MS
      } catch (error) {
        if (this.#signal.aborted) break
        this.#log(`reading anew after a loss: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
        await sleep(pause, undefined, { signal: this.#signal }).catch(() => {})
        pause = Math.min(2 * pause, MAX_PAUSE_MS)
      }
    }
    this.#running = null
  }
}
