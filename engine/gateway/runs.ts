/**
 * Runs and their pipelines. The record in the broker holds the definition and one field per job of the pipeline, written once per
 * transition, before the tasks that follow from it; all else is read from the tasks, at any time and at every start.
 */
import type { Json, SubmitReply, SubmitRequest, WorkStatus } from '../../spec/protocol.ts'
import type { HashField } from '../broker/port.ts'
import type { Needs, Refusal } from './admission.ts'
import type { Archive } from './archive.ts'
import type { Archiver } from './archiver.ts'
import { dedupHash, dedupRun, Turns } from './dedup.ts'
import { Delays } from './delays.ts'
import { readDelayed, readJobs, readRun } from './recovery.ts'
import { makeRun, type Run } from './run.ts'
import type { RunChildren } from './run-children.ts'
import { insist, type RunKit } from './run-kit.ts'
import { CLOSED_FROM_ARCHIVE, jobField, LOST_FIELD, PLAIN_JOB } from './run-record.ts'
import { RunSteps } from './run-steps.ts'
import { addTasks } from './run-tasks.ts'
import { refuse, type Submission, submission } from './submission.ts'
import { newRunId, RUN_ID } from '../ulid.ts'
import type { Task } from './work.ts'

/** The start of a delayed run failed: once more after this. */
const AGAIN_MS = 1_000

export interface RunsOptions extends Omit<RunKit, 'isClosing'> {
  readonly archive: Archive | null
  readonly archiver: Archiver
  /** A run was made, and nothing has happened in it. */
  readonly began: (run: string) => void
}

export class Runs {
  readonly #options: RunsOptions
  readonly #kit: RunKit
  readonly #steps: RunSteps
  readonly #open = new Map<string, Run>()
  /** Closed, with tasks that their agents have not let go yet: they are archived after that. */
  readonly #leaving = new Map<string, Run>()
  readonly #turns = new Turns()
  readonly #delays = new Delays((id) => void this.#begin(id))
  readonly #submitting = new Set<Promise<SubmitReply>>()
  #held: Promise<void> | null = null
  /** Which runs are open is known. */
  #recovered = false
  #closing = false
  #touched = false

  constructor(options: RunsOptions) {
    this.#options = options
    this.#kit = { ...options, isClosing: () => this.#closing }
    this.#steps = new RunSteps(this.#kit, (run) => this.#ended(run))
  }

  /** Until all have been read, any may be: what is wrongly kept is cancelled then, what is wrongly removed is lost. */
  isOpen(run: string): boolean {
    const known = this.#open.get(run)
    return known === undefined ? !this.#recovered : known.status === 'running'
  }
  /** As it stands in memory; null: it has ended, or there is none. */
  opened(id: string): Pick<Run, 'definition' | 'jobs' | 'tasks'> | null {
    return this.#open.get(id) ?? null
  }
  get openCount(): number {
    return this.#open.size
  }
  /** Has anything happened since this was asked last? */
  takeTouched(): boolean {
    const touched = this.#touched
    this.#touched = false
    return touched
  }

  /** The same id, or the same key, again is the same run. */
  async submit(request: SubmitRequest): Promise<SubmitReply> {
    while (this.#held !== null) await this.#held
    const made = this.#take(request)
    this.#submitting.add(made)
    return made.finally(() => this.#submitting.delete(made))
  }

  /** Nothing is submitted until `release`, and what was being submitted is done. */
  async hold(): Promise<() => void> {
    while (this.#held !== null) await this.#held
    const held = Promise.withResolvers<void>()
    this.#held = held.promise
    await Promise.allSettled(this.#submitting)
    return () => {
      this.#held = null
      held.resolve()
    }
  }

  async #take(request: SubmitRequest): Promise<SubmitReply> {
    if (request.id !== undefined && !RUN_ID.test(request.id))
      throw refuse(400, 'AG6006', `a run id must be run_ and a ULID, got "${request.id.slice(0, 40)}"`)
    const { id, dedup_key } = request
    const make = (): Promise<SubmitReply> =>
      id === undefined ? this.#submit(newRunId(), request, true) : this.#turns.take(id, () => this.#submit(id, request, false))
    if (dedup_key === undefined) return make()
    const key = dedupHash(dedup_key)
    return this.#turns.take(key, async () => {
      const known = await dedupRun(this.#kit.broker, key, (run) => this.#open.has(run))
      return known === null ? make() : { run: known, existing: true }
    })
  }

  async #submit(id: string, request: SubmitRequest, isNew: boolean): Promise<SubmitReply> {
    const { archive, admission, project, tracing } = this.#options
    if (this.#open.has(id) || archive?.has(id) === true) return { run: id, existing: true }
    const now = Date.now()
    const made = submission(project(), request, tracing.run(id, request.traceparent ?? null), now)
    const refusal = await admission.ask(made.needs)
    if (refusal !== null) {
      // A submit that is sent again finds its run, however full it is now.
      if (await this.#isKnown(id)) return { run: id, existing: true }
      throw refused(id, refusal)
    }
    let arrived = true
    try {
      if (isNew && made.tasks !== null && made.definition.start_at === undefined) {
        await this.#createStarted(id, made, made.tasks, now)
        return { run: id }
      }
      const run = await this.#create(id, made, now, isNew)
      if (run === null) return { run: id, existing: true }
      tracing.runStarted(run)
      if (run.definition.start_at !== undefined) {
        arrived = false
        this.#delays.add(id, run.definition.start_at)
      } else if (made.tasks === null) await this.#steps.advance(run)
      else await this.#startPlain(run, made.tasks)
    } finally {
      admission.written(made.needs)
      if (arrived) admission.arrived(made.needs)
    }
    return { run: id }
  }

  async #isKnown(id: string): Promise<boolean> {
    return typeof (await this.#kit.broker.readRunFields([id], ['created']))[0]?.[0] === 'string'
  }

  /** Record and tasks in one go: the broker takes them in the order in which they are sent, so there is no task without its run. */
  async #createStarted(id: string, made: Submission, tasks: readonly Json[], now: number): Promise<void> {
    const { dispatcher, tracing } = this.#options
    const creating = this.#create(id, made, now, true)
    const run = this.#open.get(id)
    if (run === undefined) return void (await creating)
    tracing.runStarted(run)
    let isRefused = false
    const starting = this.#startPlain(run, tasks, () => isRefused)
    try {
      await creating
    } catch (error) {
      // Without its record there is no run: what came in after all is taken out again.
      isRefused = true
      run.status = 'cancelled'
      await starting.catch(() => {})
      await dispatcher().cancel([...run.tasks])
      throw error
    }
    await starting
  }

  /** null: there is one already. `isNew`: there cannot be. */
  async #create(id: string, { definition, tasks }: Submission, now: number, isNew: boolean): Promise<Run | null> {
    const { began, broker, witness } = this.#options
    const run = makeRun(id, definition, now)
    const fields: HashField[] = [
      ['def', JSON.stringify(definition)],
      ['status', 'running'],
    ]
    if (tasks !== null) {
      fields.push(['tasks', JSON.stringify(tasks)], [jobField(PLAIN_JOB), JSON.stringify({ phase: 'running', items: tasks.length })])
      Object.assign(run.jobs.get(PLAIN_JOB) ?? {}, { items: tasks.length })
    }
    this.#touched = true
    this.#open.set(id, run)
    if (isNew) began(id)
    const seq = await broker.createRun(id, run.created, fields, definition.dedup?.key, isNew).catch((error: unknown) => {
      this.#open.delete(id)
      throw isFull(error) ? refuse(503, 'AG6009', `the broker's memory is full; run ${id} was not made`) : error
    })
    if (seq === null) {
      this.#open.delete(id)
      return null
    }
    if (!isNew) began(id)
    const jobs = Object.fromEntries(Object.values(definition.pipeline.jobs).map((job) => [job.id, job.agent]))
    await witness.submitted({ run: id, seq, at: now, pipeline: definition.name, jobs, traceparent: definition.traceparent })
    return run
  }

  async #startPlain(run: Run, tasks: readonly Json[], isRefused: () => boolean = () => false): Promise<void> {
    const [definition] = Object.values(run.definition.pipeline.jobs)
    const job = run.jobs.get(PLAIN_JOB)
    if (definition === undefined || job === undefined) return
    Object.assign(job, { phase: 'running', items: tasks.length })
    await addTasks({ ...this.#kit, isClosing: () => this.#closing || isRefused() }, run, definition, tasks)
    // All are queued: the inputs need not be kept twice.
    void this.#kit.broker.dropRunFields(run.id, ['tasks']).catch(() => {})
  }

  /** The delay of a run is over. */
  async #begin(id: string): Promise<void> {
    const run = this.#open.get(id)
    if (run === undefined || run.status !== 'running') return
    this.#touched = true
    try {
      if (run.pipeline !== null) await this.#steps.advance(run)
      else {
        const text = (await this.#kit.broker.readRun(id))?.get('tasks')
        await this.#startPlain(run, text === undefined ? [] : (JSON.parse(text) as Json[]))
      }
      this.#options.admission.arrived(needsOf(run))
    } catch (error) {
      if (this.#closing) return
      this.#options.log(`run ${id}: ${String(error)}`)
      this.#delays.add(id, Date.now() + AGAIN_MS)
    }
  }

  /** A task has ended; its job's and its run's next transition follow. */
  taskEnded(task: Task, status: WorkStatus): void {
    this.#touched = true
    const run = this.#open.get(task.run)
    if (run === undefined) {
      this.#left(task)
      return
    }
    run.tasks.delete(task.id)
    if (status !== 'completed') this.#cancelChildren(run, task)
    if (task.job === null || run.status !== 'running') return
    const job = run.jobs.get(task.job)
    if (job === undefined || job.phase !== 'running') return
    job.ended += 1
    job.statuses.add(status)
    // In a pipeline the first failure is the end; plain tasks do not depend on each other.
    if (job.ended === job.items || (status !== 'completed' && run.pipeline !== null)) void this.#steps.advance(run)
  }

  /** A child of this run's, made by delegation. */
  childAdded(task: Task): void {
    this.#open.get(task.run)?.tasks.add(task.id)
  }

  /** To be counted up by who delegates; of a run that is not known (yet): nobody's. */
  childrenOf(run: string): RunChildren {
    return this.#open.get(run)?.children ?? { tasks: 0, bytes: 0 }
  }

  /** Is there room for children? null: yes, until `delegated` of the same. */
  mayDelegate(needs: Needs): Refusal | null {
    this.#touched = true
    return this.#options.admission.askNow(needs)
  }
  delegated(needs: Needs): void {
    this.#options.admission.written(needs)
    this.#options.admission.arrived(needs)
  }

  #cancelChildren(run: Run, parent: Task): void {
    if (parent.children === 0) return
    const { dispatcher, log } = this.#options
    const children = [...run.tasks].filter((id) => dispatcher().task(id)?.parent === parent.id)
    void dispatcher()
      .cancel(children)
      .catch((error: unknown) => log(`children of ${parent.id}: ${String(error)}`))
  }

  async #ended(run: Run): Promise<void> {
    this.#touched = true
    // It was read anew meanwhile, and whoever stands for it now sees that it is closed, or closes it once more.
    if (run.stale) return
    this.#open.delete(run.id)
    if (this.#delays.due(run.id) !== null) this.#options.admission.arrived(needsOf(run))
    this.#delays.delete(run.id)
    for (const watcher of [...run.watchers]) watcher()
    if (run.tasks.size === 0) return this.#options.archiver.add(run.id, sizeOf(run))
    this.#leaving.set(run.id, run)
    await this.#options.dispatcher().cancel([...run.tasks])
    // Some were fetched or gone without a word.
    for (const id of [...run.tasks]) if (this.#options.dispatcher().task(id) === undefined) this.#gone(run, id)
  }

  #left({ id, run: name }: Task): void {
    const run = this.#leaving.get(name)
    if (run !== undefined) this.#gone(run, id)
  }

  #gone(run: Run, task: string): void {
    run.tasks.delete(task)
    if (run.tasks.size === 0 && this.#leaving.delete(run.id)) this.#options.archiver.add(run.id, sizeOf(run))
  }

  /** false: it had ended before. */
  async cancel(id: string): Promise<boolean> {
    while (this.#held !== null) await this.#held
    const run = this.#open.get(id)
    if (run === undefined || run.ending) return false
    // At once: no step starts anything from here on.
    run.status = 'cancelled'
    try {
      await this.#steps.end(run, 'cancelled')
      return true
    } catch (error) {
      if (!run.stale) throw error
      return this.cancel(id)
    }
  }

  /** Until the run has ended or the time is over. */
  whenEnded(id: string, ms: number, signal: AbortSignal): Promise<void> {
    const run = this.#open.get(id)
    if (run === undefined || ms <= 0 || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        run.watchers.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      run.watchers.add(done)
      signal.addEventListener('abort', done, { once: true })
    })
  }

  /** `unfinished`: what the broker's queues hold. Called again after a loss of data; then within `hold`. */
  async recover(unfinished: readonly Task[]): Promise<void> {
    const { archive, archiver, broker, dispatcher } = this.#options
    const before = [...this.#open.values()]
    for (const run of before) run.stale = true
    this.#recovered = false
    this.#open.clear()
    this.#leaving.clear()
    this.#delays.clear()
    const byRun = Map.groupBy(unfinished, (task) => task.run)
    for (const id of await broker.openRuns()) {
      const record = await broker.readRun(id)
      const status = record?.get('status')
      const known = archive?.entry(id)
      if (record === null || !record.has('def')) await broker.forgetRun(id)
      else if (known !== undefined)
        await insist(this.#kit, () =>
          broker.closeRun(id, [
            ['status', known.status],
            ['ended', String(known.ended)],
            [LOST_FIELD, CLOSED_FROM_ARCHIVE],
          ]),
        )
      else if (status !== undefined && status !== 'running') await broker.closeRun(id, [['status', status]])
      else await this.#reopen(id, record, byRun.get(id) ?? [])
    }
    this.#recovered = true
    const rest = unfinished.filter((task) => !this.#open.has(task.run) && dispatcher().task(task.id) !== undefined)
    for (const [id, tasks] of Map.groupBy(rest, (task) => task.run)) this.#leave(id, tasks)
    await dispatcher().cancel(rest.map((task) => task.id))
    const ended = (await broker.listRuns()).filter((run) => !this.#open.has(run) && !this.#leaving.has(run))
    for (const run of ended.reverse()) archiver.add(run, 0)
    for (const run of this.#open.values()) if (this.#delays.due(run.id) === null) void this.#steps.advance(run)
    // Whoever waited for a run as it was before looks again.
    for (const run of before) for (const watcher of [...run.watchers]) watcher()
  }

  async #reopen(id: string, record: ReadonlyMap<string, string>, tasks: readonly Task[]): Promise<void> {
    // One of them may have ended meanwhile, by the death of its agent.
    const run = readRun(
      id,
      record,
      tasks.filter((task) => this.#options.dispatcher().task(task.id) !== undefined),
    )
    if (run === null) return
    this.#open.set(id, run)
    const due = run.definition.start_at ?? 0
    if (due <= Date.now()) {
      const read = readJobs(this.#kit, run, record)
      run.advancing = read.catch(() => {})
      return read
    }
    readDelayed(run, record)
    this.#options.admission.expect(needsOf(run))
    this.#delays.add(id, due)
  }

  #leave(id: string, tasks: readonly Task[]): void {
    const definition = { name: null, pipeline: { name: '', inputs: {}, jobs: {} }, inputs: {}, parent: null, traceparent: '' }
    const run = makeRun(id, definition, 0)
    for (const task of tasks) run.tasks.add(task.id)
    this.#leaving.set(id, run)
  }

  close(): void {
    this.#closing = true
    this.#delays.clear()
    this.#steps.close()
    for (const run of this.#open.values()) for (const watcher of [...run.watchers]) watcher()
  }
}

const refused = (id: string, { kind, message }: Refusal): Error =>
  kind === 'queue'
    ? refuse(429, 'AG6008', `${message}; run ${id} was not made`)
    : refuse(503, 'AG6009', `${message}; run ${id} was not made`)
const sizeOf = (run: Run): number => [...run.jobs.values()].reduce((sum, { items }) => sum + items, 0)
const isFull = (error: unknown): boolean => error instanceof Error && error.name === 'ReplyError' && /^(OOM|EXECABORT)/.test(error.message)

/** What a run that waits for its time will need, by number. */
function needsOf(run: Run): Needs {
  const needs = new Map<string, { tasks: number; bytes: number }>()
  for (const { id, agent, needs: before, foreach } of Object.values(run.definition.pipeline.jobs)) {
    if (before.length > 0 || (run.pipeline !== null && foreach !== null)) continue
    const tasks = run.pipeline === null ? (run.jobs.get(id)?.items ?? 0) : 1
    needs.set(agent, { tasks: (needs.get(agent)?.tasks ?? 0) + tasks, bytes: 0 })
  }
  return needs
}
