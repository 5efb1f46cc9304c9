/** When a task may join the line: delays, turns of keys, the order of priorities, and each queue's rate. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { DelayedTask, NewTask, TaskRef } from '../broker/port.ts'
import type { Queue } from './book.ts'
import type { Desk } from './desk.ts'
import { DueTimes } from './due-times.ts'
import { keyOf } from './key-of.ts'
import { encodeTask, inputOf, isInLine, type Task } from './work.ts'

/** Limits of a changed record, and the sizes of windows as replicas come and go, are followed within this. */
const FOLLOW_MS = 1_000
const REFUSED_PAUSE_MS = 500

export class Schedule {
  readonly #desk: Desk
  readonly #deal: (queue: Queue) => void
  readonly #due: DueTimes<Task>
  readonly #timer: NodeJS.Timeout
  readonly #off: () => void
  /** What was last written of each queue's rate. */
  readonly #rates = new Map<string, string>()
  #promoting = false
  readonly #turns: Task[] = []
  #turning = false
  /** Under way. */
  readonly #adds = new Set<Promise<void>>()

  constructor(desk: Desk, deal: (queue: Queue) => void) {
    this.#desk = desk
    this.#deal = deal
    this.#due = new DueTimes((task, at) => this.#ring(task, at))
    this.#timer = setInterval(() => this.#follow(), FOLLOW_MS)
    // Another Redis may be there, with none of them.
    this.#off = desk.broker.onConnected(() => this.#rates.clear())
  }

  // ---- adding ----

  /** How a task is put into its queue. Its key is found here, and stands in its data from then on. */
  place(task: Task, data: string): NewTask {
    const policy = this.#desk.agent(task.agent)?.work
    let text = data
    if (policy !== undefined && policy.key !== null && task.key === undefined) {
      task.key = keyOf(policy.key, task, data)
      text = encodeTask(task, inputOf(data))
    }
    const ahead = task.created - Date.now()
    const base = { queue: task.agent, id: task.id, data: text }
    const { ordered } = this.#desk.book.queue(task.agent)
    if (task.key === undefined && ahead <= 0 && !ordered) return base
    if (task.key !== undefined) task.held = true
    if (ahead > 0) task.due = task.created
    return {
      ...base,
      ...(ordered ? { priority: task.priority ?? 0 } : {}),
      ...(ahead > 0 ? { delay_ms: ahead } : {}),
      ...(task.held === true ? { held: true } : {}),
    }
  }

  /** The first task with a priority puts its queue in order. Before `place`. */
  order(tasks: readonly { readonly task: Task }[]): Promise<unknown> | null {
    const ordering = new Set<Promise<void>>()
    for (const { task } of tasks) {
      const queue = this.#desk.book.queue(task.agent)
      if (task.priority !== undefined && task.priority !== 0 && !queue.ordered) this.putInOrder(queue)
      if (queue.ordering !== null) ordering.add(queue.ordering)
    }
    return ordering.size === 0 ? null : Promise.all(ordering)
  }

  /** What is on its way into a plain line must have arrived before that line is put in order. */
  adding(add: Promise<void>): Promise<void> {
    this.#adds.add(add)
    const arrived = (): boolean => this.#adds.delete(add)
    add.then(arrived, arrived)
    return add
  }

  putInOrder(queue: Queue): void {
    queue.ordered = true
    const ordering = this.#order(queue)
      .catch((error: unknown) => {
        queue.ordered = false
        throw error
      })
      .finally(() => {
        queue.ordering = null
        this.#deal(queue)
      })
    ordering.catch(() => {})
    queue.ordering = ordering
  }

  async #order({ name }: Queue): Promise<void> {
    const { book, broker } = this.#desk
    await Promise.allSettled(this.#adds)
    const others = [...book.tasks.values()].filter((task) => task.agent === name && !isInLine(task) && (task.priority ?? 0) === 0)
    await broker.order(
      name,
      others.map((task) => task.id),
    )
  }

  /** The broker has it. True: it is in line. */
  added(task: Task): boolean {
    if (task.due !== undefined) this.#due.add(task, task.due)
    else if (task.held === true) this.#desk.book.keys.wait(task, false)
    return task.held !== true && task.due === undefined
  }

  // ---- later ----

  later(task: Task, delay_ms: number): void {
    task.due = Date.now() + Math.max(1, Math.ceil(delay_ms))
    task.retry = true
    if (task.key !== undefined) {
      task.held = true
      this.#desk.book.keys.leave(task)
      this.soon()
    }
    this.#due.add(task, task.due)
  }

  #ring(task: Task, at: number): void {
    const { book } = this.#desk
    // Removed, fetched already, or delayed anew.
    if (book.tasks.get(task.id) !== task || task.due !== at || task.lease !== null) return
    task.due = undefined
    if (task.held !== true) return this.#joined(task)
    book.keys.wait(task, task.retry === true)
    this.turns()
  }

  #joined(task: Task): void {
    const queue = this.#desk.book.queue(task.agent)
    queue.waiting += 1
    this.#deal(queue)
  }

  /** After anything that may free a seat: what is being done is finished first, and many at once cost one script call. */
  soon(): void {
    if (this.#turning) return
    this.#turning = true
    queueMicrotask(() => {
      this.#turning = false
      this.turns()
    })
  }

  /** Those whose key's turn has come join the line. */
  turns(): void {
    const turns = this.#desk.book.keys.turns()
    if (turns.length === 0) return
    this.#turns.push(...turns)
    if (!this.#promoting) void this.#promote()
  }

  async #promote(): Promise<void> {
    const { book, broker, log } = this.#desk
    this.#promoting = true
    while (this.#turns.length > 0 && !this.#desk.closing) {
      const tasks = this.#turns.splice(0).filter((task) => book.tasks.get(task.id) === task)
      try {
        await broker.promote(tasks.map((task): TaskRef => ({ queue: task.agent, id: task.id })))
      } catch (error) {
        // They have their turn: nobody else would ask for it again.
        log(`turns of keys: ${String(error)}`)
        this.#turns.unshift(...tasks)
        await sleep(REFUSED_PAUSE_MS)
        continue
      }
      for (const task of tasks) {
        task.held = false
        if (book.tasks.get(task.id) === task && task.lease === null) this.#joined(task)
      }
    }
    this.#promoting = false
  }

  // ---- what another gateway left ----

  async adopt(name: string, track: (id: string, name: string, data: string) => void): Promise<void> {
    const { book, broker } = this.#desk
    // Before the first fetch, also to take away what is no longer wanted.
    await this.#rate(name)
    for (const it of await broker.delayed(name)) {
      track(it.id, name, it.data)
      const task = book.tasks.get(it.id)
      if (task !== undefined) this.#resume(task, it)
    }
  }

  #resume(task: Task, { due, held, retry }: DelayedTask): void {
    const queue = this.#desk.book.queue(task.agent)
    const now = Date.now()
    if (held) task.held = true
    if (retry) task.retry = true
    // A held task that was delayed from its beginning has its time in its head only.
    const at = held && due === null ? task.created : (due ?? 0)
    if (at > now) task.due = at
    else if (!held) queue.waiting += 1
  }

  /** All tasks and their parents are known. */
  adopted(): void {
    const { book } = this.#desk
    const keyed = [...book.tasks.values()].filter((task) => task.key !== undefined)
    for (const task of keyed.filter((it) => it.held !== true).sort((a, b) => a.depth - b.depth)) book.keys.seat(task)
    for (const task of keyed) if (task.held === true && task.due === undefined) book.keys.wait(task, false)
    for (const task of book.tasks.values()) if (task.due !== undefined) this.#due.add(task, task.due)
    this.turns()
  }

  /** All leases are known too. The gateway before may have been in the middle of putting a queue in order. */
  resume(): void {
    const { book } = this.#desk
    const ordered = new Set<Queue>()
    for (const task of book.tasks.values()) if (task.priority !== undefined && task.priority !== 0) ordered.add(book.queue(task.agent))
    for (const queue of ordered) this.putInOrder(queue)
  }

  clear(): void {
    this.#due.clear()
    this.#turns.length = 0
  }

  // ---- limits of the record ----

  /** Of a queue that is new here: sent before its first fetch. */
  made(name: string): void {
    void this.#rate(name).catch(() => {})
  }

  #follow(): void {
    const { book, broker, log } = this.#desk
    if (!broker.connected || !this.#desk.adopted || this.#desk.closing) return
    for (const name of book.queues.keys()) void this.#rate(name).catch((error: unknown) => log(`rate of ${name}: ${String(error)}`))
    book.keys.touchAll()
    this.turns()
  }

  async #rate(name: string): Promise<void> {
    const rate = this.#desk.agent(name)?.work.rate ?? null
    const text = JSON.stringify(rate)
    if (this.#rates.get(name) === text) return
    this.#rates.set(name, text)
    try {
      await this.#desk.broker.setRate(name, rate)
    } catch (error) {
      this.#rates.delete(name)
      throw error
    }
  }

  close(): void {
    clearInterval(this.#timer)
    this.#off()
    this.#due.clear()
  }
}
