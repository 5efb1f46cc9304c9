/** Runs that are to start later. One timer, for the earliest. */

/** The longest that a timer can take. */
const MAX_TIMER_MS = 2_147_483_647

export class Delays {
  readonly #due = new Map<string, number>()
  readonly #start: (run: string) => void
  #timer: NodeJS.Timeout | null = null

  constructor(start: (run: string) => void) {
    this.#start = start
  }

  /** When it will start; null: it does not wait. */
  due(run: string): number | null {
    return this.#due.get(run) ?? null
  }

  add(run: string, due: number): void {
    this.#due.set(run, due)
    this.#arm()
  }

  delete(run: string): void {
    this.#due.delete(run)
  }

  clear(): void {
    this.#due.clear()
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#due.size === 0) return
    const earliest = Math.min(...this.#due.values())
    this.#timer = setTimeout(() => this.#ring(), Math.min(MAX_TIMER_MS, Math.max(0, earliest - Date.now())))
  }

  #ring(): void {
    const now = Date.now()
    for (const [run, due] of [...this.#due]) {
      if (due > now) continue
      this.#due.delete(run)
      this.#start(run)
    }
    this.#arm()
  }
}
