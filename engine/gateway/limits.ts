/** How many tasks may start now: `concurrency.total` of an agent and `broker.concurrency` of the project, counted in memory. Parked ones do not count. */
import type { Agent } from '../../spec/model.ts'
import type { Book, Queue } from './book.ts'

export interface LimitsOptions {
  readonly book: Book
  readonly agent: (name: string) => Agent | null
  /** `broker.concurrency`; null: no limit. */
  readonly project: () => number | null
}

export class Limits {
  readonly #options: LimitsOptions

  constructor(options: LimitsOptions) {
    this.#options = options
  }

  /** Executed now, or about to be. */
  running(queue: Queue): number {
    return queue.active - queue.parked + queue.fetching
  }

  runningInProject(): number {
    let sum = 0
    for (const queue of this.#options.book.queues.values()) sum += this.running(queue)
    return sum
  }

  total(queue: Queue): number | null {
    return this.#options.agent(queue.name)?.work.total ?? null
  }

  get project(): number | null {
    return this.#options.project()
  }

  get projectRoom(): number {
    const { project } = this
    return project === null ? Number.POSITIVE_INFINITY : project - this.runningInProject()
  }

  /** How many of this queue may start; below 0: more run than may (a limit was lowered, parked ones went on). */
  room(queue: Queue): number {
    // What waits is being put in order.
    if (queue.ordering !== null) return 0
    const total = this.total(queue)
    return Math.min(total === null ? Number.POSITIVE_INFINITY : total - this.running(queue), this.projectRoom)
  }

  isLimited(queue: Queue): boolean {
    return queue.ordering !== null || this.project !== null || this.total(queue) !== null
  }

  /**
   * Of `releasing` tasks of this queue that end, how many may be followed by the next one at once. When the project is full and other
   * queues wait too, none: the places go round.
   */
  swaps(queue: Queue, releasing: number): number {
    if (!this.isLimited(queue)) return Number.POSITIVE_INFINITY
    if (queue.ordering !== null || this.isContended(queue)) return 0
    return Math.max(0, releasing + Math.min(0, this.room(queue)))
  }

  /** Another queue could use the project's next free place. */
  isContended(queue: Queue): boolean {
    if (this.projectRoom > 0) return false
    for (const other of this.#options.book.queues.values())
      if (other !== queue && other.waiting > other.fetching && other.waiters.some((it) => it.want > 0)) return true
    return false
  }
}
