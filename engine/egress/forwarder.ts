/** A bounded queue of OTLP bodies and the one worker that delivers them. Whoever puts something in is never delayed and never told. */
import { post } from '../post.ts'
import { targetUrl, type Endpoint } from './destination.ts'

/** Bytes that wait while the receiver is away; above it the oldest go. */
export const QUEUE_BYTES = 8_388_608
const TRY_TIMEOUT_MS = 2_000
const RETRY_DELAYS_MS = [250, 1_000]
/** OTLP's own list of statuses that are worth another try. */
const RETRYABLE = new Set([429, 502, 503, 504])

export interface Item {
  readonly path: string
  readonly body: Buffer
  readonly headers: { readonly [name: string]: string }
}

export interface Counters {
  received: number
  forwarded: number
  /** No endpoint in the record. */
  dropped: number
  /** The queue was full. */
  overflowed: number
  retried: number
  /** Given up after the last try, or refused by the receiver. */
  failed: number
  /** Requests that are not OTLP. */
  refused: number
}

export class Forwarder {
  readonly counters: Counters = { received: 0, forwarded: 0, dropped: 0, overflowed: 0, retried: 0, failed: 0, refused: 0 }
  endpoint: Endpoint = null
  readonly #queue: Item[] = []
  readonly #limit: number
  readonly #abort = new AbortController()
  readonly #note: (message: string) => void
  #bytes = 0
  #busy = false
  #working: Promise<void> = Promise.resolve()
  #failing = false

  constructor(note: (message: string) => void, limit: number = QUEUE_BYTES) {
    this.#note = note
    this.#limit = limit
  }

  get queued(): { items: number; bytes: number } {
    return { items: this.#queue.length, bytes: this.#bytes }
  }

  push(item: Item): void {
    this.counters.received++
    if (this.endpoint === null) {
      this.counters.dropped++
      return
    }
    this.#queue.push(item)
    this.#bytes += item.body.length
    while (this.#bytes > this.#limit) {
      this.#take()
      this.counters.overflowed++
    }
    if (!this.#busy) this.#working = this.#work()
  }

  /** Deliver what is left, for `ms` at most. */
  async stop(ms: number): Promise<void> {
    const timer = setTimeout(() => this.#abort.abort(), ms)
    await this.#working
    clearTimeout(timer)
  }

  #take(): Item | undefined {
    const item = this.#queue.shift()
    this.#bytes -= item?.body.length ?? 0
    return item
  }

  async #work(): Promise<void> {
    this.#busy = true
    for (let item = this.#take(); item !== undefined && !this.#abort.signal.aborted; item = this.#take()) {
      const problem = await this.#deliver(item)
      if (problem === null) this.counters.forwarded++
      else this.counters.failed++
      // Once per outage, not once per batch.
      if (problem !== null && !this.#failing) this.#note(`telemetry is not getting through: ${problem}`)
      if (problem === null && this.#failing) this.#note('telemetry gets through again')
      this.#failing = problem !== null
    }
    this.#busy = false
  }

  /** null, or why it did not arrive. */
  async #deliver(item: Item): Promise<string | null> {
    for (let attempt = 0; ; attempt++) {
      // Read anew for each try: the record may have changed while this one waited.
      if (this.endpoint === null) return 'the endpoint was taken out of the project'
      const outcome = await this.#try(this.endpoint, item)
      const delay = RETRY_DELAYS_MS[attempt]
      if (outcome.problem === null || !outcome.retry || delay === undefined) return outcome.problem
      if (!(await this.#pause(delay))) return outcome.problem
      this.counters.retried++
    }
  }

  async #try(endpoint: URL, item: Item): Promise<{ problem: string | null; retry: boolean }> {
    const { host } = endpoint
    try {
      const status = await post(targetUrl(endpoint, item.path), item.body, {
        headers: item.headers,
        timeout_ms: TRY_TIMEOUT_MS,
        signal: this.#abort.signal,
      })
      return status < 300 ? { problem: null, retry: false } : { problem: `${host} answered ${status}`, retry: RETRYABLE.has(status) }
    } catch (cause) {
      const why = cause instanceof Error ? ('code' in cause ? String(cause.code) : cause.name) : 'error'
      return { problem: `${host}: ${why === 'ABORT_ERR' ? `no answer in ${TRY_TIMEOUT_MS} ms` : why}`, retry: true }
    }
  }

  /** false: stopped meanwhile. */
  #pause(ms: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const { signal } = this.#abort
    if (signal.aborted) return Promise.resolve(false)
    const stopped = (): void => {
      clearTimeout(timer)
      resolve(false)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stopped)
      resolve(true)
    }, ms)
    signal.addEventListener('abort', stopped, { once: true })
    return promise
  }
}
