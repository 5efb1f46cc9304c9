/** Unfinished tasks, leases and queues in memory, and the counts that follow from them. Knows no broker; all of it can be read again from one. */
import { leaseToken } from '../tokens.ts'
import type { Execution } from '../broker/port.ts'
import type { Replica, Session } from './replicas.ts'
import { decodeTask, inputOf, type Lease, type Task } from './work.ts'

export interface Waiter {
  readonly session: Session
  readonly want: number
  /** It was answered, or its time is over. */
  readonly isOver: () => boolean
  readonly answer: (leases: readonly Lease[]) => void
}

export interface Queue {
  readonly name: string
  /** How many tasks wait there; kept by counting, corrected by the safety look. */
  waiting: number
  fetching: number
  active: number
  readonly waiters: Waiter[]
  /** Safety looks in a row at which the broker had another number of active tasks. */
  differed: number
}

export class Book {
  readonly tasks: Map<string, Task> = new Map()
  readonly leases: Map<string, Lease> = new Map()
  readonly queues: Map<string, Queue> = new Map()
  /** Tasks that ended lately, in two generations: a list of the broker's may be older than their end. An id never runs again. */
  #ended = new Set<string>()
  #endedBefore = new Set<string>()
  readonly #watchers = new Map<string, Set<() => void>>()
  readonly #key: string
  readonly #slots: (agent: string) => number

  constructor(key: string, slots: (agent: string) => number) {
    this.#key = key
    this.#slots = slots
  }

  queue(name: string): Queue {
    const known = this.queues.get(name)
    if (known !== undefined) return known
    const made: Queue = { name, waiting: 0, fetching: 0, active: 0, waiters: [], differed: 0 }
    this.queues.set(name, made)
    return made
  }

  // ---- tasks ----

  /** The lease of the parent, when this child parks it. */
  track(task: Task): Lease | null {
    this.tasks.set(task.id, task)
    const parent = this.#parentOf(task)
    return parent === undefined ? null : this.park(parent)
  }

  /** The task waits for one thing more (a child, an answer). Its lease, when that is what parks it. */
  park(task: Task): Lease | null {
    task.children += 1
    if (task.children > 1 || task.lease === null) return null
    task.lease.replica.parked += 1
    return task.lease
  }

  unpark(task: Task): void {
    task.children -= 1
    if (task.children === 0 && task.lease !== null) task.lease.replica.parked -= 1
  }

  /** It has ended. False: it was not there. */
  forget(task: Task): boolean {
    if (!this.untrack(task)) return false
    this.#ended.add(task.id)
    return true
  }

  untrack(task: Task): boolean {
    if (!this.tasks.delete(task.id)) return false
    const parent = this.#parentOf(task)
    if (parent !== undefined) this.unpark(parent)
    return true
  }

  hasEnded(id: string): boolean {
    return this.#ended.has(id) || this.#endedBefore.has(id)
  }

  /** Call it every few seconds, longer than any answer of the broker is under way. */
  turnPage(): void {
    this.#endedBefore = this.#ended
    this.#ended = new Set()
  }

  #parentOf(task: Task): Task | undefined {
    return task.parent === null ? undefined : this.tasks.get(task.parent)
  }

  /** Until the task has ended, or the time is over. */
  whenEnded(id: string, ms: number, signal: AbortSignal): Promise<void> {
    if (!this.tasks.has(id) || ms <= 0 || signal.aborted) return Promise.resolve()
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

  tellEnded(id: string): void {
    for (const watcher of [...(this.#watchers.get(id) ?? [])]) watcher()
  }

  tellAll(): void {
    for (const id of [...this.#watchers.keys()]) this.tellEnded(id)
  }

  // ---- leases ----

  /** A lease of this replica that is alive (of whichever of its sessions). */
  held(replica: Replica, token: string): Lease | null {
    const lease = this.leases.get(token)
    if (lease === undefined || lease.replica !== replica) return null
    lease.heard = Date.now()
    return lease
  }

  /** null: no task of ours, one that has ended, or held already (its fetch was sent again after a reconnect, and the look at the locks found it). */
  hold(session: Session, queue: Queue, { id, epoch, data }: Execution): Lease | null {
    const task = this.tasks.get(id) ?? decodeTask(id, queue.name, data)
    if (task === null || task.lease?.epoch === epoch || this.hasEnded(id)) return null
    if (!this.tasks.has(id)) this.track(task)
    if (task.lease !== null) this.release(task.lease)
    const { replica, holder } = session
    const now = Date.now()
    const lease: Lease = {
      token: leaseToken(this.#key, holder, { id, epoch }),
      task,
      epoch,
      holder,
      session,
      replica,
      since: now,
      input: inputOf(data),
      delivered: 0,
      doubtful: false,
      missed: 0,
      heard: now,
      sign: now,
      tail: '',
      motion: null,
      settling: null,
      cancel: null,
    }
    task.lease = lease
    task.epoch = epoch
    this.leases.set(lease.token, lease)
    session.leases.add(lease)
    replica.leases.add(lease)
    queue.active += 1
    if (task.children > 0) replica.parked += 1
    return lease
  }

  /** From here on the lease is worth nothing. */
  release(lease: Lease): void {
    if (!this.leases.delete(lease.token)) return
    lease.session.leases.delete(lease)
    lease.session.undelivered.delete(lease)
    lease.replica.leases.delete(lease)
    this.queue(lease.task.agent).active -= 1
    if (lease.task.children > 0) lease.replica.parked -= 1
    if (lease.task.lease === lease) lease.task.lease = null
  }

  /** Slots of a replica that are free now: a task that waits for children holds none. */
  capacity(replica: Replica): number {
    return this.#slots(replica.agent) - (replica.leases.size - replica.parked) - replica.fetching
  }

  /** The end of this lease frees a slot of the replica. */
  occupies(token: string, replica: Replica): boolean {
    const lease = this.leases.get(token)
    return lease !== undefined && lease.replica === replica && lease.task.children === 0
  }

  /** Before the broker's state is read again from the beginning. */
  clear(): void {
    for (const lease of [...this.leases.values()]) this.release(lease)
    this.tasks.clear()
    for (const queue of this.queues.values()) queue.waiting = 0
  }
}
