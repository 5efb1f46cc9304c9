/** How executions end: settled by their agent, cancelled, or taken from an agent that is gone. What is told as settled, the broker has. */
import { MAX_DEATHS, MAX_PAYLOAD_BYTES, type Settlement, type WorkStatus } from '../../spec/protocol.ts'
import type { Ended } from '../broker/port.ts'
import { verifyLease } from '../tokens.ts'
import type { Dealer, Desk } from './desk.ts'
import type { Death, Session } from './replicas.ts'
import { CANCELLED, type Failure, type Lease, type Task } from './work.ts'

const MAX_ATTEMPTS = 3
/** Executions that ended because the agent was stopped in order are not counted up to here. */
const MAX_STOPS = 50

export interface SettleResult {
  readonly ok: boolean
  readonly code?: 'bad_request' | 'lease_lost' | 'payload_too_large'
  /** The queue's next task, taken in the same script. */
  readonly next: Lease | null
}
type Fetched = { readonly ok: boolean; readonly fetched: Lease | null }

const LOST: SettleResult = { ok: false, code: 'lease_lost', next: null }
const DONE: SettleResult = { ok: true, next: null }

export class Settling {
  readonly #desk: Desk
  readonly #dealer: () => Dealer

  constructor(desk: Desk, dealer: () => Dealer) {
    this.#desk = desk
    this.#dealer = dealer
  }

  /** `next`: take the queue's next task too, if the settlement ends the task. */
  async settle(session: Session, token: string, settlement: Settlement | null, next: boolean): Promise<SettleResult> {
    const lease = this.#desk.book.held(session.replica, token)
    if (settlement === null) return { ok: false, code: 'bad_request', next: null }
    if (lease === null) return (await this.#settledBefore(session, token)) ? DONE : LOST
    const result = settlement.status === 'completed' ? JSON.stringify(settlement.result) : ''
    if (Buffer.byteLength(result) > MAX_PAYLOAD_BYTES) return { ok: false, code: 'payload_too_large', next: null }
    // A repeated settlement, while the first is still on its way to the broker.
    if (lease.settling !== null) return (await lease.settling) ? DONE : LOST
    const settling = Promise.withResolvers<boolean>()
    lease.settling = settling.promise
    settling.promise.catch(() => {})
    try {
      const { ok, fetched } = await this.#settle(lease, settlement, result, next)
      settling.resolve(ok)
      return ok ? { ok, next: fetched } : LOST
    } catch (error) {
      settling.reject(error)
      lease.settling = null
      if (lease.session.dead) void this.give(lease, false)
      throw error
    }
  }

  async #settle(lease: Lease, settlement: Settlement, result: string, next: boolean): Promise<Fetched> {
    const { broker } = this.#desk
    const { task, holder } = lease
    const fail = (failure: Failure): Promise<Ended> => broker.fail(task.agent, task.id, holder, JSON.stringify(failure), next)
    if (lease.cancel !== null) return this.#end(lease, 'cancelled', await fail(CANCELLED))
    if (settlement.status === 'completed')
      return this.#end(lease, 'completed', await broker.complete(task.agent, task.id, holder, result, next))
    const { code, message, retryable } = settlement.error
    if (retryable === true && (await this.#mayRetry(lease, code)))
      return { ok: await this.#back(lease, code, `${code}: ${message}`), fetched: null }
    return this.#end(lease, 'failed', await fail({ status: 'failed', error: { code, message } }), code)
  }

  async #mayRetry({ task, epoch }: Lease, code: string): Promise<boolean> {
    // An orderly stop of the agent is nobody's failure.
    if (code === 'agent_stopped' && epoch < MAX_STOPS) return true
    return (await this.#desk.broker.countFailure({ queue: task.agent, id: task.id }, epoch)) < MAX_ATTEMPTS
  }

  /** The broker has ended it, now or (the same script sent again after a reconnect) already before. */
  async #end(lease: Lease, status: WorkStatus, ended: Ended, error?: string): Promise<Fetched> {
    const { book, tracing, log } = this.#desk
    const { task, session } = lease
    const ok = ended.ok || (await this.#endedAt(task, lease.epoch))
    book.release(lease)
    if (!ok) {
      log(`task ${task.id}: the lock of execution ${lease.epoch} is gone`)
      return { ok, fetched: null }
    }
    tracing.processed(task, lease.epoch, lease.replica, lease.since, status, error ?? null)
    this.#forget(task, status)
    const queue = book.queue(task.agent)
    const fetched = ended.ok && ended.next !== null ? this.#dealer().register(session, queue, ended.next) : null
    if (queue.waiters.length > 0) this.#dealer().deal(queue)
    return { ok, fetched }
  }

  async #endedAt(task: Task, epoch: number): Promise<boolean> {
    const [state] = await this.#desk.broker.read([{ queue: task.agent, id: task.id }])
    return state?.finished === true && state.epoch === epoch
  }

  /** A lease that is not held: was it this lease's own settlement that ended it, and only the answer was lost? */
  async #settledBefore(session: Session, token: string): Promise<boolean> {
    const lease = verifyLease(this.#desk.key, session.holder, token)
    if (lease === null) return false
    const [state] = await this.#desk.broker.read([{ queue: session.replica.agent, id: lease.id }])
    if (state === undefined || state === null) return false
    const isDead = state.failure?.startsWith('{"status":"dead"') === true
    return (state.finished && state.epoch === lease.epoch && !isDead) || state.retried === lease.epoch
  }

  /** Back to the queue; `code` is for the trace, `why` for people. */
  async #back(lease: Lease, code: string, why: string): Promise<boolean> {
    const { book, broker, events, open, tracing } = this.#desk
    const { task } = lease
    const ok = await broker.requeue(task.agent, task.id, lease.holder)
    tracing.processed(task, lease.epoch, lease.replica, lease.since, 'queued', code)
    book.release(lease)
    if (task.lease === lease) task.lease = null
    events.add(task, 'requeued', why)
    const queue = book.queue(task.agent)
    queue.waiting += 1
    if (open(task.run)) this.#dealer().deal(queue)
    else await this.cancel([task.id])
    return ok
  }

  #forget(task: Task, status: WorkStatus): void {
    if (!this.#desk.book.forget(task)) return
    this.#desk.events.add(task, status)
    this.#desk.ended(task, status)
    this.#desk.book.tellEnded(task.id)
  }

  /** Ends tasks of a run that is over: those that wait at once, those that run as soon as their agent has let go. */
  async cancel(ids: readonly string[]): Promise<void> {
    const { book, broker } = this.#desk
    const waiting: Task[] = []
    const sessions = new Set<Session>()
    for (const id of ids) {
      const task = book.tasks.get(id)
      // One that has ended must stay: its job is its result.
      if (task === undefined) continue
      if (task.lease === null) waiting.push(task)
      else if (task.lease.cancel === null) {
        task.lease.cancel = { at: Date.now(), told: false, why: null }
        sessions.add(task.lease.session)
      }
    }
    for (const session of sessions) this.#dealer().wake(session)
    if (waiting.length > 0) await broker.remove(waiting.map((task) => ({ queue: task.agent, id: task.id })))
    for (const task of waiting) {
      // Fetched meanwhile: it is ended where the fetch arrives.
      if (task.lease !== null || !book.tasks.has(task.id)) continue
      const queue = book.queue(task.agent)
      queue.waiting = Math.max(0, queue.waiting - 1)
      this.#forget(task, 'cancelled')
    }
  }

  sessionDied(session: Session, death: Death): void {
    const leases = [...session.leases]
    const { agent, replica } = session.replica
    for (const waiter of this.#desk.book.queue(agent).waiters.filter((it) => it.session === session)) waiter.answer([])
    if (leases.length > 0) this.#desk.log(`replica ${agent}.${replica}: session ${death}, ${leases.length} task(s) return to the queue`)
    // Absent: it may have died of the same cause as the gateway before.
    for (const lease of leases) if (lease.settling === null) void this.give(lease, death !== 'absent' && lease.delivered > 0)
  }

  /** Takes a lease from its holder. `died`: its agent died with it. */
  async give(lease: Lease, died: boolean): Promise<void> {
    const { book, broker, log } = this.#desk
    const { task } = lease
    book.release(lease)
    // Until the broker has it back, nobody may fetch it, or cancel it as waiting.
    task.lease = lease
    try {
      const deaths = died ? await broker.countDeath({ queue: task.agent, id: task.id }) : 0
      if (lease.cancel !== null) await this.#finish(lease, CANCELLED)
      else if (deaths >= MAX_DEATHS) {
        const message = `its agent died ${deaths} times while it worked on this task`
        await this.#finish(lease, { status: 'dead', error: { code: 'agent_died', message } })
      } else if (died) await this.#back(lease, 'agent_died', 'its agent died')
      else await this.#back(lease, 'agent_lost', 'its agent did not come back')
    } catch (error) {
      // The look at the locks finds it again.
      log(`task ${task.id}: ${String(error)}`)
    } finally {
      if (task.lease === lease) task.lease = null
    }
  }

  async #finish(lease: Lease, failure: Failure): Promise<void> {
    const { task } = lease
    await this.#desk.broker.fail(task.agent, task.id, lease.holder, JSON.stringify(failure), false)
    task.lease = null
    this.#desk.tracing.processed(task, lease.epoch, lease.replica, lease.since, failure.status, failure.error?.code ?? failure.status)
    this.#forget(task, failure.status)
  }
}
