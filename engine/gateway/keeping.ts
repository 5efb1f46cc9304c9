/** Keeps what is in memory and what is in the broker the same: locks, counts, answers that were lost, and a start over what another gateway left. */
import { LEASE_MS } from '../../spec/protocol.ts'
import type { ActiveTask, Execution, TaskRef } from '../broker/port.ts'
import type { Queue } from './book.ts'
import type { Dealer, Desk } from './desk.ts'
import { parseHolder, type Session } from './replicas.ts'
import type { Schedule } from './schedule.ts'
import type { Settling } from './settling.ts'
import { decodeTask, type Lease, type Task } from './work.ts'

const EXTEND_MS = 15_000
/** Looks at the queues' lengths, should a wake-up ever be missed, and at the locks when the numbers differ. */
const SAFETY_MS = 1_000
/** Numbers differ for a moment whenever an answer is on its way. */
const DIFFERED = 3
/** An agent that was told to stop and does not settle: the task ends without it. The runtime needs 5 s for SIGTERM, then SIGKILL. */
const CANCEL_GRACE_MS = 10_000

/** Agents that could not be heard tell their ends before deadlines that passed meanwhile are looked at: they connect again within a second. */
const SPARE_MS = 3_000

export class Keeping {
  readonly #desk: Desk
  readonly #dealer: Dealer
  readonly #settling: Settling
  readonly #schedule: Schedule
  readonly #timers: readonly NodeJS.Timeout[]

  constructor(desk: Desk, dealer: Dealer, settling: Settling, schedule: Schedule) {
    this.#desk = desk
    this.#dealer = dealer
    this.#settling = settling
    this.#schedule = schedule
    this.#timers = [
      setInterval(() => {
        if (!this.#isIdle) desk.book.turnPage()
        void this.#extend()
      }, EXTEND_MS),
      setInterval(() => void this.#look(), SAFETY_MS),
    ]
  }

  /** At the start: what waits and what is held, from the broker. Sessions have the grace to come back. */
  async adopt(names: Iterable<string>): Promise<readonly Task[]> {
    const { book, broker, replicas } = this.#desk
    book.clear()
    this.#schedule.clear()
    const orphans: (TaskRef & { readonly holder: string | null })[] = []
    const held: { readonly queue: Queue; readonly session: Session; readonly active: Execution }[] = []
    const track = (id: string, name: string, data: string, epoch = 0): void => {
      const task = decodeTask(id, name, data)
      if (task === null) return
      if (epoch > 0) task.epoch = epoch
      book.put(task)
    }
    for (const name of names) {
      const queue = book.queue(name)
      const waiting = await broker.waiting(name)
      for (const { id, data, epoch } of waiting) track(id, name, data, epoch)
      queue.waiting = waiting.length
      for (const active of await broker.active(name)) {
        track(active.id, name, active.data, active.epoch)
        const holder = parseHolder(active.holder)
        if (holder === null || holder.identity.agent !== name) orphans.push({ queue: name, id: active.id, holder: active.holder })
        else held.push({ queue, session: replicas.adopt(holder.identity, holder.session), active })
      }
      await this.#schedule.adopt(name, track)
    }
    for (const { parent } of book.tasks.values()) {
      const above = parent === null ? undefined : book.tasks.get(parent)
      if (above !== undefined) above.children += 1
    }
    this.#schedule.adopted()
    for (const { queue, session, active } of held) {
      const lease = book.hold(session, queue, active)
      if (lease === null) continue
      lease.delivered = Date.now()
      lease.doubtful = true
      if (session.dead) void this.#settling.give(lease, true)
    }
    for (const { queue, id, holder } of orphans) if (await broker.requeue(queue, id, holder)) book.queue(queue).waiting += 1
    this.#schedule.resume()
    for (const task of book.tasks.values()) this.#desk.deadlines.watch(task)
    this.#desk.deadlines.spare(SPARE_MS)
    this.#desk.adopted = true
    return [...book.tasks.values()]
  }

  /** After a reconnect: locks first, then what was locked for a session while the answer was lost. */
  async resync(): Promise<void> {
    if (!this.#desk.adopted) return
    this.#desk.deadlines.spare(SPARE_MS)
    await this.#extend()
    await this.#look()
    for (const queue of this.#desk.book.queues.values()) await this.#sweep(queue)
    for (const queue of this.#desk.book.queues.values()) this.#dealer.deal(queue)
  }

  get #isIdle(): boolean {
    return !this.#desk.broker.connected || !this.#desk.adopted || this.#desk.closing
  }

  async #extend(): Promise<void> {
    if (this.#isIdle) return
    const byQueue = Map.groupBy(this.#desk.book.leases.values(), (lease) => lease.task.agent)
    const extendAll = [...byQueue].map(async ([name, leases]) => {
      try {
        await this.#extendQueue(name, leases)
      } catch (error) {
        this.#desk.log(`locks of ${name}: ${String(error)}`)
      }
    })
    await Promise.all(extendAll)
  }

  async #extendQueue(name: string, leases: readonly Lease[]): Promise<void> {
    const { book, broker, log } = this.#desk
    const locks = leases.map((lease) => ({ id: lease.task.id, token: lease.holder }))
    const failed = new Set(await broker.extend(name, locks))
    for (const lease of leases) {
      if (!failed.has(lease.task.id) || book.leases.get(lease.token) !== lease || lease.settling !== null) continue
      // Expired while the broker was away: the task is still ours, as nobody else takes tasks from the active list.
      if (await broker.relock(name, lease.task.id, lease.holder)) continue
      log(`task ${lease.task.id}: another holds its lock`)
      book.release(lease)
    }
  }

  async #look(): Promise<void> {
    if (this.#isIdle) return
    const { book, broker } = this.#desk
    const now = Date.now()
    this.#desk.audit.look(now)
    for (const lease of [...book.leases.values()]) {
      if (lease.settling !== null) continue
      if (lease.cancel !== null && now - lease.cancel.at > CANCEL_GRACE_MS) this.#unheard(lease)
      else if (lease.session.id === '' && now - lease.heard > LEASE_MS) void this.#settling.give(lease, true)
    }
    const queues = [...book.queues.values()]
    const lengths = await broker.lengths(queues.map((it) => it.name)).catch(() => null)
    queues.forEach((queue, index) => {
      const length = lengths?.[index]
      if (length === undefined) return
      if (queue.fetching === 0) queue.waiting = length.waiting
      queue.differed = length.active === queue.active ? 0 : queue.differed + 1
      if (queue.differed >= DIFFERED) void this.#sweep(queue).catch(() => {})
      this.#dealer.deal(queue)
    })
  }

  /** It was told to stop, and has not. What was silent before is not worth more work. */
  #unheard(lease: Lease): void {
    const why = lease.cancel?.why ?? null
    if (why?.kind === 'heartbeat') this.#settling.replace(lease, why.error.message)
    void this.#settling.give(lease, false)
  }

  /** Finds tasks that are locked for a session (or for nobody) without a lease here: a fetch whose answer was lost. */
  async #sweep(queue: Queue): Promise<void> {
    const { book, broker } = this.#desk
    queue.differed = 0
    for (const active of await broker.active(queue.name)) {
      const task = book.tasks.get(active.id)
      if ((task !== undefined && task.lease !== null) || book.hasEnded(active.id)) continue
      const session = this.#sessionOf(active, queue)
      if (session !== null) this.#found(session, queue, active)
      else if (await broker.requeue(queue.name, active.id, active.holder)) {
        const unknown = book.tasks.has(active.id) || book.hasEnded(active.id) ? null : decodeTask(active.id, queue.name, active.data)
        if (unknown !== null) book.track(unknown)
        queue.waiting += 1
        this.#dealer.deal(queue)
      }
    }
  }

  /** The living session that the lock names. */
  #sessionOf(active: ActiveTask, queue: Queue): Session | null {
    const holder = parseHolder(active.holder)
    if (holder === null || holder.session === '' || holder.identity.agent !== queue.name) return null
    const { session } = this.#desk.replicas.of(holder.identity)
    return session !== null && session.id === holder.session && !session.dead ? session : null
  }

  #found(session: Session, queue: Queue, active: Execution): void {
    const lease = this.#desk.book.hold(session, queue, active)
    if (lease === null) return
    if (this.#desk.open(lease.task.run)) {
      session.undelivered.add(lease)
      this.#dealer.wake(session)
    } else {
      lease.cancel = { at: 0, told: true, why: null }
      void this.#settling.give(lease, false)
    }
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer)
  }
}
