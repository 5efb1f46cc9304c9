/**
 * Hands tasks to replicas and takes their results. It holds every lease in memory and nothing that cannot be read again from the
 * broker's locks; what it tells an agent as settled, the broker has.
 */
import type { Socket } from 'node:net'
import { type LeasedTask, LEASE_MS, MAX_DEATHS, MAX_PAYLOAD_BYTES, type Settlement, type WorkStatus } from '../../spec/protocol.ts'
import type { Broker, Ended, Execution, NewTask } from '../broker/port.ts'
import type { Agent } from '../../spec/model.ts'
import { leaseToken, verifyLease } from '../tokens.ts'
import type { EventSink } from './events.ts'
import { parseHolder, type Death, type Replica, Replicas, type Session } from './replicas.ts'
import type { Tracing } from './tracing.ts'
import type { LeaseCall } from './validate.ts'
import { CANCELLED, decodeTask, type Failure, inputOf, type Lease, type Task } from './work.ts'

const MAX_ATTEMPTS = 3
/** Executions that ended because the agent was stopped in order are not counted up to here. */
const MAX_STOPS = 50
const EXTEND_MS = 15_000
/** Looks at the queues' lengths, should a wake-up ever be missed, and at the locks when the numbers differ. */
const SAFETY_MS = 1_000
/** An agent that was told to stop and does not settle: the task ends without it. The runtime needs 5 s for SIGTERM, then SIGKILL. */
const CANCEL_GRACE_MS = 10_000
/** A lease whose delivery is in doubt, and that its session's beats do not name for so many beats and so long, was never received. */
const MISSED_BEATS = 3
const MISSED_MS = 3_000

interface Waiter {
  readonly session: Session
  readonly want: number
  readonly resolve: (leases: readonly Lease[]) => void
}
interface Queue {
  readonly name: string
  /** How many tasks wait there; kept by counting, corrected by the safety look. */
  waiting: number
  fetching: number
  active: number
  waiters: Waiter[]
  differed: number
}

export interface DispatcherOptions {
  readonly broker: Broker
  readonly key: string
  readonly agent: (name: string) => Agent | null
  readonly tracing: Tracing
  readonly events: EventSink
  /** Is the run still open? A task of a closed run is not started. */
  readonly open: (run: string) => boolean
  /** A task has ended, in the broker too. */
  readonly ended: (task: Task, status: WorkStatus) => void
  readonly log: (message: string) => void
}

export interface SettleReply {
  readonly lease: string
  readonly ok: boolean
  readonly code?: string
}

export class Dispatcher {
  readonly #options: DispatcherOptions
  readonly #broker: Broker
  readonly #queues = new Map<string, Queue>()
  readonly #leases = new Map<string, Lease>()
  readonly #tasks = new Map<string, Task>()
  readonly #watchers = new Map<string, Set<() => void>>()
  readonly #timers: NodeJS.Timeout[]
  readonly replicas: Replicas
  #closing = false
  #adopted = false

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.#broker = options.broker
    this.replicas = new Replicas(
      (session, death) => this.#sessionDied(session, death),
      () => !this.#broker.connected,
    )
    this.#timers = [setInterval(() => void this.#extend(), EXTEND_MS), setInterval(() => void this.#safety(), SAFETY_MS)]
  }

  // ---- tasks ----

  task(id: string): Task | undefined {
    return this.#tasks.get(id)
  }

  /** Put tasks into their queues; those that exist stay as they are. */
  async add(tasks: readonly { readonly task: Task; readonly data: string }[]): Promise<void> {
    const fresh: NewTask[] = []
    for (const { task, data } of tasks) {
      if (this.#tasks.has(task.id)) continue
      this.#track(task)
      fresh.push({ queue: task.agent, id: task.id, data })
    }
    await this.#broker.add(fresh)
    const touched = new Set<Queue>()
    for (const { queue: name, id } of fresh) {
      const queue = this.#queue(name)
      queue.waiting += 1
      touched.add(queue)
      const task = this.#tasks.get(id)
      if (task !== undefined) this.#options.events.add(task, 'queued')
    }
    for (const queue of touched) this.#deal(queue)
  }

  #track(task: Task): void {
    this.#tasks.set(task.id, task)
    const parent = task.parent === null ? undefined : this.#tasks.get(task.parent)
    if (parent === undefined) return
    parent.children += 1
    if (parent.children === 1 && parent.lease !== null) {
      parent.lease.replica.parked += 1
      this.#deal(this.#queue(parent.lease.replica.agent))
    }
  }

  /** Until the task has ended, or the time is over. */
  whenEnded(id: string, ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#tasks.has(id) || ms <= 0) return Promise.resolve()
    return new Promise((resolve) => {
      const watchers = this.#watchers.get(id) ?? new Set()
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        watchers.delete(done)
        if (watchers.size === 0) this.#watchers.delete(id)
        resolve()
      }
      const timer = setTimeout(done, ms)
      signal.addEventListener('abort', done, { once: true })
      watchers.add(done)
      this.#watchers.set(id, watchers)
    })
  }

  /** Ends tasks of a run that is over: those that wait at once, those that run as soon as their agent has let go. */
  async cancel(tasks: Iterable<Task>): Promise<void> {
    const waiting: Task[] = []
    const sessions = new Set<Session>()
    for (const task of tasks) {
      if (task.lease === null) waiting.push(task)
      else if (task.lease.cancel === null) {
        task.lease.cancel = { at: Date.now(), told: false }
        sessions.add(task.lease.session)
      }
    }
    for (const session of sessions) this.#wake(session)
    await this.#broker.remove(waiting.map((task) => ({ queue: task.agent, id: task.id })))
    for (const task of waiting) {
      // Fetched meanwhile: it is ended where the fetch arrives.
      if (task.lease !== null || !this.#tasks.has(task.id)) continue
      const queue = this.#queue(task.agent)
      queue.waiting = Math.max(0, queue.waiting - 1)
      this.#forget(task, 'cancelled')
    }
  }

  #forget(task: Task, status: WorkStatus): void {
    if (!this.#tasks.delete(task.id)) return
    const parent = task.parent === null ? undefined : this.#tasks.get(task.parent)
    if (parent !== undefined) {
      parent.children -= 1
      if (parent.children === 0 && parent.lease !== null) parent.lease.replica.parked -= 1
    }
    this.#options.events.add(task, status)
    this.#options.ended(task, status)
    for (const watcher of this.#watchers.get(task.id) ?? []) watcher()
  }

  // ---- leases ----

  /** A lease of this replica that is alive (of whichever of its sessions). */
  held(replica: Replica, token: string): Lease | null {
    const lease = this.#leases.get(token)
    if (lease === undefined || lease.replica !== replica) return null
    lease.heard = Date.now()
    return lease
  }

  /** One lease request: settle, beat, take. Resolves when there is something to say or the time is over. */
  async lease(
    session: Session,
    call: LeaseCall,
    signal: AbortSignal,
  ): Promise<{ leases: readonly Lease[]; settled: readonly SettleReply[]; cancel: readonly string[] }> {
    const { replica } = session
    const lost = this.#beat(session, call)
    const releasing = call.done.reduce((count, { lease }) => count + (this.#occupies(lease, replica) ? 1 : 0), 0)
    const again = [...session.undelivered].slice(0, call.want)
    const budget = Math.max(0, Math.min(call.want - again.length, this.#capacity(replica) + releasing))
    const leases: Lease[] = again
    for (const lease of again) session.undelivered.delete(lease)

    const settled: SettleReply[] = new Array(call.done.length)
    if (call.done.length > 0) {
      let next = Math.min(budget, call.done.length)
      replica.fetching += budget
      await Promise.all(
        call.done.map(async ({ lease, settlement }, index) => {
          const reply = await this.settle(session, lease, settlement, next-- > 0)
          settled[index] = reply.code === undefined ? { lease, ok: reply.ok } : { lease, ok: reply.ok, code: reply.code }
          if (reply.next !== null) leases.push(reply.next)
        }),
      )
      replica.fetching -= budget
    }
    const left = Math.min(budget - (leases.length - again.length), this.#capacity(replica))
    if (left > 0) leases.push(...(await this.#take(session, left)))
    const cancel = this.#cancelled(session, lost)
    if (leases.length > 0 || settled.length > 0 || cancel.fresh || call.wait_ms === 0) return { leases, settled, cancel: cancel.leases }
    const later = await this.#wait(session, call.want, call.wait_ms, signal)
    return { leases: later, settled, cancel: this.#cancelled(session, lost).leases }
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
    for (const lease of leases) if (this.#leases.get(lease.token) === lease && !lease.session.dead) lease.session.undelivered.add(lease)
  }

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
      traceparent: this.#options.tracing.process(task, lease.epoch),
    }
    return `${JSON.stringify(head).slice(0, -1)},"input":${lease.input}}`
  }

  #beat(session: Session, call: LeaseCall): readonly string[] {
    const now = Date.now()
    const lost: string[] = []
    const named = new Set<string>()
    for (const token of call.beat ?? []) {
      const lease = this.#leases.get(token)
      if (lease === undefined || lease.replica !== session.replica) {
        lost.push(token)
        continue
      }
      lease.heard = now
      lease.doubtful = false
      session.undelivered.delete(lease)
      named.add(token)
    }
    if (session.id === '' || call.beat === null) return lost
    for (const { lease } of call.done) named.add(lease)
    for (const lease of session.leases) {
      if (!lease.doubtful || lease.settling !== null || named.has(lease.token) || now - lease.delivered < MISSED_MS) continue
      lease.missed += 1
      if (lease.missed < MISSED_BEATS) continue
      lease.missed = 0
      lease.doubtful = false
      session.undelivered.add(lease)
    }
    return lost
  }

  #cancelled(session: Session, lost: readonly string[]): { readonly leases: readonly string[]; readonly fresh: boolean } {
    const leases = [...lost]
    let fresh = lost.length > 0
    for (const lease of session.leases) {
      if (lease.cancel === null) continue
      fresh ||= !lease.cancel.told
      lease.cancel.told = true
      leases.push(lease.token)
    }
    return { leases, fresh }
  }

  #occupies(token: string, replica: Replica): boolean {
    const lease = this.#leases.get(token)
    return lease !== undefined && lease.replica === replica && lease.task.children === 0
  }

  /** Slots of a replica that are free now. */
  #capacity(replica: Replica): number {
    const slots = this.#options.agent(replica.agent)?.concurrency ?? 0
    return slots - (replica.leases.size - replica.parked) - replica.fetching
  }

  #wait(session: Session, want: number, ms: number, signal: AbortSignal): Promise<readonly Lease[]> {
    const queue = this.#queue(session.replica.agent)
    return new Promise((resolve) => {
      let isAnswered = false
      const done = (leases: readonly Lease[]): void => {
        // The time was over while the fetch was on its way (a busy broker): what it brings goes out with the next request.
        if (isAnswered) {
          this.undelivered(leases)
          if (leases.length > 0) this.#wake(session)
          return
        }
        isAnswered = true
        clearTimeout(timer)
        signal.removeEventListener('abort', gone)
        const at = queue.waiters.indexOf(waiter)
        if (at >= 0) queue.waiters.splice(at, 1)
        resolve(leases)
      }
      const gone = (): void => done([])
      const waiter: Waiter = { session, want, resolve: done }
      const timer = setTimeout(gone, ms)
      signal.addEventListener('abort', gone, { once: true })
      if (signal.aborted || session.dead || this.#closing) gone()
      else queue.waiters.push(waiter)
    })
  }

  /** Answers the session's waiting requests, so that they carry what is new. */
  #wake(session: Session): void {
    for (const waiter of this.#queue(session.replica.agent).waiters.filter((it) => it.session === session)) {
      const leases = [...session.undelivered].slice(0, waiter.want)
      for (const lease of leases) session.undelivered.delete(lease)
      waiter.resolve(leases)
    }
  }

  /** Deals what waits evenly to those who wait for it: with three idle replicas and three tasks, each gets one. */
  #deal(queue: Queue): void {
    let left = queue.waiting - queue.fetching
    if (left <= 0 || queue.waiters.length === 0 || !this.#broker.connected) return
    const eligible = queue.waiters.filter((it) => it.want > 0 && this.#capacity(it.session.replica) > 0)
    const share = Math.max(1, Math.ceil(left / Math.max(1, eligible.length)))
    for (const waiter of eligible) {
      const count = Math.min(share, left, waiter.want, this.#capacity(waiter.session.replica))
      if (left <= 0) return
      if (count <= 0) continue
      left -= count
      queue.waiters.splice(queue.waiters.indexOf(waiter), 1)
      void this.#take(waiter.session, count).then(
        (leases) => {
          if (leases.length > 0) waiter.resolve(leases)
          else if (!waiter.session.dead && !this.#closing) queue.waiters.push(waiter)
          else waiter.resolve([])
        },
        (error: unknown) => {
          this.#options.log(`fetch from ${queue.name}: ${String(error)}`)
          waiter.resolve([])
        },
      )
    }
  }

  async #take(session: Session, count: number): Promise<Lease[]> {
    const queue = this.#queue(session.replica.agent)
    const tries = Math.min(count, queue.waiting - queue.fetching)
    if (tries <= 0 || session.dead || this.#closing || !this.#broker.connected) return []
    queue.fetching += tries
    session.replica.fetching += tries
    const one = async (): Promise<Lease | null> => {
      let execution: Execution | null = null
      try {
        execution = await this.#broker.fetch(queue.name, session.holder)
      } finally {
        queue.fetching -= 1
        session.replica.fetching -= 1
      }
      if (execution === null) queue.waiting = 0
      return execution === null ? null : this.#register(session, queue, execution)
    }
    const leases = await Promise.all(Array.from({ length: tries }, one))
    return leases.filter((it) => it !== null)
  }

  /** A task was locked for this session. null: it is not to be started. */
  #register(session: Session, queue: Queue, execution: Execution): Lease | null {
    queue.waiting = Math.max(0, queue.waiting - 1)
    const lease = this.#hold(session, queue, execution, Date.now())
    if (lease === null) return null
    if (!this.#options.open(lease.task.run)) {
      lease.cancel = { at: 0, told: true }
      void this.#give(lease, false)
      return null
    }
    if (session.dead || this.#closing) {
      // A closing gateway leaves it to the next one, which finds the lock.
      if (!this.#closing) void this.#give(lease, false)
      return null
    }
    this.#options.events.add(lease.task, 'leased')
    return lease
  }

  #hold(session: Session, queue: Queue, { id, epoch, data }: Execution, since: number): Lease | null {
    const task = this.#tasks.get(id) ?? decodeTask(id, queue.name, data)
    // The same execution twice: its fetch was sent again after a reconnect, and the look at the locks has found it already.
    if (task === null || task.lease?.epoch === epoch) return null
    if (!this.#tasks.has(id)) this.#track(task)
    if (task.lease !== null) this.#release(task.lease)
    const token = leaseToken(this.#options.key, session.holder, { id, epoch })
    const lease: Lease = {
      token,
      task,
      epoch,
      holder: session.holder,
      session,
      replica: session.replica,
      since,
      input: inputOf(data),
      delivered: 0,
      doubtful: false,
      missed: 0,
      heard: Date.now(),
      settling: null,
      cancel: null,
    }
    task.lease = lease
    this.#leases.set(token, lease)
    session.leases.add(lease)
    session.replica.leases.add(lease)
    queue.active += 1
    if (task.children > 0) session.replica.parked += 1
    return lease
  }

  /** From here on the lease is worth nothing. */
  #release(lease: Lease): void {
    if (!this.#leases.delete(lease.token)) return
    lease.session.leases.delete(lease)
    lease.session.undelivered.delete(lease)
    lease.replica.leases.delete(lease)
    this.#queue(lease.task.agent).active -= 1
    if (lease.task.children > 0) lease.replica.parked -= 1
    if (lease.task.lease === lease) lease.task.lease = null
  }

  // ---- settling ----

  /** `next`: take the queue's next task in the same script, if the settlement ends the task. */
  async settle(
    session: Session,
    token: string,
    settlement: Settlement | null,
    next: boolean,
  ): Promise<{ ok: boolean; code?: string; next: Lease | null }> {
    const lease = this.held(session.replica, token)
    if (settlement === null) return { ok: false, code: 'bad_request', next: null }
    if (lease === null)
      return (await this.#settledBefore(session, token)) ? { ok: true, next: null } : { ok: false, code: 'lease_lost', next: null }
    const result = settlement.status === 'completed' ? JSON.stringify(settlement.result) : ''
    if (Buffer.byteLength(result) > MAX_PAYLOAD_BYTES) return { ok: false, code: 'payload_too_large', next: null }
    // A repeated settlement, while the first is still on its way to the broker.
    if (lease.settling !== null) return (await lease.settling) ? { ok: true, next: null } : { ok: false, code: 'lease_lost', next: null }
    const settling = Promise.withResolvers<boolean>()
    lease.settling = settling.promise
    settling.promise.catch(() => {})
    try {
      const { ok, fetched } = await this.#settle(lease, settlement, result, next)
      settling.resolve(ok)
      return ok ? { ok, next: fetched } : { ok, code: 'lease_lost', next: null }
    } catch (error) {
      settling.reject(error)
      lease.settling = null
      if (lease.session.dead) void this.#give(lease, false)
      throw error
    }
  }

  async #settle(lease: Lease, settlement: Settlement, result: string, next: boolean): Promise<{ ok: boolean; fetched: Lease | null }> {
    const { task } = lease
    if (lease.cancel !== null)
      return this.#end(lease, 'cancelled', await this.#broker.fail(task.agent, task.id, lease.holder, JSON.stringify(CANCELLED), next))
    if (settlement.status === 'completed')
      return this.#end(lease, 'completed', await this.#broker.complete(task.agent, task.id, lease.holder, result, next))
    const { code, message, retryable } = settlement.error
    // An orderly stop of the agent is nobody's failure.
    if (retryable === true && code === 'agent_stopped' && lease.epoch < MAX_STOPS)
      return { ok: await this.#back(lease, message), fetched: null }
    if (retryable === true && (await this.#broker.countFailure({ queue: task.agent, id: task.id }, lease.epoch)) < MAX_ATTEMPTS) {
      const ok = await this.#back(lease, `${code}: ${message}`)
      return { ok, fetched: null }
    }
    const failure: Failure = { status: 'failed', error: { code, message } }
    return this.#end(lease, 'failed', await this.#broker.fail(task.agent, task.id, lease.holder, JSON.stringify(failure), next), code)
  }

  /** The broker has ended it, now or (the same script sent again after a reconnect) already before. */
  async #end(lease: Lease, status: WorkStatus, ended: Ended, error?: string): Promise<{ ok: boolean; fetched: Lease | null }> {
    const { task, session } = lease
    const ok = ended.ok || (await this.#endedAt(task, lease.epoch))
    this.#release(lease)
    const queue = this.#queue(task.agent)
    if (!ok) {
      this.#options.log(`task ${task.id}: the lock of execution ${lease.epoch} is gone`)
      return { ok, fetched: null }
    }
    this.#options.tracing.processed(task, lease.epoch, lease.replica, lease.since, status, error ?? null)
    this.#forget(task, status)
    const fetched = ended.ok && ended.next !== null ? this.#register(session, queue, ended.next) : null
    if (queue.waiters.length > 0) this.#deal(queue)
    return { ok, fetched }
  }

  async #endedAt(task: Task, epoch: number): Promise<boolean> {
    const [state] = await this.#broker.read([{ queue: task.agent, id: task.id }])
    return state?.finished === true && state.epoch === epoch
  }

  /** A lease that is not held: was it this lease's own settlement that ended it, and only the answer was lost? */
  async #settledBefore(session: Session, token: string): Promise<boolean> {
    const lease = verifyLease(this.#options.key, session.holder, token)
    if (lease === null) return false
    const [state] = await this.#broker.read([{ queue: session.replica.agent, id: lease.id }])
    if (state === undefined || state === null) return false
    return (
      (state.finished && state.epoch === lease.epoch && !(state.failure ?? '').startsWith('{"status":"dead"')) ||
      state.retried === lease.epoch
    )
  }

  /** Back to the queue. */
  async #back(lease: Lease, why: string): Promise<boolean> {
    const { task } = lease
    const queue = this.#queue(task.agent)
    const ok = await this.#broker.requeue(task.agent, task.id, lease.holder)
    this.#options.tracing.processed(task, lease.epoch, lease.replica, lease.since, 'queued', why)
    this.#release(lease)
    this.#options.events.add(task, 'requeued', why)
    queue.waiting += 1
    if (this.#options.open(task.run)) this.#deal(queue)
    else await this.cancel([task])
    return ok
  }

  // ---- deaths ----

  #sessionDied(session: Session, death: Death): void {
    const leases = [...session.leases]
    for (const waiter of this.#queue(session.replica.agent).waiters.filter((it) => it.session === session)) waiter.resolve([])
    if (leases.length > 0)
      this.#options.log(
        `replica ${session.replica.agent}.${session.replica.replica}: session ${death}, ${leases.length} task(s) return to the queue`,
      )
    // Absent: it may have died of the same cause as the gateway before.
    for (const lease of leases) if (lease.settling === null) void this.#give(lease, death !== 'absent' && lease.delivered > 0)
  }

  /** Takes a lease from its holder. `died`: its agent died with it. */
  async #give(lease: Lease, died: boolean): Promise<void> {
    const { task } = lease
    this.#release(lease)
    // Until the broker has it back, nobody may fetch or cancel it as waiting.
    task.lease = lease
    try {
      const deaths = died ? await this.#broker.countDeath({ queue: task.agent, id: task.id }) : 0
      if (lease.cancel !== null) await this.#finish(lease, CANCELLED)
      else if (deaths >= MAX_DEATHS) {
        await this.#finish(lease, {
          status: 'dead',
          error: { code: 'agent_died', message: `its agent died ${deaths} times while it worked on this task` },
        })
      } else {
        task.lease = null
        await this.#back(lease, died ? 'its agent died' : 'its agent did not come back')
      }
    } catch (error) {
      this.#options.log(`task ${task.id}: ${String(error)}`)
    } finally {
      if (task.lease === lease) task.lease = null
    }
  }

  async #finish(lease: Lease, failure: Failure): Promise<void> {
    const { task } = lease
    await this.#broker.fail(task.agent, task.id, lease.holder, JSON.stringify(failure), false)
    task.lease = null
    this.#options.tracing.processed(task, lease.epoch, lease.replica, lease.since, failure.status, failure.error?.code ?? failure.status)
    this.#forget(task, failure.status)
  }

  // ---- keeping ----

  async #extend(): Promise<void> {
    if (!this.#broker.connected || !this.#adopted) return
    const byQueue = Map.groupBy(this.#leases.values(), (lease) => lease.task.agent)
    await Promise.all(
      [...byQueue].map(([name, leases]) =>
        this.#extendQueue(name, leases).catch((error: unknown) => this.#options.log(`locks of ${name}: ${String(error)}`)),
      ),
    )
  }

  async #extendQueue(name: string, leases: readonly Lease[]): Promise<void> {
    const failed = new Set(
      await this.#broker.extend(
        name,
        leases.map((lease) => ({ id: lease.task.id, token: lease.holder })),
      ),
    )
    for (const lease of leases) {
      if (!failed.has(lease.task.id) || this.#leases.get(lease.token) !== lease || lease.settling !== null) continue
      // Expired while the broker was away: the task is still ours, as nobody else takes tasks from the active list.
      if (await this.#broker.relock(name, lease.task.id, lease.holder)) continue
      this.#options.log(`task ${lease.task.id}: another holds its lock`)
      this.#release(lease)
    }
  }

  /** After a reconnect: locks first, then what was locked for a session while the answer was lost. */
  async resync(): Promise<void> {
    if (!this.#adopted) return
    await this.#extend()
    await this.#safety()
    for (const queue of this.#queues.values()) await this.#sweep(queue)
    for (const queue of this.#queues.values()) this.#deal(queue)
  }

  async #safety(): Promise<void> {
    if (!this.#broker.connected || !this.#adopted || this.#closing) return
    const now = Date.now()
    for (const lease of [...this.#leases.values()]) {
      if (lease.settling !== null) continue
      if (lease.cancel !== null && now - lease.cancel.at > CANCEL_GRACE_MS) void this.#give(lease, false)
      else if (lease.session.id === '' && now - lease.heard > LEASE_MS) void this.#give(lease, true)
    }
    const queues = [...this.#queues.values()]
    const lengths = await this.#broker.lengths(queues.map((it) => it.name)).catch(() => null)
    queues.forEach((queue, index) => {
      const length = lengths?.[index]
      if (length === undefined) return
      if (queue.fetching === 0) queue.waiting = length.waiting
      queue.differed = length.active === queue.active ? 0 : queue.differed + 1
      if (queue.differed >= 3) void this.#sweep(queue).catch(() => {})
      this.#deal(queue)
    })
  }

  /** Finds tasks that are locked for a session (or for nobody) without a lease here: a fetch whose answer was lost. */
  async #sweep(queue: Queue): Promise<void> {
    queue.differed = 0
    for (const active of await this.#broker.active(queue.name)) {
      const task = this.#tasks.get(active.id)
      if (task?.lease !== null && task?.lease !== undefined) continue
      const holder = parseHolder(active.holder)
      const replica = holder === null || holder.identity.agent !== queue.name ? null : this.replicas.of(holder.identity)
      const session = holder?.session === '' ? null : replica?.session
      if (session !== null && session !== undefined && session.id === holder?.session && !session.dead) {
        const lease = this.#hold(session, queue, active, Date.now())
        if (lease === null) continue
        if (this.#options.open(lease.task.run)) {
          session.undelivered.add(lease)
          this.#wake(session)
        } else {
          lease.cancel = { at: 0, told: true }
          void this.#give(lease, false)
        }
      } else if (await this.#broker.requeue(queue.name, active.id, null)) {
        if (task === undefined) {
          const found = decodeTask(active.id, queue.name, active.data)
          if (found !== null) this.#track(found)
        }
        queue.waiting += 1
        this.#deal(queue)
      }
    }
  }

  /** At the start: what waits and what is held, from the broker. Sessions have the grace to come back. */
  async adopt(names: Iterable<string>): Promise<readonly Task[]> {
    const orphans: { readonly queue: string; readonly id: string }[] = []
    const held: { readonly queue: Queue; readonly session: Session; readonly active: Execution }[] = []
    for (const name of names) {
      const queue = this.#queue(name)
      for (const { id, data } of await this.#broker.waiting(name)) {
        const task = decodeTask(id, name, data)
        if (task !== null && !this.#tasks.has(id)) this.#tasks.set(id, task)
        queue.waiting += 1
      }
      for (const active of await this.#broker.active(name)) {
        const task = decodeTask(active.id, name, active.data)
        if (task !== null) this.#tasks.set(active.id, task)
        const holder = parseHolder(active.holder)
        if (holder === null || holder.identity.agent !== name) orphans.push({ queue: name, id: active.id })
        else held.push({ queue, session: this.replicas.adopt(holder.identity, holder.session), active })
      }
    }
    for (const task of this.#tasks.values()) {
      const parent = task.parent === null ? undefined : this.#tasks.get(task.parent)
      if (parent !== undefined) parent.children += 1
    }
    for (const { queue, session, active } of held) {
      const lease = this.#hold(session, queue, active, Date.now())
      if (lease === null) continue
      lease.delivered = Date.now()
      lease.doubtful = true
      if (session.dead) void this.#give(lease, true)
    }
    for (const { queue, id } of orphans) if (await this.#broker.requeue(queue, id, null)) this.#queue(queue).waiting += 1
    this.#adopted = true
    return [...this.#tasks.values()]
  }

  #queue(name: string): Queue {
    const known = this.#queues.get(name)
    if (known !== undefined) return known
    const made: Queue = { name, waiting: 0, fetching: 0, active: 0, waiters: [], differed: 0 }
    this.#queues.set(name, made)
    return made
  }

  /** Answers everyone who waits; leases stay as they are, for the next gateway. */
  close(): void {
    this.#closing = true
    this.replicas.close()
    for (const timer of this.#timers) clearInterval(timer)
    for (const queue of this.#queues.values()) for (const waiter of [...queue.waiters]) waiter.resolve([])
    for (const watchers of [...this.#watchers.values()]) for (const watcher of [...watchers]) watcher()
  }
}
