/**
 * Fairness: of the tasks of one agent with the same key so many at once are in line or executed; the rest are held, in order. So a key with
 * thousands of tasks is never further ahead of another than by its window.
 *
 * A task has its seat from its turn to its end, also while it is parked or waits in line after a death: so the cap holds whoever dies. A parked
 * one lends its seat to one of its descendants at a time; a child that has no ancestor of this key waits for those that run, but not for parked
 * ones. Otherwise a task could wait for a seat that waits for the task itself (self-delegation with `per_key: 1`).
 */
import { isParked, type Task } from './work.ts'

interface Seat {
  /** The ancestor that lent it; null: its own. */
  from: Task | null
  lent: Task | null
}
interface Window {
  readonly agent: string
  readonly id: string
  readonly seats: Map<Task, Seat>
  /** Seats that are not lent ones. */
  own: number
  /** In line; children first, because others wait for them. */
  children: Set<Task>
  roots: Set<Task>
}
export interface WindowView {
  readonly size: number
  readonly seats: number
  /** How many are before it in the line of its key; null: it has its turn. */
  readonly before: number | null
}

export class KeyWindows {
  readonly #windows = new Map<string, Window>()
  readonly #touched = new Set<Window>()
  readonly #size: (agent: string) => number
  readonly #task: (id: string) => Task | undefined

  constructor(size: (agent: string) => number, task: (id: string) => Task | undefined) {
    this.#size = size
    this.#task = task
  }

  /** Into the line of its key. `first`: before the others. */
  wait(task: Task, first: boolean): void {
    const window = this.#window(task)
    const line = task.parent === null ? 'roots' : 'children'
    if (first) window[line] = new Set([task, ...window[line]])
    else window[line].add(task)
    this.#touched.add(window)
  }

  /** Its turn was given before (by another gateway). Ancestors first. */
  seat(task: Task): void {
    const window = this.#window(task)
    if (window.seats.has(task)) return
    window.children.delete(task)
    window.roots.delete(task)
    const size = this.#size(window.agent)
    this.#take(window, task, window.own < size ? null : (this.#lender(window, task)?.free ?? null))
  }

  /** It has ended, or is delayed anew. */
  leave(task: Task): void {
    const window = this.#windows.get(idOf(task))
    if (window === undefined) return
    window.children.delete(task)
    window.roots.delete(task)
    const seat = window.seats.get(task)
    if (seat !== undefined) {
      window.seats.delete(task)
      const above = seat.from === null ? undefined : window.seats.get(seat.from)
      const below = seat.lent === null ? undefined : window.seats.get(seat.lent)
      // Whom it lent its seat has it from now on.
      if (below !== undefined) below.from = seat.from
      else if (seat.from === null) window.own -= 1
      if (above !== undefined) above.lent = seat.lent
    }
    if (window.seats.size + window.children.size + window.roots.size === 0) this.#windows.delete(window.id)
    else this.#touched.add(window)
  }

  /** It was parked, or is no longer. */
  touch(task: Task): void {
    const window = this.#windows.get(idOf(task))
    if (window !== undefined) this.#touched.add(window)
  }

  /** The windows' sizes may be others. */
  touchAll(): void {
    for (const window of this.#windows.values()) if (window.children.size + window.roots.size > 0) this.#touched.add(window)
  }

  /** Those whose turn has come since; they have their seats. */
  turns(): readonly Task[] {
    if (this.#touched.size === 0) return []
    const turns: Task[] = []
    for (const window of this.#touched) this.#turnsOf(window, turns)
    this.#touched.clear()
    return turns
  }

  #turnsOf(window: Window, turns: Task[]): void {
    const size = this.#size(window.agent)
    let running = 0
    for (const task of window.seats.keys()) if (!isParked(task)) running += 1
    for (const line of [window.children, window.roots]) {
      for (const task of line) {
        // Each lent seat has one that runs: with so many running there is none to take and none to lend.
        if (running >= size) return
        if (!this.#admit(window, task, size)) {
          if (line === window.roots) return
          continue
        }
        line.delete(task)
        turns.push(task)
        if (!isParked(task)) running += 1
      }
    }
  }

  #admit(window: Window, task: Task, size: number): boolean {
    if (window.own < size) {
      this.#take(window, task, null)
      return true
    }
    if (task.parent === null) return false
    const lender = this.#lender(window, task)
    if (lender?.free === null) return false
    this.#take(window, task, lender?.free ?? null)
    return true
  }

  #take(window: Window, task: Task, from: Task | null): void {
    window.seats.set(task, { from, lent: null })
    const above = from === null ? undefined : window.seats.get(from)
    if (above === undefined) window.own += 1
    else above.lent = task
  }

  /** undefined: no ancestor has a seat here. `free`: the nearest that can lend. */
  #lender(window: Window, task: Task): { readonly free: Task | null } | undefined {
    let found: { readonly free: Task | null } | undefined
    for (let above = this.#parent(task); above !== undefined; above = this.#parent(above)) {
      const seat = window.seats.get(above)
      if (seat === undefined) continue
      if (seat.lent === null) return { free: above }
      found = { free: null }
    }
    return found
  }

  #parent(task: Task): Task | undefined {
    return task.parent === null ? undefined : this.#task(task.parent)
  }

  #window(task: Task): Window {
    const id = idOf(task)
    const known = this.#windows.get(id)
    if (known !== undefined) return known
    const made: Window = { agent: task.agent, id, seats: new Map(), own: 0, children: new Set(), roots: new Set() }
    this.#windows.set(id, made)
    return made
  }

  view(task: Task): WindowView | null {
    const window = this.#windows.get(idOf(task))
    if (window === undefined) return null
    const before = [...window.children, ...window.roots].indexOf(task)
    return { size: this.#size(window.agent), seats: window.seats.size, before: before < 0 ? null : before }
  }

  clear(): void {
    this.#windows.clear()
    this.#touched.clear()
  }
}

const idOf = (task: Task): string => `${task.agent} ${task.key}`
