/** Hands tasks to replicas and takes their results: the one door to its parts (book, dealing, settling, keeping). */
import type { Socket } from 'node:net'
import type { LeasedTask, Settled, Settlement } from '../../spec/protocol.ts'
import type { NewTask } from '../broker/port.ts'
import { hearBeat, toCancel } from './beats.ts'
import { Book, type Queue } from './book.ts'
import { Dealing, takeUndelivered } from './dealing.ts'
import type { Desk, DispatcherOptions } from './desk.ts'
import { Keeping } from './keeping.ts'
import { type Replica, Replicas, type Session } from './replicas.ts'
import { type SettleResult, Settling } from './settling.ts'
import type { Done, LeaseCall } from './validate.ts'
import type { Lease, Task } from './work.ts'

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

  constructor(options: DispatcherOptions) {
    const { broker, key, agent } = options
    this.replicas = new Replicas(
      (session, death) => this.#settling.sessionDied(session, death),
      () => !broker.connected,
    )
    const book = new Book(key, (name) => agent(name)?.concurrency ?? 0)
    this.#desk = { ...options, book, replicas: this.replicas, adopted: false, closing: false }
    this.#settling = new Settling(this.#desk, () => this.#dealing)
    this.#dealing = new Dealing(this.#desk, (lease) => void this.#settling.give(lease, false))
    this.#keeping = new Keeping(this.#desk, this.#dealing, this.#settling)
  }

  task(id: string): Task | undefined {
    return this.#desk.book.tasks.get(id)
  }

  /** Put tasks into their queues; those that exist stay as they are. */
  async add(tasks: readonly { readonly task: Task; readonly data: string }[]): Promise<void> {
    const { book, broker, events } = this.#desk
    const fresh: (NewTask & { readonly task: Task })[] = []
    for (const { task, data } of tasks) {
      if (book.tasks.has(task.id)) continue
      const parked = book.track(task)
      if (parked !== null) this.#dealing.deal(book.queue(parked.task.agent))
      fresh.push({ queue: task.agent, id: task.id, data, task })
    }
    try {
      await broker.add(fresh)
    } catch (error) {
      // Some may be there: whoever adds them again finds out, and the look at the queues finds those that wait.
      for (const { task } of fresh) if (task.lease === null) book.untrack(task)
      throw error
    }
    const touched = new Set<Queue>()
    for (const { task } of fresh) {
      const queue = book.queue(task.agent)
      queue.waiting += 1
      touched.add(queue)
      events.add(task, 'queued')
    }
    for (const queue of touched) this.#dealing.deal(queue)
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
    try {
      const before = leases.length
      const settled = call.done.length === 0 ? [] : await this.#settleAll(session, call.done, budget, leases)
      const left = Math.min(budget - (leases.length - before), book.capacity(replica))
      if (left > 0) leases.push(...(await this.#dealing.take(session, left)))
      const cancel = toCancel(session, lost)
      if (leases.length > 0 || settled.length > 0 || cancel.fresh || call.wait_ms === 0) return { leases, settled, cancel: cancel.leases }
      const later = await this.#dealing.wait(session, call.want, call.wait_ms, signal)
      return { leases: later, settled, cancel: toCancel(session, lost).leases }
    } catch (error) {
      this.undelivered(leases)
      throw error
    }
  }

  /** Each settlement brings the queue's next task in the same script, as many as there are slots for; they are put into `leases`. */
  async #settleAll(session: Session, done: readonly Done[], budget: number, leases: Lease[]): Promise<Settled[]> {
    const { replica } = session
    let next = budget
    replica.fetching += budget
    const results = await Promise.allSettled(
      done.map(({ lease, settlement }) => this.#settling.settle(session, lease, settlement, next-- > 0)),
    )
    replica.fetching -= budget
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
      deadline: null,
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
    this.#keeping.close()
    for (const queue of this.#desk.book.queues.values()) for (const waiter of [...queue.waiters]) waiter.answer([])
    this.#desk.book.tellAll()
  }
}
