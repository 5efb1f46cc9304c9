/**
 * The supervisor's conversation with the gateway: one request is always open; what is done goes out at once, with the wish for more.
 * It knows leases and settlements, not tasks. Never gives up: the gateway may be gone for as long as it likes.
 */
import { type LeaseReply, MAX_BODY_BYTES, MAX_IDLE_WAIT_MS, MAX_WANT, SESSION_SILENCE_MS } from '../spec/protocol.ts'
import { Lane } from './http.ts'
import { type Entry, failedEntry, Outbox } from './outbox.ts'

/** A request is held by the gateway for this long, so that beats go out at a fifth of the silence that means death. */
const WAIT_MS = SESSION_SILENCE_MS / 5
const BEAT_AFTER_MS = WAIT_MS / 2
/** All lanes wait for a slow gateway: beat on the spare one. */
const OVERDUE_MS = WAIT_MS * 1.5
/** A full agent opens its request a little later: in a busy one a completion comes first and saves the exchange. */
const HOLD_AFTER_MS = 20
/** Over the time that a request may be held: a frozen gateway is found within 5 s with work in hand; without, its container's healthcheck finds it. */
const ANSWER_MS = 4_000
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 1_000
/** Completions go out while the ones before are on their way to the broker. */
const MAX_SETTLING = 2
/** As many ends at once go in two requests: while the broker works on one, we work on the other. In one they would stay in step for ever. */
const SPLIT_FROM = 32
/** One waits for tasks, one waits without a wish (opened while all slots were busy), two settle, one is the spare for beats. */
const LANES = 5

export interface SessionOptions {
  readonly host: string
  readonly port: number
  readonly headers: { readonly [name: string]: string }
  /** How many more tasks could start now. */
  readonly free: () => number
  /** Other gateways give work too: while this one settles there is enough to do, and fewer requests carry the same. */
  readonly shares?: () => boolean
  /** What is being worked on. */
  readonly leases: () => Iterable<string>
  readonly onReply: (reply: LeaseReply) => void
  readonly onConnected: (connected: boolean) => void
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields?: { readonly [name: string]: unknown }) => void
}

interface Exchange {
  readonly want: number
  /** Answered at once, with tasks or without. */
  readonly prompt: boolean
  readonly lane: Lane
  readonly done: readonly Entry[]
}

const FINAL = new Set(['lease_lost', 'payload_too_large', 'bad_request'])

export class Session {
  readonly #options: SessionOptions
  readonly #lanes: Lane[]
  readonly #open = new Set<Exchange>()
  readonly #outbox = new Outbox()
  #failures = 0
  #connected = false
  #isReady = false
  #retryTimer: NodeJS.Timeout | null = null
  #holdTimer: NodeJS.Timeout | null = null
  #overdueTimer: NodeJS.Timeout | null = null
  #scheduled = false
  #stopping = false
  #closed = false
  #lastSent = 0
  #lastBeat = 0
  #wasIdle = false
  #idle: (() => void) | null = null
  #complained = ''

  constructor(options: SessionOptions) {
    this.#options = options
    this.#lanes = Array.from({ length: LANES }, () => new Lane(options.host, options.port, options.headers))
  }

  /** How many tasks the answers that come in a moment may bring: to what was asked, and to what will be with the ends that wait to be told. */
  get asking(): number {
    let asking = this.#connected ? this.#outbox.size : 0
    for (const exchange of this.#open) if (exchange.prompt) asking += exchange.want
    return asking
  }

  settle(entry: Entry): void {
    this.#outbox.push(entry)
    this.wake()
  }

  /** Something changed: all changes of one tick make one request. */
  wake(): void {
    if (this.#scheduled || this.#closed) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  /** Leases nothing more; goes on to beat and settle. */
  stopLeasing(): void {
    this.#stopping = true
    this.wake()
  }

  /** Every settlement was answered, or `timeoutMs` have passed. */
  async flush(timeoutMs: number): Promise<void> {
    const isDone = (): boolean => this.#outbox.size === 0 && [...this.#open].every((exchange) => exchange.done.length === 0)
    if (isDone()) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#idle = () => {
        if (!isDone()) return
        clearTimeout(timer)
        resolve()
      }
    })
  }

  close(): void {
    this.#closed = true
    for (const timer of [this.#retryTimer, this.#holdTimer, this.#overdueTimer]) if (timer !== null) clearTimeout(timer)
    for (const lane of this.#lanes) lane.close()
  }

  #pump(): void {
    while (!this.#closed && this.#retryTimer === null) {
      const lane = this.#lanes.find((candidate) => ![...this.#open].some((exchange) => exchange.lane === candidate))
      if (lane === undefined) return
      let asked = 0
      let settling = 0
      for (const exchange of this.#open) {
        asked += exchange.want
        if (exchange.done.length > 0) settling += 1
      }
      const want = this.#stopping ? 0 : Math.min(MAX_WANT, Math.max(0, this.#options.free() - asked))
      const isFirst = !this.#connected && this.#open.size === 0
      // A wish that waits is not raised: each end of a task would repeat it.
      const most = this.#options.shares?.() === true ? 1 : MAX_SETTLING
      const hasCause = this.#connected && ((this.#outbox.size > 0 && settling < most) || (want > 0 && asked === 0))
      const isOverdue = this.#open.size > 0 && Date.now() - this.#lastSent >= OVERDUE_MS && this.#isBusy()
      if (!isFirst && !hasCause && !isOverdue) break
      const half = settling === 0 && most > 1 && this.#outbox.size >= SPLIT_FROM ? Math.ceil(this.#outbox.size / 2) : undefined
      const done = settling < most ? this.#outbox.take(MAX_BODY_BYTES / 2, half) : []
      this.#exchange(lane, half === undefined ? want : Math.min(want, done.length), done)
    }
    if (this.#open.size === 0 && this.#retryTimer === null && !this.#closed) this.#holdSoon()
    if (this.#overdueTimer === null && this.#isBusy()) this.#watch()
  }

  #holdSoon(): void {
    this.#holdTimer ??= setTimeout(() => {
      this.#holdTimer = null
      const [lane] = this.#lanes
      if (this.#open.size === 0 && this.#retryTimer === null && !this.#closed && lane !== undefined)
        this.#exchange(lane, 0, this.#outbox.take(MAX_BODY_BYTES / 2))
    }, HOLD_AFTER_MS)
  }

  #exchange(lane: Lane, want: number, done: readonly Entry[]): void {
    const now = Date.now()
    const isFirst = !this.#connected
    // Answered at once: settlements (their slots want new tasks), the first (it tells us that we are connected), a beat beside requests that wait.
    // With nothing in hand the gateway chooses how long it holds the request: thousands that wait must cost it nothing.
    const isIdle = !isFirst && done.length === 0 && !this.#isBusy() && this.#open.size === 0
    const waitMs = isFirst || done.length > 0 || (want === 0 && this.#open.size > 0) ? 0 : isIdle ? MAX_IDLE_WAIT_MS : WAIT_MS
    if (isIdle && this.#wasIdle) for (const other of this.#lanes) if (other !== lane) other.close()
    this.#wasIdle = isIdle
    const isBeat = isFirst || now - this.#lastBeat >= BEAT_AFTER_MS
    const beat = isBeat ? `,"beat":${JSON.stringify(this.#held())}` : ''
    const settlements = done.length === 0 ? '' : `,"done":[${done.map((entry) => entry.text).join(',')}]`
    const body = `{"want":${want},"wait_ms":${waitMs}${beat}${settlements}}`
    const exchange = { want, prompt: waitMs === 0, lane, done }
    this.#open.add(exchange)
    this.#lastSent = now
    if (isBeat) this.#lastBeat = now
    if (!isIdle) this.#watch()
    lane.request({ method: 'POST', path: '/v1/lease', body, timeoutMs: waitMs + ANSWER_MS }).then(
      (reply) => this.#answered(exchange, reply.status, reply.body),
      (error: unknown) => this.#failed(exchange, error instanceof Error ? error.message : String(error)),
    )
  }

  /**
   * What is worked on, and what has ended without the gateway's word that it knows: a lease that no beat names was never received, for
   * all that it knows, and would be handed out a second time.
   */
  #held(): readonly string[] {
    return [...this.#options.leases(), ...this.#outbox.leases, ...[...this.#open].flatMap(({ done }) => done.map(({ lease }) => lease))]
  }

  #watch(): void {
    this.#overdueTimer ??= setTimeout(() => {
      this.#overdueTimer = null
      if (this.#isBusy()) this.wake()
      if (!this.#closed && this.#isBusy()) this.#watch()
    }, OVERDUE_MS)
  }

  /** There is something that must be beaten for, or said. */
  #isBusy(): boolean {
    return (
      this.#outbox.size > 0 ||
      [...this.#open].some(({ done }) => done.length > 0) ||
      this.#options.leases()[Symbol.iterator]().next().done !== true
    )
  }

  #answered(exchange: Exchange, status: number, body: string): void {
    if (status !== 200) return this.#refused(exchange, status, body)
    let reply: LeaseReply
    try {
      reply = JSON.parse(body) as LeaseReply
    } catch {
      return this.#failed(exchange, 'the answer is not JSON')
    }
    this.#open.delete(exchange)
    this.#succeeded()
    const isMissing = exchange.done.length > 0 && this.#acknowledge(exchange.done, reply)
    this.#options.onReply(reply)
    if (isMissing) this.#retryLater()
    this.#idle?.()
    this.wake()
  }

  /** True: some settlement has to be sent again. */
  #acknowledge(done: readonly Entry[], reply: LeaseReply): boolean {
    const answers = new Map((reply.settled ?? []).map((settled) => [settled.lease, settled]))
    const again: Entry[] = []
    for (const entry of done) {
      const answer = answers.get(entry.lease)
      if (answer?.ok === true) continue
      const code = answer?.code ?? ''
      if (!FINAL.has(code)) again.push(entry)
      else if (code !== 'lease_lost' && entry.completed) this.#outbox.push(refusedResult(entry, code))
      else if (code !== 'lease_lost') this.#options.log('error', `the gateway refused the end of a task: ${code}`)
    }
    this.#outbox.putBack(again)
    return again.length > 0
  }

  #refused(exchange: Exchange, status: number, body: string): void {
    const isOurs = status === 400 || status === 413
    if (!isOurs || exchange.done.length === 0) return this.#failed(exchange, `HTTP ${status}: ${body.slice(0, 300)}`)
    // One settlement spoils the request: find it by sending each alone; then its task fails instead of ending.
    const [only] = exchange.done
    const isKnown = exchange.done.length === 1 && only !== undefined
    if (isKnown && !only.completed) this.#options.log('error', `the gateway refused the end of a task: HTTP ${status}`)
    const again = !isKnown
      ? exchange.done.map((entry) => ({ ...entry, alone: true }))
      : only.completed
        ? [refusedResult(only, status === 413 ? 'payload_too_large' : 'bad_request')]
        : []
    this.#failed({ ...exchange, done: again }, `HTTP ${status}: ${body.slice(0, 300)}`, exchange)
  }

  #failed(exchange: Exchange, why: string, original: Exchange = exchange): void {
    this.#open.delete(original)
    this.#outbox.putBack(exchange.done)
    if (this.#closed) return
    this.#connected = false
    this.#failures += 1
    // The first failure may be no more than a kept-open socket that the gateway closed.
    if (this.#failures === 2) this.#ready(false)
    if (this.#failures >= 2 && why !== this.#complained) {
      this.#complained = why
      this.#options.log('warn', `no connection to the gateway: ${why}`)
    }
    this.#retryLater()
    this.#idle?.()
  }

  #succeeded(): void {
    this.#failures = 0
    this.#complained = ''
    this.#connected = true
    this.#ready(true)
  }

  #ready(isReady: boolean): void {
    if (this.#isReady === isReady) return
    this.#isReady = isReady
    this.#options.onConnected(isReady)
  }

  #retryLater(): void {
    const base = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.max(0, this.#failures - 1))
    // Spread, so that a hundred replicas do not come back at one instant; never over the limit.
    this.#retryTimer ??= setTimeout(
      () => {
        this.#retryTimer = null
        this.#pump()
      },
      base * (0.8 + Math.random() * 0.2),
    )
  }
}

const refusedResult = (entry: Entry, code: string): Entry =>
  failedEntry(entry.lease, { code, message: 'the gateway did not take the result of this task', retryable: false })
