/** Hands tasks to replicas and takes their results: the one door to its parts (book, dealing, settling, keeping). */
import type { Socket } from 'node:net'
import type { Agent, Timeouts } from '../../spec/model.ts'
import { type LeasedTask, MAX_WAIT_MS, type ProgressRequest, type Settled, type Settlement } from '../../spec/protocol.ts'
import { ADD_CHUNK, isPlain } from '../broker/port.ts'
import { noteLog } from './attempts.ts'
import { Audit } from './audit.ts'
import { hearBeat, toCancel } from './beats.ts'
import { Book, type Queue } from './book.ts'
import { Dealing, takeUndelivered } from './dealing.ts'
import { deadlineOf, Deadlines, limitsOf } from './deadlines.ts'
import type { Desk, DispatcherOptions } from './desk.ts'
import { Keeping } from './keeping.ts'
import { Limits } from './limits.ts'
import { type Replica, Replicas, type Session } from './replicas.ts'
import { Schedule } from './schedule.ts'
import { type SettleResult, Settling } from './settling.ts'
import { notePercent, noteStep } from './stall.ts'
import type { Done, LeaseCall } from './validate.ts'
import { type Reason, whyWaiting } from './why.ts'
import { isInLine, type Lease, type Task } from './work.ts'

export interface LeaseOutcome {
  readonly leases: readonly Lease[]
  readonly settled: readonly Settled[]
  readonly cancel: readonly string[]
}

export class Dispatcher {
  readonly replicas: Replicas
  readonly #desk: Desk
  readonly #dealing: Dealing
  readonly #settling: Settling
  readonly #keeping: Keeping
  readonly #limits: Limits
  readonly #schedule: Schedule
  /** Told to be queued, and refused by the broker: they are added again. */
  readonly #told = new WeakSet<Task>()

  constructor(options: DispatcherOptions) {
    const { broker, key, agent } = options
    this.replicas = new Replicas(
      (session, death) => this.#settling.sessionDied(session, death),
      () => !broker.connected,
      options.guarded,
    )
    const book = new Book(
      key,
      (name) => agent(name)?.concurrency ?? 0,
      (name) => windowOf(agent(name), this.replicas),
    )
    const limits = (task: Task): Timeouts | null => {
      const found = limitsOf(agent(task.agent)?.work.timeouts, task)
      return found === null || book.tasks.get(task.id) !== task ? null : found
    }
    const deadlines = new Deadlines({
      limits,
      expired: (task, expiry) => this.#settling.expired(task, expiry),
      paused: () => !broker.connected,
    })
    const audit = new Audit(options.log)
    this.#desk = { ...options, book, replicas: this.replicas, deadlines, audit, limits, adopted: false, closing: false }
    this.#settling = new Settling(this.#desk, () => this.#dealing)
    this.#limits = new Limits({ book, agent, project: options.concurrency })
    this.#schedule = new Schedule(this.#desk, (queue) => this.#dealing.deal(queue))
    this.#dealing = new Dealing(
      this.#desk,
      this.#limits,
      (lease) => void this.#settling.give(lease, false),
      (task, delay_ms) => this.#schedule.later(task, delay_ms),
    )
    this.#keeping = new Keeping(this.#desk, this.#dealing, this.#settling, this.#schedule)
    book.made = (queue) => this.#schedule.made(queue.name)
    book.freed = () => this.#dealing.goRound()
    book.turned = () => this.#schedule.soon()
  }

  task(id: string): Task | undefined {
    return this.#desk.book.tasks.get(id)
  }

  /** Tasks of the agent that have not ended. */
  unfinished(agent: string): number {
    return this.#desk.book.queues.get(agent)?.tasks ?? 0
  }
  get allUnfinished(): number {
    return this.#desk.book.tasks.size
  }

  /** Put tasks into their queues; those that exist stay as they are. One whose `created` is to come is delayed until then. */
  async add(tasks: readonly { readonly task: Task; readonly data: string }[]): Promise<void> {
    const { book, broker } = this.#desk
    const fresh: { readonly task: Task; readonly data: string }[] = []
    for (const it of tasks) {
      if (book.tasks.has(it.task.id)) continue
      const parked = book.track(it.task)
      if (parked !== null) this.#dealing.deal(book.queue(parked.task.agent))
      fresh.push(it)
    }
    let placed = fresh
    let at = 0
    let areSent = false
    try {
      const ordering = this.#schedule.order(fresh)
      if (ordering !== null) await ordering
      placed = fresh.filter(({ task }) => book.tasks.get(task.id) === task)
      const tasks = placed.map(({ task, data }) => this.#schedule.place(task, data))
      // What is fetched from here on is fetched behind them: nobody waits for the answer first.
      areSent = placed.length <= ADD_CHUNK && tasks.every(isPlain)
      const landed = (count: number): void => {
        const part = placed.slice(at, at + count)
        at += count
        if (areSent) this.#arrived(part)
        else this.#queued(part)
      }
      const adding = this.#schedule.adding(broker.add(tasks, landed))
      if (areSent) this.#queued(placed)
      await adding
    } catch (error) {
      // Some may be there: whoever adds them again finds out, and the look at the queues finds those that wait.
      for (const { task } of placed.slice(at)) {
        if (task.lease !== null || !book.untrack(task) || !areSent) continue
        // Counted and told already, for nothing.
        const queue = book.queue(task.agent)
        queue.waiting = Math.max(0, queue.waiting - 1)
        this.#told.add(task)
      }
      throw error
    }
  }

  /** They are in their queues, or will be before whatever is sent next. */
  #queued(part: readonly { readonly task: Task }[]): void {
    const { book, deadlines, events } = this.#desk
    const touched = new Set<Queue>()
    for (const { task } of part) {
      // Cancelled meanwhile, or fetched and ended already.
      if (book.tasks.get(task.id) !== task) continue
      const queue = book.queue(task.agent)
      if (this.#schedule.added(task)) queue.waiting += 1
      touched.add(queue)
      if (!this.#told.delete(task)) events.add(task, 'queued')
      deadlines.watch(task)
    }
    this.#schedule.turns()
    for (const queue of touched) this.#dealing.deal(queue)
  }

  /** The broker says so. A fetch that overtook them (a Redis that had to be given the script first) took the queue for empty. */
  #arrived(part: readonly { readonly task: Task }[]): void {
    const { book } = this.#desk
    const there = new Map<Queue, number>()
    for (const { task } of part)
      if (book.tasks.get(task.id) === task && isInLine(task)) {
        const queue = book.queue(task.agent)
        there.set(queue, (there.get(queue) ?? 0) + 1)
      }
    for (const [queue, count] of there) {
      queue.waiting = Math.max(queue.waiting, count)
      this.#dealing.deal(queue)
    }
  }

  /** It stands in its queue's line, and was not seen when that was read: the look at the lengths counts it. */
  found(task: Task): void {
    const { book } = this.#desk
    if (!book.tasks.has(task.id) && !book.hasEnded(task.id)) book.track(task)
  }

  /** What the controller found of a replica's posture. */
  prove(agent: string, replica: number, proved: boolean): void {
    if (this.replicas.prove({ agent, replica }, proved)) this.#dealing.deal(this.#desk.book.queue(agent))
  }

  /** What keeps a task that has not ended, most immediate first; empty: nothing is known of it. */
  whyWaiting(id: string): Promise<readonly Reason[]> {
    return whyWaiting({ desk: this.#desk, limits: this.#limits }, id)
  }

  /** Until the task has ended, or the time is over. */
  whenEnded(id: string, ms: number, signal: AbortSignal): Promise<void> {
    return this.#desk.book.whenEnded(id, ms, signal)
  }

  /** It waits for something that is no child. */
  park(task: Task): void {
    const lease = this.#desk.book.park(task)
    if (lease !== null) this.#dealing.deal(this.#desk.book.queue(task.agent))
  }

  unpark(task: Task): void {
    this.#desk.book.unpark(task)
  }

  /** Of a run that is over. */
  cancel(tasks: readonly string[]): Promise<void> {
    return this.#settling.cancel(tasks)
  }

  /** A lease of this replica that is alive. */
  held(replica: Replica, token: string): Lease | null {
    return this.#desk.book.held(replica, token)
  }

  /** A request that names a lease which its sender does not hold: it is written down. */
  refused(session: Session, token: string, action: string): void {
    this.#settling.refused(session, token, action, false)
  }

  /** What an execution says of its work: a sign that there is some, or that it goes round in a circle. */
  progress(lease: Lease, { message, percent, step }: Omit<ProgressRequest, 'lease'>): void {
    lease.sign = Date.now()
    if (message !== undefined) noteLog(lease, message)
    if (percent !== undefined) notePercent(lease, percent)
    const policy = step === undefined ? undefined : this.#desk.agent(lease.task.agent)?.work.stall
    const stalled = step === undefined || policy === undefined ? null : noteStep(lease, step, policy)
    if (stalled !== null) this.#settling.stalled(lease, stalled)
  }

  settle(session: Session, settlement: Settlement): Promise<SettleResult> {
    return this.#settling.settle(session, settlement.lease, settlement, false)
  }

  /** One lease request: beat, settle, take. Resolves when there is something to say or the time is over. */
  async lease(session: Session, call: LeaseCall, signal: AbortSignal): Promise<LeaseOutcome> {
    const { book } = this.#desk
    const { replica } = session
    const lost = hearBeat(book, session, call)
    const leases = takeUndelivered(session, call.want)
    const releasing = call.done.reduce((count, { lease }) => count + (book.occupies(lease, replica) ? 1 : 0), 0)
    const budget = Math.max(0, Math.min(call.want - leases.length, book.capacity(replica) + releasing))
    const queue = book.queue(replica.agent)
    try {
      const before = leases.length
      const settled =
        call.done.length === 0
          ? []
          : await this.#settleAll(session, call.done, Math.min(budget, this.#limits.swaps(queue, releasing)), releasing, leases)
      const left = Math.min(budget - (leases.length - before), book.capacity(replica))
      // With others in front of it, it waits for its turn.
      if (left > 0 && (call.wait_ms === 0 || !this.#limits.isContended(queue))) leases.push(...(await this.#dealing.take(session, left)))
      const cancel = toCancel(session, lost)
      if (leases.length > 0 || settled.length > 0 || cancel.fresh || call.wait_ms === 0) return { leases, settled, cancel: cancel.leases }
      const later = await this.#dealing.wait(session, call.want, this.#hold(session, call.wait_ms), signal)
      return { leases: later, settled, cancel: toCancel(session, lost).leases }
    } catch (error) {
      this.undelivered(leases)
      throw error
    }
  }

  /** A session with nothing in hand is asked for life only when its request is over; with the longest wait it leaves the time to us. */
  #hold(session: Session, wait_ms: number): number {
    if (session.id === '' || session.leases.size > 0) return Math.min(wait_ms, MAX_WAIT_MS)
    session.hold = wait_ms < MAX_WAIT_MS ? wait_ms : Math.min(wait_ms, this.replicas.hold_ms)
    return session.hold
  }

  /** Each settlement brings the queue's next task in the same script, as many as there are slots for; they are put into `leases`. */
  async #settleAll(session: Session, done: readonly Done[], budget: number, releasing: number, leases: Lease[]): Promise<Settled[]> {
    const { replica } = session
    const { book } = this.#desk
    const limited = this.#limits.isLimited(book.queue(replica.agent))
    let next = budget
    // What these ends free is counted as taken until they are in the broker; another request of this replica must not count it twice.
    const reserved = Math.max(0, budget - releasing)
    replica.fetching += reserved
    const results = await Promise.allSettled(
      done.map(({ lease, settlement }) => {
        // Under a limit only the end of one that runs makes place for another.
        const takes = next > 0 && (!limited || book.occupies(lease, replica))
        if (takes) next -= 1
        return this.#settling.settle(session, lease, settlement, takes)
      }),
    )
    replica.fetching -= reserved
    for (const result of results) if (result.status === 'fulfilled' && result.value.next !== null) leases.push(result.value.next)
    return results.map((result, index) => {
      if (result.status === 'rejected') throw result.reason
      const { ok, code } = result.value
      return { lease: done[index]?.lease ?? '', ok, ...(code === undefined ? {} : { code }) }
    })
  }

  /** The answer with these leases has gone out on this socket. */
  delivered(session: Session, leases: readonly Lease[], socket: Socket): void {
    if (leases.length === 0) return
    const now = Date.now()
    for (const lease of leases) lease.delivered = now
    if (session.id !== '') session.unconfirmed.set(socket, leases)
  }

  /** It has not: the session's next request gets them. */
  undelivered(leases: readonly Lease[]): void {
    this.#dealing.undelivered(leases)
  }

  /** As JSON text: the input is passed on as it is. */
  view(lease: Lease): string {
    const { task } = lease
    const head: Omit<LeasedTask, 'input'> = {
      lease: lease.token,
      id: task.id,
      run: task.run,
      agent: task.agent,
      type: task.type,
      attempt: lease.epoch,
      deadline: deadlineOf(lease, this.#desk.limits(task)),
      traceparent: this.#desk.tracing.process(task, lease.epoch),
    }
    return `${JSON.stringify(head).slice(0, -1)},"input":${lease.input}}`
  }

  adopt(queues: Iterable<string>): Promise<readonly Task[]> {
    return this.#keeping.adopt(queues)
  }

  resync(): Promise<void> {
    return this.#keeping.resync()
  }

  /** Answers everyone who waits; leases stay as they are, for the next gateway. */
  close(): void {
    this.#desk.closing = true
    this.replicas.close()
    this.#desk.deadlines.close()
    this.#keeping.close()
    this.#schedule.close()
    this.#dealing.close()
    for (const queue of this.#desk.book.queues.values()) for (const waiter of [...queue.waiters]) waiter.answer([])
    this.#desk.book.tellAll()
  }
}

/** Tasks with the same key that have their turn at once: the cap, or as many as there are slots. */
function windowOf(agent: Agent | null, replicas: Replicas): number {
  if (agent === null || agent.work.key === null) return Number.POSITIVE_INFINITY
  return agent.work.per_key ?? Math.max(1, agent.concurrency * Math.max(1, replicas.count(agent.name)))
}
