/** Hands what waits to those who wait for it. */
import type { Execution } from '../broker/port.ts'
import type { Queue, Waiter } from './book.ts'
import type { Dealer, Desk } from './desk.ts'
import type { Limits } from './limits.ts'
import type { Session } from './replicas.ts'
import { isInLine, type Lease, type Task } from './work.ts'

export class Dealing implements Dealer {
  readonly #desk: Desk
  readonly #limits: Limits
  /** Queues that wait for the end of their rate's window. */
  readonly #limited = new Map<Queue, NodeJS.Timeout>()
  /** Which queue is the next to be given a place of the project. */
  #turn = 0
  #goingRound = false
  /** A task is delayed: whoever keeps the time. */
  readonly #later: (task: Task, delay_ms: number) => void
  /** A lease that is not to be worked on goes back. */
  readonly #give: (lease: Lease) => void

  constructor(desk: Desk, limits: Limits, give: (lease: Lease) => void, later: (task: Task, delay_ms: number) => void) {
    this.#desk = desk
    this.#limits = limits
    this.#give = give
    this.#later = later
  }

  /** Until there is something to say or the time is over. */
  wait(session: Session, want: number, ms: number, signal: AbortSignal): Promise<readonly Lease[]> {
    const queue = this.#desk.book.queue(session.replica.agent)
    const { waiters } = queue
    return new Promise((resolve) => {
      let isOver = false
      const answer = (leases: readonly Lease[]): void => {
        // The time was over while the fetch was on its way (a busy broker): what it brings goes out with the next request.
        if (isOver) {
          this.undelivered(leases)
          if (leases.length > 0) this.wake(session)
          return
        }
        isOver = true
        clearTimeout(timer)
        signal.removeEventListener('abort', gone)
        const at = waiters.indexOf(waiter)
        if (at >= 0) waiters.splice(at, 1)
        resolve(leases)
      }
      const gone = (): void => answer([])
      const waiter: Waiter = { session, want, isOver: () => isOver, answer }
      const timer = setTimeout(gone, ms)
      signal.addEventListener('abort', gone, { once: true })
      if (signal.aborted || session.dead || this.#desk.closing) gone()
      else {
        waiters.push(waiter)
        // Left by a limit: nothing else would ask again.
        if (want > 0 && queue.waiting > queue.fetching) {
          this.#isRateLimited(queue)
          this.goRound()
        }
      }
    })
  }

  /** The answer with these leases never went out: the session's next request gets them. */
  undelivered(leases: readonly Lease[]): void {
    for (const lease of leases) {
      if (this.#desk.book.leases.get(lease.token) === lease && !lease.session.dead) lease.session.undelivered.add(lease)
    }
  }

  wake(session: Session): void {
    for (const waiter of this.#desk.book.queue(session.replica.agent).waiters.filter((it) => it.session === session)) {
      waiter.answer(takeUndelivered(session, waiter.want))
    }
  }

  /** Evenly: with three idle replicas and three tasks, each gets one. */
  deal(queue: Queue): void {
    this.#deal(queue, Number.POSITIVE_INFINITY)
  }

  /** How many fetches are on their way. */
  #deal(queue: Queue, most: number): number {
    const { book, broker, log } = this.#desk
    let left = Math.min(queue.waiting - queue.fetching, most)
    if (left <= 0 || queue.waiters.length === 0 || !broker.connected || this.#isRateLimited(queue)) return 0
    left = Math.min(left, this.#limits.room(queue))
    const all = left
    const eligible = queue.waiters.filter((it) => it.want > 0 && book.capacity(it.session.replica) > 0)
    const share = Math.max(1, Math.ceil(left / Math.max(1, eligible.length)))
    for (const waiter of eligible) {
      const count = Math.min(share, left, waiter.want, book.capacity(waiter.session.replica))
      if (left <= 0) break
      if (count <= 0) continue
      left -= count
      queue.waiters.splice(queue.waiters.indexOf(waiter), 1)
      void this.take(waiter.session, count).then(
        (leases) => {
          if (leases.length > 0 || waiter.session.dead || this.#desk.closing) waiter.answer(leases)
          else if (!waiter.isOver()) queue.waiters.push(waiter)
        },
        (error: unknown) => {
          log(`fetch from ${queue.name}: ${String(error)}`)
          waiter.answer([])
        },
      )
    }
    return all - Math.max(0, left)
  }

  /** The project's free places, one after the other to each queue that can use one. */
  goRound(): void {
    if (this.#limits.project === null || this.#goingRound) return
    this.#goingRound = true
    queueMicrotask(() => {
      this.#goingRound = false
      const queues = [...this.#desk.book.queues.values()]
      // So many queues in a row had no use for one.
      for (let idle = 0; idle < queues.length && this.#limits.projectRoom > 0; ) {
        const queue = queues[this.#turn++ % queues.length]
        idle = queue !== undefined && this.#deal(queue, 1) > 0 ? 0 : idle + 1
      }
    })
  }

  /** Until its window is over; then it is dealt. */
  #isRateLimited(queue: Queue): boolean {
    const until = this.#desk.broker.limitedUntil(queue.name)
    const left = until === 0 ? 0 : until - Date.now()
    if (left <= 0) return false
    if (!this.#limited.has(queue)) {
      const timer = setTimeout(() => {
        this.#limited.delete(queue)
        this.deal(queue)
      }, left + 1)
      this.#limited.set(queue, timer)
    }
    return true
  }

  later(task: Task, delay_ms: number): void {
    this.#later(task, delay_ms)
  }

  left(task: Task): void {
    if (!isInLine(task)) return
    const queue = this.#desk.book.queue(task.agent)
    queue.waiting = Math.max(0, queue.waiting - 1)
  }

  close(): void {
    for (const timer of this.#limited.values()) clearTimeout(timer)
  }

  async take(session: Session, count: number): Promise<Lease[]> {
    const { book, broker, closing } = this.#desk
    const queue = book.queue(session.replica.agent)
    if (session.dead || closing || !broker.connected || this.#isRateLimited(queue)) return []
    const tries = Math.min(count, queue.waiting - queue.fetching, this.#limits.room(queue))
    if (tries <= 0) return []
    queue.fetching += tries
    session.replica.fetching += tries
    const one = async (): Promise<Lease | null> => {
      let execution: Execution | null = null
      try {
        execution = await broker.fetch(queue.name, session.holder)
      } finally {
        queue.fetching -= 1
        session.replica.fetching -= 1
      }
      if (execution === null && !this.#isRateLimited(queue)) queue.waiting = 0
      return execution === null ? null : this.register(session, queue, execution)
    }
    const results = await Promise.allSettled(Array.from({ length: tries }, one))
    const leases = results.flatMap((result) => (result.status === 'fulfilled' && result.value !== null ? [result.value] : []))
    const failed = results.find((result) => result.status === 'rejected')
    if (leases.length === 0 && failed !== undefined) throw failed.reason
    return leases
  }

  register(session: Session, queue: Queue, execution: Execution): Lease | null {
    const known = this.#desk.book.tasks.get(execution.id)
    // A delayed one that was due a moment before our timer was not counted yet.
    if (known?.due === undefined) queue.waiting = Math.max(0, queue.waiting - 1)
    const lease = this.#desk.book.hold(session, queue, execution)
    // A closing gateway leaves it to the next one, which finds the lock.
    if (lease === null || this.#desk.closing) return null
    if (!this.#desk.open(lease.task.run)) {
      lease.cancel = { at: 0, told: true, why: null }
      this.#give(lease)
      return null
    }
    if (session.dead || session.replica.stalled !== null) {
      this.#give(lease)
      return null
    }
    // Held open for long while it had nothing to do; from now on it must be heard.
    if (session.leases.size === 1) session.heard = Math.max(session.heard, Date.now())
    this.#desk.deadlines.watch(lease.task)
    this.#desk.events.add(lease.task, 'leased')
    return lease
  }
}

export function takeUndelivered(session: Session, want: number): Lease[] {
  const leases = [...session.undelivered].slice(0, want)
  for (const lease of leases) session.undelivered.delete(lease)
  return leases
}
