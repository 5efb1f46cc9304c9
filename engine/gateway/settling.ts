/** How executions end: settled by their agent, cancelled, or taken from an agent that is gone. What is told as settled, the broker has. */
import { DEFAULT_WORK } from '../../spec/model.ts'
import { MAX_DEATHS, MAX_PAYLOAD_BYTES, type Settlement, type WorkError, type WorkStatus } from '../../spec/protocol.ts'
import type { Ended, TaskRef, TaskState } from '../broker/port.ts'
import { verifyLease } from '../tokens.ts'
import { attemptOf, parseAttempts } from './attempts.ts'
import { type Expiry, expiryOf } from './deadlines.ts'
import type { Dealer, Desk } from './desk.ts'
import type { Death, Session } from './replicas.ts'
import { isRetried, nextDelay } from './retry.ts'
import { runOf } from './run-record.ts'
import { CANCELLED, type Failure, isParked, type Lease, parseFailure, type Task } from './work.ts'

/** Executions that ended because the agent was stopped in order are not counted up to here. */
const MAX_STOPS = 50
/** Executions up to which a death is forgiven to tasks that were parked, or just delivered; beyond, dying like this is what the task does. */
const FORGIVEN_EXECUTIONS = 10
/** An agent stops at the deadline that it was told, by its own clock's timer. */
const TIMER_SLACK_MS = 50
/** Lock of a task that is ended while it waits. No replica has such a name. */
const NOBODY = '-'

export interface SettleResult {
  readonly ok: boolean
  readonly code?: 'bad_request' | 'lease_lost' | 'payload_too_large'
  /** The queue's next task, taken in the same script. */
  readonly next: Lease | null
}
type Fetched = { readonly ok: boolean; readonly fetched: Lease | null }

const LOST: SettleResult = { ok: false, code: 'lease_lost', next: null }
const DONE: SettleResult = { ok: true, next: null }
const STOPPED: WorkError = { code: 'agent_stopped', message: 'its replica was stopped' }
const DIED: WorkError = { code: 'agent_died', message: 'its agent died' }
const ABSENT: WorkError = { code: 'agent_lost', message: 'its agent did not come back' }

/** What ends an execution without its agent. */
const TAKEN: ReadonlySet<string> = new Set(['deadline', 'timeout', 'heartbeat_timeout'])

const refOf = ({ agent, id }: Task): TaskRef => ({ queue: agent, id })

export class Settling {
  readonly #desk: Desk
  readonly #dealer: () => Dealer
  /** Those that wait and are being ended by a deadline. */
  readonly #expiring = new Set<Task>()

  constructor(desk: Desk, dealer: () => Dealer) {
    this.#desk = desk
    this.#dealer = dealer
  }

  /** `next`: take the queue's next task too, if the settlement ends the task. */
  async settle(session: Session, token: string, settlement: Settlement | null, next: boolean): Promise<SettleResult> {
    const lease = this.#desk.book.held(session.replica, token)
    if (settlement === null) return { ok: false, code: 'bad_request', next: null }
    if (lease === null) return (await this.#settledBefore(session, token)) ? DONE : LOST
    lease.sign = Date.now()
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
    const { task, holder, cancel } = lease
    if (cancel !== null && cancel.why === null)
      return this.#end(
        lease,
        'cancelled',
        await this.#locked(lease, () => broker.fail(task.agent, task.id, holder, JSON.stringify(CANCELLED), next)),
      )
    if (cancel !== null && cancel.why !== null) return this.#failed(lease, cancel.why.error, cancel.why.final, next)
    if (settlement.status === 'completed')
      return this.#end(lease, 'completed', await this.#locked(lease, () => broker.complete(task.agent, task.id, holder, result, next)))
    const { error } = settlement
    // The agent stopped at its deadline, a moment before we looked.
    const limits = error.code === 'timeout' ? this.#desk.limits(task) : null
    const expiry = limits === null ? null : expiryOf(task, limits, Date.now() + TIMER_SLACK_MS)
    return expiry === null ? this.#failed(lease, error, false, next) : this.#failed(lease, expiry.error, expiry.final, next)
  }

  /** This execution has failed: the task is tried again later, or ends. */
  async #failed(lease: Lease, error: WorkError, final: boolean, next: boolean): Promise<Fetched> {
    const { broker } = this.#desk
    const { task, epoch, holder } = lease
    const { code, message } = error
    const record = JSON.stringify(attemptOf(lease, error, Date.now()))
    const back = async (delay: number): Promise<Fetched> => ({
      ok: await this.#back(lease, code, `${code}: ${message}`, delay),
      fetched: null,
    })
    // An orderly stop of the agent is nobody's failure.
    if (!final && code === 'agent_stopped' && error.retryable === true && epoch < MAX_STOPS) {
      await broker.recordAttempt(refOf(task), epoch, record)
      return back(0)
    }
    const policy = this.#desk.agent(task.agent)?.work.retry ?? DEFAULT_WORK.retry
    const failures = await broker.countFailure(refOf(task), epoch, record)
    const delay = final || !isRetried(policy, error) ? null : nextDelay(policy, failures, error.after_ms, Math.random())
    if (delay !== null) return back(delay)
    const failure = JSON.stringify({ status: 'failed', error: { code, message } } satisfies Failure)
    return this.#end(lease, 'failed', await this.#locked(lease, () => broker.fail(task.agent, task.id, holder, failure, next)), code)
  }

  /** A lock that expired while the broker was away is taken back: nobody else takes tasks from the active list. */
  async #locked({ task, holder }: Lease, end: () => Promise<Ended>): Promise<Ended> {
    const ended = await end()
    return ended.ok || !(await this.#desk.broker.relock(task.agent, task.id, holder)) ? ended : end()
  }

  /** The broker has ended it, now or (the same script sent again after a reconnect) already before. */
  async #end(lease: Lease, status: WorkStatus, ended: Ended, error?: string): Promise<Fetched> {
    const { book, tracing, log } = this.#desk
    const { task, session } = lease
    const ok = ended.ok || (await this.#endedAt(task, lease.epoch))
    book.release(lease)
    if (task.lease === lease) task.lease = null
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
    const ref = lease === null ? null : { queue: session.replica.agent, id: lease.id }
    const [state = null] = ref === null ? [] : await this.#desk.broker.read([ref])
    if (lease !== null && ref !== null && state !== null && (await this.#isOwnEnd(ref, state, lease.epoch))) return true
    this.refused(session, token, 'settle', state !== null)
    return false
  }

  async #isOwnEnd(ref: TaskRef, { finished, failure, epoch, retried }: TaskState, own: number): Promise<boolean> {
    if (finished && epoch === own) {
      const { status = null, error = null } = failure === null ? {} : parseFailure(failure)
      return status !== 'dead' && !TAKEN.has(error?.code ?? '')
    }
    if (retried !== own) return false
    const record = parseAttempts(await this.#desk.broker.readAttempts(ref)).find(({ attempt }) => attempt === own)
    return !TAKEN.has(record?.error.code ?? '')
  }

  /** An answer for a lease that its sender does not hold. `known`: its task is still in the broker. */
  refused(session: Session, token: string, action: string, known: boolean): void {
    const { audit, book, events, key, open } = this.#desk
    const { agent, replica } = session.replica
    const lease = verifyLease(key, session.holder, token)
    const task = lease?.id ?? null
    const kind = lease === null ? 'forged' : 'late'
    if (!audit.refused({ replica: `${agent}.${replica}`, action, kind, task, attempt: lease?.epoch ?? null }) || lease === null) return
    const run = runOf(lease.id)
    if (!known && !book.tasks.has(lease.id) && !open(run)) return
    const message = `${action} of execution ${lease.epoch} by replica ${agent}.${replica}: its lease is no longer good`
    events.add({ id: lease.id, agent, run, lease: { epoch: lease.epoch } }, 'refused', message)
  }

  /** Back to the queue, after a pause if there is one; `code` is for the trace, `why` for people. */
  async #back(lease: Lease, code: string, why: string, delay = 0): Promise<boolean> {
    const { book, broker, deadlines, events, open, tracing } = this.#desk
    const { task, holder } = lease
    const put = (): Promise<boolean> =>
      delay > 0
        ? broker.retryLater(task.agent, task.id, holder, delay, task.key !== undefined)
        : broker.requeue(task.agent, task.id, holder)
    // With a lock that has expired it would stay where it is, and be found there and begun again without the pause.
    const ok = (await put()) || ((await broker.relock(task.agent, task.id, holder)) && (await put()))
    tracing.processed(task, lease.epoch, lease.replica, lease.since, 'queued', code)
    events.add(task, 'requeued', delay > 0 ? `${why}; again in ${delay} ms` : why)
    book.release(lease)
    if (task.lease === lease) task.lease = null
    const queue = book.queue(task.agent)
    if (delay > 0) this.#dealer().later(task, delay)
    else queue.waiting += 1
    deadlines.watch(task)
    if (open(task.run)) this.#dealer().deal(queue)
    else await this.cancel([task.id])
    return ok
  }

  #forget(task: Task, status: WorkStatus): void {
    if (!this.#desk.book.forget(task)) return
    this.#desk.deadlines.forget(task)
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
      } else task.lease.cancel = { ...task.lease.cancel, why: null }
    }
    for (const session of sessions) this.#dealer().wake(session)
    if (waiting.length > 0) await broker.remove(waiting.map((task) => ({ queue: task.agent, id: task.id })))
    for (const task of waiting) {
      // Fetched meanwhile: it is ended where the fetch arrives.
      if (task.lease !== null || !book.tasks.has(task.id)) continue
      this.#dealer().left(task)
      this.#forget(task, 'cancelled')
    }
  }

  sessionDied(session: Session, death: Death): void {
    const leases = [...session.leases]
    const { agent, replica } = session.replica
    for (const waiter of this.#desk.book.queue(agent).waiters.filter((it) => it.session === session)) waiter.answer([])
    if (leases.length > 0) this.#desk.log(`replica ${agent}.${replica}: session ${death}, ${leases.length} task(s) return to the queue`)
    for (const lease of leases) {
      if (lease.settling !== null) continue
      // Absent: it may have died of the same cause as the gateway before. Silent since the delivery: it was frozen before.
      const isTried = lease.epoch > FORGIVEN_EXECUTIONS
      const worked = lease.delivered > 0 && death !== 'absent' && (death !== 'silent' || session.asked > lease.delivered || isTried)
      // A parked task worked on nothing: the cause is another of this replica, often its own child.
      const held = worked && (!isParked(lease.task) || isTried)
      void this.give(lease, held ? this.#isWanted(session) : false)
    }
  }

  /** A replica that was scaled away or stopped did not die of its work. */
  async #isWanted({ replica }: Session): Promise<boolean> {
    return await this.#desk.wanted(replica.agent, replica.replica).catch(() => true)
  }

  /** Takes a lease from its holder. `died`: its agent died with it, or is stalled (`reason`). */
  async give(lease: Lease, died: boolean | Promise<boolean>, reason?: WorkError): Promise<void> {
    const { book, broker, log } = this.#desk
    const { task, epoch } = lease
    book.release(lease)
    // Until the broker has it back, nobody may fetch it, or cancel it as waiting.
    task.lease = lease
    try {
      const counts = await died
      const { cancel } = lease
      if (cancel !== null && cancel.why === null) return await this.#finish(lease, CANCELLED)
      if (cancel !== null && cancel.why !== null) return void (await this.#failed(lease, cancel.why.error, cancel.why.final, false))
      const error = reason ?? (counts ? DIED : died === false ? ABSENT : STOPPED)
      const record = JSON.stringify(attemptOf(lease, error, Date.now()))
      const deaths = counts ? await broker.countDeath(refOf(task), epoch, record) : 0
      if (!counts && lease.delivered > 0) await broker.recordAttempt(refOf(task), epoch, record)
      if (deaths < MAX_DEATHS) return void (await this.#back(lease, error.code, error.message))
      const message =
        reason === undefined
          ? `its agent died ${deaths} times while it worked on this task`
          : `its agent died or was stalled ${deaths} times while it worked on this task, at last: ${reason.message}`
      await this.#finish(lease, { status: 'dead', error: { code: error.code, message } })
    } catch (error) {
      // The look at the locks finds it again.
      log(`task ${task.id}: ${String(error)}`)
    } finally {
      if (task.lease === lease) task.lease = null
    }
  }

  /** Motion without progress, or no end to it: the execution counts for nothing any more, and its replica is to be replaced. */
  stalled(lease: Lease, reason: string): void {
    const { book, events } = this.#desk
    if (book.leases.get(lease.token) !== lease || lease.settling !== null) return
    const error: WorkError = { code: 'agent_stalled', message: reason, retryable: true }
    events.add(lease.task, 'stalled', reason)
    this.replace(lease, reason)
    void this.give(lease, true, error)
  }

  /** The replica gets no more work until it has a new session, and its other tasks go to others. Without a session only the lease is known. */
  replace(lease: Lease, reason: string): void {
    const { log, replicas } = this.#desk
    const { session, task, replica } = lease
    log(`replica ${replica.agent}.${replica.replica} is stalled at task ${task.id}: ${reason}`)
    if (session.id === '' || session.dead) return
    replicas.stall(session, reason)
    const beside: WorkError = { code: 'agent_stalled', message: `its replica is stalled at another task: ${reason}` }
    for (const other of [...session.leases]) if (other !== lease && other.settling === null) void this.give(other, false, beside)
  }

  /** A deadline has passed. An execution gets the word to stop, and CANCEL_GRACE_MS for it; a task that waits ends here. */
  expired(task: Task, expiry: Expiry): void {
    const { events, log } = this.#desk
    const { lease } = task
    if (lease === null) {
      if (this.#expiring.has(task)) return
      this.#expiring.add(task)
      void this.#expire(task, expiry)
        .catch((error: unknown) => log(`task ${task.id}: ${String(error)}`))
        .finally(() => this.#expiring.delete(task))
    } else if (lease.settling === null && lease.cancel === null && this.#desk.book.leases.get(lease.token) === lease) {
      lease.cancel = { at: Date.now(), told: false, why: expiry }
      if (expiry.kind === 'heartbeat') events.add(task, 'stalled', expiry.error.message)
      this.#dealer().wake(lease.session)
    }
  }

  async #expire(task: Task, { error: { code, message } }: Expiry): Promise<void> {
    const { broker } = this.#desk
    // False: it is being fetched, and its deadline is looked at again then.
    if (!(await broker.seize(task.agent, task.id, NOBODY))) return
    const failure: Failure = { status: 'failed', error: { code, message } }
    const { ok } = await broker.fail(task.agent, task.id, NOBODY, JSON.stringify(failure), false)
    if (!ok || task.lease !== null) return
    this.#dealer().left(task)
    this.#forget(task, 'failed')
  }

  async #finish(lease: Lease, failure: Failure): Promise<void> {
    const { task } = lease
    await this.#locked(lease, () => this.#desk.broker.fail(task.agent, task.id, lease.holder, JSON.stringify(failure), false))
    task.lease = null
    this.#desk.tracing.processed(task, lease.epoch, lease.replica, lease.since, failure.status, failure.error?.code ?? failure.status)
    this.#forget(task, failure.status)
  }
}
