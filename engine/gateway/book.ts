/** Unfinished tasks, leases and queues in memory, and the counts that follow from them. Knows no broker; all of it can be read again from one. */
import { leaseToken } from '../tokens.ts'
import type { Execution } from '../broker/port.ts'
import { KeyWindows } from './key-windows.ts'
import type { Replica, Session } from './replicas.ts'
import { decodeTask, inputOf, isParked, type Lease, type Task } from './work.ts'

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
  /** Of the active ones. */
  parked: number
  /** Unfinished tasks, wherever they are. */
  tasks: number
  /** Priorities count: until it is empty. */
  ordered: boolean
  /** Nothing is fetched while it is put in order. */
  ordering: Promise<void> | null
  readonly waiters: Waiter[]
  /** Safety looks in a row at which the broker had another number of active tasks. */
  differed: number
}

export class Book {
  readonly tasks: Map<string, Task> = new Map()
  readonly leases: Map<string, Lease> = new Map()
  readonly queues: Map<string, Queue> = new Map()
  readonly keys: KeyWindows
  /** A queue is new here. */
  made: (queue: Queue) => void = () => {}
  /** A place is free: a lease has ended, or its task was parked. */
  freed: () => void = () => {}
  /** The turn of others with a key may have come. */
  turned: () => void = () => {}
  /** Tasks that ended lately, in two generations: a list of the broker's may be older than their end. An id never runs again. */
  #ended = new Set<string>()
  #endedBefore = new Set<string>()
  readonly #watchers = new Map<string, Set<() => void>>()
  readonly #key: string
  readonly #slots: (agent: string) => number

  /** `window`: how many tasks of an agent with the same key have their turn at once. */
  constructor(key: string, slots: (agent: string) => number, window: (agent: string) => number = () => Number.POSITIVE_INFINITY) {
    this.#key = key
    this.#slots = slots
    this.keys = new KeyWindows(window, (id) => this.tasks.get(id))
  }

  queue(name: string): Queue {
    const known = this.queues.get(name)
    if (known !== undefined) return known
    const made: Queue = {
      name,
      waiting: 0,
      fetching: 0,
      active: 0,
      parked: 0,
      tasks: 0,
      ordered: false,
      ordering: null,
      waiters: [],
      differed: 0,
    }
    this.queues.set(name, made)
    this.made(made)
    return made
  }

  // ---- tasks ----

  /** Without a word to its parent. */
  put(task: Task): void {
    if (!this.tasks.has(task.id)) this.queue(task.agent).tasks += 1
    this.tasks.set(task.id, task)
  }

  /** The lease of the parent, when this child parks it. */
  track(task: Task): Lease | null {
    this.put(task)
    const parent = this.#parentOf(task)
    return parent === undefined ? null : this.park(parent)
  }

  /** The task waits for one thing more (a child, an answer). Its lease, when that is what parks it. */
  park(task: Task): Lease | null {
    task.children += 1
    if (task.children > 1) return null
    if (task.key !== undefined) {
      this.keys.touch(task)
      this.turned()
    }
    if (task.lease === null) return null
    this.#countParked(task.lease, 1)
    this.freed()
    return task.lease
  }

  unpark(task: Task): void {
    task.children -= 1
    if (task.children > 0 || task.lease === null) return
    this.#countParked(task.lease, -1)
    task.lease.sign = Date.now()
  }

  /** A lease that was released already is counted nowhere. */
  #countParked(lease: Lease, change: number): void {
    if (this.leases.get(lease.token) !== lease) return
    lease.replica.parked += change
    this.queue(lease.task.agent).parked += change
  }

  /** It has ended. False: it was not there. */
  forget(task: Task): boolean {
    if (!this.untrack(task)) return false
    this.#ended.add(task.id)
    return true
  }

  untrack(task: Task): boolean {
    if (!this.tasks.delete(task.id)) return false
    const queue = this.queue(task.agent)
    queue.tasks -= 1
    if (queue.tasks === 0) queue.ordered = false
    if (task.key !== undefined) {
      this.keys.leave(task)
      this.turned()
    }
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
  hold(session: Session, queue: Queue, { id, epoch, data, since }: Execution): Lease | null {
    const task = this.tasks.get(id) ?? decodeTask(id, queue.name, data)
    if (task === null || task.lease?.epoch === epoch || this.hasEnded(id)) return null
    if (!this.tasks.has(id)) this.track(task)
    if (task.due !== undefined) task.due = undefined
    if (task.key !== undefined) {
      task.held = false
      this.keys.seat(task)
    }
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
      since: since ?? now,
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
    if (isParked(task)) this.#countParked(lease, 1)
    return lease
  }

  /** From here on the lease is worth nothing. */
  release(lease: Lease): void {
    if (this.leases.get(lease.token) !== lease) return
    if (isParked(lease.task)) this.#countParked(lease, -1)
    this.leases.delete(lease.token)
    lease.session.leases.delete(lease)
    lease.session.undelivered.delete(lease)
    lease.replica.leases.delete(lease)
    this.queue(lease.task.agent).active -= 1
    if (lease.task.lease === lease) lease.task.lease = null
    this.freed()
  }

  /** Slots of a replica that are free now: a task that waits for children holds none. */
  capacity(replica: Replica): number {
    if (replica.stalled !== null || !replica.proved) return 0
    return this.#slots(replica.agent) - (replica.leases.size - replica.parked) - replica.fetching
  }

  /** The end of this lease frees a slot of the replica. */
  occupies(token: string, replica: Replica): boolean {
    const lease = this.leases.get(token)
    return lease !== undefined && lease.replica === replica && !isParked(lease.task)
  }

  /** Before the broker's state is read again from the beginning. */
  clear(): void {
    for (const lease of [...this.leases.values()]) this.release(lease)
    this.tasks.clear()
    // What had ended may be there again, if the broker has lost data.
    this.#ended.clear()
    this.#endedBefore.clear()
    this.keys.clear()
    for (const queue of this.queues.values()) Object.assign(queue, { waiting: 0, tasks: 0, ordered: false })
  }
}
