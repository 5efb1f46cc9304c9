/** Hands what waits to those who wait for it. */
import type { Execution } from '../broker/port.ts'
import type { Queue, Waiter } from './book.ts'
import type { Dealer, Desk } from './desk.ts'
import type { Session } from './replicas.ts'
import type { Lease } from './work.ts'

export class Dealing implements Dealer {
  readonly #desk: Desk
  /** A lease that is not to be worked on goes back. */
  readonly #give: (lease: Lease) => void

  constructor(desk: Desk, give: (lease: Lease) => void) {
    this.#desk = desk
    this.#give = give
  }

  /** Until there is something to say or the time is over. */
  wait(session: Session, want: number, ms: number, signal: AbortSignal): Promise<readonly Lease[]> {
    const { waiters } = this.#desk.book.queue(session.replica.agent)
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
      else waiters.push(waiter)
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
    const { book, broker, log } = this.#desk
    let left = queue.waiting - queue.fetching
    if (left <= 0 || queue.waiters.length === 0 || !broker.connected) return
    const eligible = queue.waiters.filter((it) => it.want > 0 && book.capacity(it.session.replica) > 0)
    const share = Math.max(1, Math.ceil(left / Math.max(1, eligible.length)))
    for (const waiter of eligible) {
      const count = Math.min(share, left, waiter.want, book.capacity(waiter.session.replica))
      if (left <= 0) return
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
  }

  async take(session: Session, count: number): Promise<Lease[]> {
    const { book, broker, closing } = this.#desk
    const queue = book.queue(session.replica.agent)
    const tries = Math.min(count, queue.waiting - queue.fetching)
    if (tries <= 0 || session.dead || closing || !broker.connected) return []
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
      if (execution === null) queue.waiting = 0
      return execution === null ? null : this.register(session, queue, execution)
    }
    const results = await Promise.allSettled(Array.from({ length: tries }, one))
    const leases = results.flatMap((result) => (result.status === 'fulfilled' && result.value !== null ? [result.value] : []))
    const failed = results.find((result) => result.status === 'rejected')
    if (leases.length === 0 && failed !== undefined) throw failed.reason
    return leases
  }

  register(session: Session, queue: Queue, execution: Execution): Lease | null {
    queue.waiting = Math.max(0, queue.waiting - 1)
    const lease = this.#desk.book.hold(session, queue, execution)
    // A closing gateway leaves it to the next one, which finds the lock.
    if (lease === null || this.#desk.closing) return null
    if (!this.#desk.open(lease.task.run)) {
      lease.cancel = { at: 0, told: true, why: null }
      this.#give(lease)
      return null
    }
    if (session.dead) {
      this.#give(lease)
      return null
    }
    this.#desk.events.add(lease.task, 'leased')
    return lease
  }
}

export function takeUndelivered(session: Session, want: number): Lease[] {
  const leases = [...session.undelivered].slice(0, want)
  for (const lease of leases) session.undelivered.delete(lease)
  return leases
}
