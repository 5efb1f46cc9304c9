/** One timer for all tasks that are delayed: it rings when the earliest is due. */

/** setTimeout takes no longer times. */
const MAX_TIMER_MS = 2_147_000_000

interface Entry<T> {
  readonly at: number
  readonly item: T
}

export class DueTimes<T> {
  /** A binary heap: no entry is later than its two below. */
  readonly #heap: Entry<T>[] = []
  readonly #ring: (item: T, at: number) => void
  #timer: NodeJS.Timeout | undefined
  #set = Number.POSITIVE_INFINITY

  /** `ring` is told the time too: an item that was added again, or is gone, is to be passed over. */
  constructor(ring: (item: T, at: number) => void) {
    this.#ring = ring
  }

  add(item: T, at: number): void {
    const heap = this.#heap
    const entry = { at, item }
    let here = heap.push(entry) - 1
    while (here > 0) {
      const up = (here - 1) >> 1
      const above = heap[up]
      if (above === undefined || above.at <= at) break
      heap[here] = above
      here = up
    }
    heap[here] = entry
    this.#arm()
  }

  clear(): void {
    this.#heap.length = 0
    this.#arm()
  }

  #arm(): void {
    const at = this.#heap[0]?.at ?? Number.POSITIVE_INFINITY
    if (at === this.#set) return
    clearTimeout(this.#timer)
    this.#set = at
    if (at === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.#look(), Math.min(MAX_TIMER_MS, Math.max(0, at - Date.now())))
  }

  #look(): void {
    this.#set = Number.POSITIVE_INFINITY
    const now = Date.now()
    for (let first = this.#heap[0]; first !== undefined && first.at <= now; first = this.#heap[0]) {
      this.#pop()
      this.#ring(first.item, first.at)
    }
    this.#arm()
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let here = 0
    for (;;) {
      const left = 2 * here + 1
      const right = left + 1
      const down = (heap[right]?.at ?? Number.POSITIVE_INFINITY) < (heap[left]?.at ?? Number.POSITIVE_INFINITY) ? right : left
      const below = heap[down]
      if (below === undefined || below.at >= last.at) break
      heap[here] = below
      here = down
    }
    heap[here] = last
  }
}
