/** Runs that are to start later. One timer, for the earliest. */

/** The longest that a timer can take. */
const MAX_TIMER_MS = 2_147_483_647

export class Delays {
  readonly #due = new Map<string, number>()
  readonly #start: (run: string) => void
  #timer: NodeJS.Timeout | null = null
  /** When the timer rings; nothing may be due then. */
  #next = Number.POSITIVE_INFINITY

  constructor(start: (run: string) => void) {
    this.#start = start
  }

  /** When it will start; null: it does not wait. */
  due(run: string): number | null {
    return this.#due.get(run) ?? null
  }

  add(run: string, due: number): void {
    this.#due.set(run, due)
    if (due < this.#next) this.#arm(due)
  }

  delete(run: string): void {
    this.#due.delete(run)
  }

  clear(): void {
    this.#due.clear()
    this.#arm(Number.POSITIVE_INFINITY)
  }

  #arm(next: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#next = next
    if (next < Number.POSITIVE_INFINITY)
      this.#timer = setTimeout(() => this.#ring(), Math.min(MAX_TIMER_MS, Math.max(0, next - Date.now())))
  }

  #ring(): void {
    const now = Date.now()
    for (const [run, due] of [...this.#due]) {
      if (due > now) continue
      this.#due.delete(run)
      this.#start(run)
    }
    let next = Number.POSITIVE_INFINITY
    for (const due of this.#due.values()) next = Math.min(next, due)
    this.#arm(next)
  }
}
