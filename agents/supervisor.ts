/** Tasks of this replica: slots, start, stop, parking, ends. The handler does the work, the session talks. */
import type { LeasedTask, LeaseReply } from '../spec/protocol.ts'
import type { AgentConfig } from './config.ts'
import { type Execution, failure, type Handler, type TaskServices } from './handler.ts'
import { Link } from './link.ts'
import type { Answer, Ask, ChildOutcome, FromThread, Outcome } from './messages.ts'
import { completedEntry, failedEntry } from './outbox.ts'
import { traceparent, Tracer } from './telemetry.ts'

const STOP_FLUSH_MS = 1_000
/** Longest delay of a timer. */
const MAX_TIMER_MS = 2_147_483_647

interface Held {
  readonly n: number
  /** To the gateway that leased it. */
  readonly link: Link
  readonly leased: LeasedTask
  span: ReturnType<Tracer['start']>
  /** Ends its waits for children; made when there is one. */
  abort: AbortController | null
  isStarted: boolean
  execution: Execution | null
  /** Children it waits for; more than 0: it is parked and holds no slot. */
  children: number
  aborted: string | null
  deadline: NodeJS.Timeout | null
}

export interface SupervisorOptions {
  readonly config: AgentConfig
  /** Sent as the session header. */
  readonly headers: { readonly [name: string]: string }
  readonly handler: (services: TaskServices) => Handler
  readonly onConnected: (connected: boolean) => void
}

export class Supervisor {
  readonly #concurrency: number
  readonly #links: readonly [Link, ...Link[]]
  readonly #tracer: Tracer
  readonly #handler: Handler
  readonly #byLease = new Map<string, Held>()
  readonly #byNumber = new Map<number, Held>()
  /** Handed to us beyond our wish: they wait for a slot. */
  readonly #queued: Held[] = []
  #running = 0
  #next = 1
  #stopping = false
  #allEnded: (() => void) | null = null

  constructor({ config, headers, handler, onConnected }: SupervisorOptions) {
    const { gateways, agent, concurrency, traces } = config
    const [first, ...others] = gateways
    this.#concurrency = concurrency
    let wasReady = false
    // Of its own health one is enough: without the others it has work to go on with, and a restart would help nobody. `up` asks all.
    const changed = (): void => {
      const isReady = this.#links.some((link) => link.connected)
      if (isReady !== wasReady) onConnected((wasReady = isReady))
    }
    const linkTo = (place: (typeof gateways)[0]): Link =>
      new Link({
        place,
        headers,
        free: (link) => this.#free(link),
        shares: (link) => this.#links.some((other) => other !== link && other.active > 0),
        onReply: (link, reply) => this.#onReply(link, reply),
        onConnected: changed,
      })
    this.#links = [linkTo(first), ...others.map(linkTo)]
    this.#tracer = new Tracer(agent, traces, this.#links[0].post('/v1/traces'))
    this.#handler = handler({
      progress: (n, { message, percent, data, step }) => {
        const held = this.#byNumber.get(n)
        if (held === undefined) return
        const fields = {
          ...(message === undefined ? {} : { message }),
          ...(percent === undefined ? {} : { percent }),
          ...(data === undefined ? {} : { data }),
          ...(step === undefined ? {} : { step }),
        }
        held.link.progress.push({ lease: held.leased.lease, ...fields })
      },
      delegate: (request, answer) => void this.#delegate(request, answer),
      ask: (n, question, pull, answer) => void this.#ask(n, question, pull, answer),
      log: (n, stream, text) => {
        const held = this.#byNumber.get(n)
        if (held !== undefined) held.link.logs.push(held.leased.lease, stream, text)
      },
      span: (span) => this.#tracer.add(span),
    })
  }

  start(): void {
    this.#wake()
  }

  /**
   * A gateway may fill all slots that are free, and its share of them also when others hold all: it cannot know of them, and what it
   * has must not wait for ever. What comes beyond the slots waits in `#queued`.
   */
  #free(link: Link): number {
    let free = this.#concurrency
    for (const other of this.#links) free -= other.active + (other === link ? 0 : other.session.asking)
    return Math.max(0, free, Math.ceil(this.#concurrency / this.#links.length) - link.active)
  }

  #wake(): void {
    for (const link of this.#links) link.session.wake()
  }

  /** Leases no more, gives what runs a grace, gives back the rest (to be run again), and says everything that is left to say. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true
    for (const link of this.#links) link.session.stopLeasing()
    // A parked task may wait for long; its children are kept by key, so the retry finds their results.
    for (const held of [...this.#byLease.values()]) if (held.children > 0 || !held.isStarted) this.#giveBack(held)
    if (this.#byLease.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs)
        this.#allEnded = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    for (const held of [...this.#byLease.values()]) this.#giveBack(held)
    this.#handler.close()
    await Promise.all([
      ...this.#links.map((link) => link.session.flush(STOP_FLUSH_MS)),
      Promise.race([this.#tracer.flush(), new Promise((resolve) => setTimeout(resolve, STOP_FLUSH_MS))]),
    ])
    for (const link of this.#links) link.close()
  }

  #onReply(link: Link, reply: LeaseReply): void {
    for (const lease of reply.cancel ?? []) if (link.leases.has(lease)) this.#abort(this.#byLease.get(lease), 'cancelled')
    for (const leased of reply.tasks ?? []) {
      if (this.#byLease.has(leased.lease)) continue
      const n = this.#next++
      const held: Held = {
        n,
        link,
        leased,
        span: null,
        abort: null,
        isStarted: false,
        execution: null,
        children: 0,
        aborted: null,
        deadline: null,
      }
      this.#byLease.set(leased.lease, held)
      link.leases.add(leased.lease)
      link.active += 1
      this.#byNumber.set(n, held)
      this.#queued.push(held)
      if (this.#stopping) this.#giveBack(held)
    }
    this.#fill()
  }

  #run(held: Held): void {
    const { leased, n } = held
    held.isStarted = true
    held.span = this.#tracer.start(leased)
    this.#running += 1
    if (leased.deadline !== null) {
      const left = Math.min(MAX_TIMER_MS, Math.max(0, leased.deadline - Date.now()))
      held.deadline = setTimeout(() => this.#abort(held, 'timeout'), left)
    }
    held.execution = this.#handler.start({ n, leased, trace: held.span?.context ?? null, done: (outcome) => this.#done(held, outcome) })
  }

  #abort(held: Held | undefined, reason: 'cancelled' | 'timeout'): void {
    if (held === undefined || held.aborted !== null) return
    held.aborted = reason
    held.abort?.abort()
    if (held.execution === null) this.#done(held, failure(reason, 'the task was stopped before it began'))
    else held.execution.abort(reason)
  }

  #giveBack(held: Held): void {
    held.execution?.abort('stopped')
    this.#done(held, failure('agent_stopped', 'the agent was stopped; the task runs again', true))
  }

  #done(held: Held, outcome: Outcome): void {
    const { link } = held
    const { lease } = held.leased
    if (this.#byNumber.get(held.n) !== held) return
    this.#byNumber.delete(held.n)
    if (held.deadline !== null) clearTimeout(held.deadline)
    held.abort?.abort()
    if (held.children === 0) link.active -= 1
    if (!held.isStarted) this.#queued.splice(this.#queued.indexOf(held), 1)
    else if (held.children === 0) this.#running -= 1
    const stopped = held.aborted
    const end: Outcome =
      stopped !== null && !outcome.ok ? failure(stopped, stopped === 'timeout' ? outcome.error.message : 'the task was cancelled') : outcome
    held.span?.end(end.ok ? null : end.error.code)
    link.progress.after(lease, () =>
      link.logs.after(lease, () => {
        // Held until here, so that it is beaten for.
        this.#byLease.delete(lease)
        link.leases.delete(lease)
        link.session.settle(end.ok ? completedEntry(lease, end.json) : failedEntry(lease, end.error))
        if (this.#byLease.size === 0) this.#allEnded?.()
      }),
    )
    this.#fill()
  }

  #fill(): void {
    while (this.#running < this.#concurrency && this.#queued.length > 0) {
      const next = this.#queued.shift()
      if (next !== undefined) this.#run(next)
    }
    this.#wake()
  }

  async #delegate(request: Extract<FromThread, { kind: 'delegate' }>, answer: (outcome: ChildOutcome) => void): Promise<void> {
    const held = this.#byNumber.get(request.n)
    if (held === undefined) return answer({ ok: false, code: 'aborted', message: 'the task has ended', task: null })
    const { key, agent, type, input, spanId } = request
    const abort = this.#park(held)
    const { delegate } = await import('./delegation.ts')
    const outcome = await delegate({
      lanes: held.link.side,
      request: { lease: held.leased.lease, key, agent, type, input },
      traceparent: traceOf(held, spanId),
      signal: abort,
    })
    this.#unpark(held)
    answer(outcome)
  }

  async #ask(n: number, question: Ask, pull: () => Promise<Uint8Array | null>, answer: (answer: Answer) => void): Promise<void> {
    const held = this.#byNumber.get(n)
    if (held === undefined) return answer({ ok: false, code: 'aborted', message: 'the task has ended' })
    const isWait = question.op === 'delegate.all' || question.op === 'approve'
    if (isWait) this.#park(held)
    held.abort ??= new AbortController()
    try {
      const { perform } = await import('./asks.ts')
      const traceparent = traceOf(held, question.op === 'delegate.all' ? question.spanId : null)
      const { lease } = held.leased
      const { side: lanes, place, headers } = held.link
      answer(await perform(question, { lanes, lease, traceparent, signal: held.abort.signal, pull, gateway: { ...place, headers } }))
    } catch (error) {
      answer({ ok: false, code: 'internal', message: error instanceof Error ? error.message : String(error) })
    } finally {
      if (isWait) this.#unpark(held)
    }
  }

  /** It waits for somebody else: its slot is free meanwhile. The signal ends the wait. */
  #park(held: Held): AbortSignal {
    held.abort ??= new AbortController()
    if (held.children === 0) {
      this.#running -= 1
      held.link.active -= 1
    }
    held.children += 1
    this.#fill()
    return held.abort.signal
  }

  /** It goes on at once, over the number of slots if need be: to wait for one could be to wait for a task that waits for it. */
  #unpark(held: Held): void {
    if (this.#byNumber.get(held.n) !== held) return
    held.children -= 1
    if (held.children > 0) return
    this.#running += 1
    held.link.active += 1
  }
}

function traceOf(held: Held, spanId: string | null): string | null {
  const context = held.span?.context ?? null
  return context === null ? null : traceparent({ ...context, spanId: spanId ?? context.spanId })
}
