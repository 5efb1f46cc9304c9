/** Ended runs go into the archive, one after the other, and only then may the broker forget them. A start finds those that a kill left out. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkStatus } from '../../spec/protocol.ts'
import type { Broker, TaskRef, TaskState } from '../broker/port.ts'
import type { Archive, ArchivedTask } from './archive.ts'
import { withoutLog } from './attempts.ts'
import type { Retention } from './retention.ts'
import { CLOSED_FROM_ARCHIVE, type Definition, LOST_FIELD, tasksOf } from './run-record.ts'
import type { Witness } from './witness.ts'

/** At most 64 × (64 KiB of input + 64 KiB of result) in memory. */
const CHUNK = 64
/** Records of executions that are kept of a task, the latest, and of a run with what they wrote: beyond it without. */
const ATTEMPTS_OF_TASK = 20
const ATTEMPT_BYTES = 8_388_608
const MAX_PAUSE_MS = 30_000
/** Beyond it a run waits for a quiet second: to archive 10,000 tasks takes as much as to route some thousand. */
const LARGE = 500
const MAX_WAIT_MS = 60_000
/** So many times as long as a chunk took is waited for the next one: a fifth of the time at most goes into archiving. */
const IDLE_SHARE = 4
const MAX_QUEUED = 5
/** Of the runs that wait, together. */
const MAX_WAITING = 50_000

export interface ArchiverOptions {
  readonly broker: Broker
  readonly archive: Archive | null
  readonly retention: Retention
  readonly witness: Witness
  /** What has happened is in the broker after it. */
  readonly flushEvents: () => Promise<void>
  readonly log: (message: string) => void
}

export class Archiver {
  readonly #options: ArchiverOptions
  readonly #queue = new Set<string>()
  readonly #waiting = new Map<string, { readonly tasks: number; readonly until: number }>()
  readonly #abort = new AbortController()
  #working: Promise<void> | null = null

  constructor(options: ArchiverOptions) {
    this.#options = options
  }

  /** All tasks of this run have ended or will not be run. */
  add(run: string, tasks: number): void {
    if (this.#options.archive === null) return
    if (tasks <= LARGE) this.#push(run)
    else this.#waiting.set(run, { tasks, until: Date.now() + MAX_WAIT_MS })
    if (this.#waiting.size > 0) this.look(false)
  }

  /** `quiet`: nothing has happened for a while. */
  look(quiet: boolean): void {
    const now = Date.now()
    let tasks = [...this.#waiting.values()].reduce((sum, it) => sum + it.tasks, 0)
    for (const [run, it] of this.#waiting) {
      if (!quiet && tasks <= MAX_WAITING && it.until > now) return
      tasks -= it.tasks
      this.#waiting.delete(run)
      this.#push(run)
    }
  }

  #push(run: string): void {
    this.#queue.add(run)
    this.#working ??= this.#work().finally(() => {
      this.#working = null
    })
  }

  async #work(): Promise<void> {
    const { signal } = this.#abort
    for (let pause = 500; this.#queue.size > 0 && !signal.aborted; ) {
      const run = this.#queue.values().next().value
      if (run === undefined) return
      try {
        await this.#archive(run)
        this.#queue.delete(run)
        pause = 500
      } catch (error) {
        if (signal.aborted) return
        // The others are not to wait for this one.
        this.#queue.delete(run)
        this.#queue.add(run)
        this.#options.log(
          `archive: run ${run}: ${error instanceof Error ? error.message : String(error)}; it stays in the broker and is tried again`,
        )
        await sleep(pause, undefined, { signal, ref: false }).catch(() => {})
        pause = Math.min(2 * pause, MAX_PAUSE_MS)
      }
    }
  }

  async #archive(run: string): Promise<void> {
    const { archive, broker, retention, witness } = this.#options
    if (archive === null) return
    let entry = archive.entry(run)
    if (entry === undefined) {
      await this.#options.flushEvents()
      const record = await broker.readRun(run)
      const text = record?.get('def')
      if (record === null || text === undefined) return
      // Its end was the archive's, which has dropped it since; what the broker has is older than that end.
      if (record.get(LOST_FIELD) === CLOSED_FROM_ARCHIVE) {
        await retention.forget(run)
        return witness.archived(run)
      }
      const { name, pipeline } = JSON.parse(text) as Definition
      entry = await archive.write({
        run,
        pipeline: name,
        agents: [...new Set(Object.values(pipeline.jobs).map((job) => job.agent))],
        status: (record.get('status') ?? 'failed') as WorkStatus,
        created: Number(record.get('created')),
        ended: Number(record.get('ended') ?? record.get('created')),
        record,
        tasks: this.#read(tasksOf(run, record)),
        events: await broker.readEvents(run),
      })
    }
    witness.archived(run)
    retention.ended({ run, tasks: entry.tasks, bytes: entry.broker_bytes })
  }

  async *#read(refs: readonly TaskRef[]): AsyncGenerator<ArchivedTask> {
    const { signal } = this.#abort
    const budget = { bytes: ATTEMPT_BYTES }
    for (let at = 0; at < refs.length; at += CHUNK) {
      const begin = performance.now()
      const part = refs.slice(at, at + CHUNK)
      const states = await this.#options.broker.read(part)
      const extras = await Promise.all(part.map((ref, index) => this.#extras(ref, states[index] ?? null, budget)))
      for (const [index, { queue, id }] of part.entries()) yield { id, queue, state: states[index] ?? null, ...extras[index] }
      // A large run goes slowly beside the work, unless others wait for their turn.
      if (refs.length > LARGE && this.#queue.size <= MAX_QUEUED)
        await sleep(IDLE_SHARE * (performance.now() - begin), undefined, { signal, ref: false })
    }
  }

  /** Of a task that did not complete at once. */
  async #extras(ref: TaskRef, state: TaskState | null, budget: { bytes: number }): Promise<Pick<ArchivedTask, 'attempts' | 'letter'>> {
    const { broker } = this.#options
    if (state === null || (state.epoch <= 1 && state.failure === null)) return {}
    const all = (await broker.readAttempts(ref)).slice(-ATTEMPTS_OF_TASK)
    const attempts = all.map((text) => {
      budget.bytes -= text.length
      return budget.bytes < 0 ? withoutLog(text) : text
    })
    const isLetter = state.failure !== null && (await broker.deadLetter(ref)) !== null
    return { ...(attempts.length === 0 ? {} : { attempts }), ...(isLetter ? { letter: true } : {}) }
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#working
  }
}
