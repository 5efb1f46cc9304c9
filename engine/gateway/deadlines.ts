/**
 * Deadlines of tasks and executions. What they are follows from the task's head, its lease and the agent's policy, so a restarted gateway
 * has the same ones. One timer for all, and only while there is a task that has one.
 */
import type { Timeouts } from '../../spec/model.ts'
import type { WorkError } from '../../spec/protocol.ts'
import type { Lease, Task } from './work.ts'

const TICK_MS = 100

/** Null: neither the agent nor the run has any. */
export function limitsOf(agent: Timeouts | undefined, { timeouts: run }: Pick<Task, 'timeouts'>): Timeouts | null {
  if (run !== undefined) {
    return {
      schedule_to_start_ms: run.schedule_to_start_ms ?? agent?.schedule_to_start_ms ?? null,
      start_to_close_ms: run.start_to_close_ms ?? agent?.start_to_close_ms ?? null,
      schedule_to_close_ms: run.schedule_to_close_ms ?? agent?.schedule_to_close_ms ?? null,
      heartbeat_ms: run.heartbeat_ms ?? agent?.heartbeat_ms ?? null,
    }
  }
  if (agent === undefined) return null
  const { schedule_to_start_ms, start_to_close_ms, schedule_to_close_ms, heartbeat_ms } = agent
  return schedule_to_start_ms === null && start_to_close_ms === null && schedule_to_close_ms === null && heartbeat_ms === null
    ? null
    : agent
}

/** Why an execution (or a task that waits) is over. */
export interface Expiry {
  readonly kind: 'schedule_to_start' | 'start_to_close' | 'schedule_to_close' | 'heartbeat'
  /** The task ends with it; else the execution does, and `retry` says what becomes of the task. */
  readonly final: boolean
  readonly error: WorkError
}

type Timed = { readonly kind: Expiry['kind']; readonly at: number }

/** Those that run now, of a task that has limits. */
function running(task: Task, limits: Timeouts): readonly Timed[] {
  const { lease, created } = task
  const all: Timed[] = []
  const add = (kind: Expiry['kind'], from: number, ms: number | null): void => {
    if (ms !== null && from > 0) all.push({ kind, at: from + ms })
  }
  // A lease that is to stop already ends by its own grace.
  if (lease !== null && lease.cancel !== null) return all
  add('schedule_to_close', created, limits.schedule_to_close_ms)
  if (lease === null && (task.epoch ?? 0) === 0 && task.retry !== true) add('schedule_to_start', created, limits.schedule_to_start_ms)
  if (lease !== null) {
    add('start_to_close', lease.since, limits.start_to_close_ms)
    // A child that works is a sign of its parent's work; its end is the last one.
    if (task.children === 0) add('heartbeat', lease.sign, limits.heartbeat_ms)
  }
  return all
}

const nearest = (timed: readonly Timed[]): Timed | null =>
  timed.reduce<Timed | null>((first, it) => (first === null || it.at < first.at ? it : first), null)

/** Unix ms at which this execution is given up however well it goes; null: never. Silence (`heartbeat`) moves with each sign and is not told. */
export const deadlineOf = (lease: Lease, limits: Timeouts | null): number | null =>
  limits === null ? null : (nearest(running(lease.task, limits).filter(({ kind }) => kind !== 'heartbeat'))?.at ?? null)

export function expiryOf(task: Task, limits: Timeouts, now: number): Expiry | null {
  const first = nearest(running(task, limits))
  return first === null || first.at > now ? null : expiry(first.kind, limits[`${first.kind}_ms`] ?? 0)
}

const seconds = (ms: number): string => `${ms / 1_000} s`

function expiry(kind: Expiry['kind'], ms: number): Expiry {
  const final = kind === 'schedule_to_start' || kind === 'schedule_to_close'
  const [code, message] = {
    schedule_to_start: ['deadline', `not started within ${seconds(ms)} (schedule_to_start)`],
    schedule_to_close: ['deadline', `not ended within ${seconds(ms)} of its submit (schedule_to_close)`],
    start_to_close: ['timeout', `the execution took longer than ${seconds(ms)} (start_to_close)`],
    heartbeat: ['heartbeat_timeout', `no progress, step, log or child for ${seconds(ms)} (heartbeat)`],
  }[kind] as [string, string]
  return { kind, final, error: { code, message, retryable: !final } }
}

export interface DeadlinesOptions {
  readonly limits: (task: Task) => Timeouts | null
  /** The expiry stands until the task or its lease changes: it is told once for each look. */
  readonly expired: (task: Task, expiry: Expiry) => void
  /** Nobody can tell an end now. */
  readonly paused: () => boolean
}

export class Deadlines {
  readonly #options: DeadlinesOptions
  /** By the tick at which they are looked at; a deadline that moved meanwhile is found then. */
  readonly #buckets = new Map<number, Set<Task>>()
  readonly #at = new Map<Task, number>()
  #timer: NodeJS.Timeout | null = null
  #next = 0
  #notBefore = 0

  constructor(options: DeadlinesOptions) {
    this.#options = options
  }

  /** After each change that brings a deadline nearer: the task is new, or leased. */
  watch(task: Task): void {
    const limits = this.#options.limits(task)
    if (limits === null) return
    let at = nearest(running(task, limits))?.at ?? null
    // The child may end, and then its parent's silence begins.
    if (task.lease !== null && task.children > 0 && limits.heartbeat_ms !== null)
      at = Math.min(at ?? Number.POSITIVE_INFINITY, Date.now() + limits.heartbeat_ms)
    if (at !== null) this.#put(task, Math.ceil(at / TICK_MS))
  }

  #put(task: Task, at: number): void {
    const tick = Math.max(at, this.#timer === null ? 0 : this.#next)
    const known = this.#at.get(task)
    if (known !== undefined && known <= tick) return
    if (known !== undefined) this.#buckets.get(known)?.delete(task)
    this.#at.set(task, tick)
    const bucket = this.#buckets.get(tick)
    if (bucket === undefined) this.#buckets.set(tick, new Set([task]))
    else bucket.add(task)
    if (this.#timer !== null) return
    this.#next = Math.min(tick, Math.floor(Date.now() / TICK_MS))
    this.#timer = setInterval(() => this.#look(), TICK_MS)
  }

  forget(task: Task): void {
    const tick = this.#at.get(task)
    if (tick === undefined) return
    this.#at.delete(task)
    const bucket = this.#buckets.get(tick)
    bucket?.delete(task)
    if (bucket?.size === 0) this.#buckets.delete(tick)
  }

  /** Agents could not tell their ends for a while (no gateway, no broker): they have so long to do it now. */
  spare(ms: number): void {
    this.#notBefore = Math.max(this.#notBefore, Date.now() + ms)
  }

  #look(): void {
    const now = Date.now()
    if (now < this.#notBefore || this.#options.paused()) return
    const until = Math.floor(now / TICK_MS)
    const due: Task[] = []
    // After a long stop of this process, or with few tasks, the ticks in between are more than the buckets.
    const ticks =
      until - this.#next > this.#buckets.size ? [...this.#buckets.keys()].filter((tick) => tick <= until) : range(this.#next, until)
    for (const tick of ticks) {
      for (const task of this.#buckets.get(tick) ?? []) {
        due.push(task)
        this.#at.delete(task)
      }
      this.#buckets.delete(tick)
    }
    this.#next = until + 1
    for (const task of due) this.#meet(task, now)
    if (this.#at.size > 0 || this.#timer === null) return
    clearInterval(this.#timer)
    this.#timer = null
  }

  #meet(task: Task, now: number): void {
    const limits = this.#options.limits(task)
    const met = limits === null ? null : expiryOf(task, limits, now)
    if (met !== null) this.#options.expired(task, met)
    this.watch(task)
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    this.#buckets.clear()
    this.#at.clear()
  }
}

const range = (from: number, to: number): readonly number[] =>
  Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index)
