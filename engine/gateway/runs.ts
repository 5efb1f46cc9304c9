/**
 * Runs and their pipelines. The record in the broker holds the definition and one field per job of the pipeline, written once per
 * transition, before the tasks that follow from it; all else is read from the tasks, at any time and at every start.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { PipelineJob, Project } from '../../spec/model.ts'
import type { Json, SubmitRequest, WorkStatus } from '../../spec/protocol.ts'
import type { Broker, HashField, TaskRef } from '../broker/port.ts'
import { type JobPhase, readyJobs, runStatus, worst } from '../pipeline.ts'
import type { Dispatcher } from './dispatcher.ts'
import { resolveJob, unfitResult } from './results.ts'
import { Retention } from './retention.ts'
import { type Definition, jobField, type JobRecord, PLAIN_JOB, taskId } from './run-record.ts'
import { type Job, jobRecord, makeRun, phasesOf, type Run, statusOf } from './run.ts'
import { refuse, submission } from './submission.ts'
import type { Tracing } from './tracing.ts'
import { newRunId, RUN_ID } from './ulid.ts'
import { encodeTask, type Task } from './work.ts'

/** A broker that refuses a write (out of memory, disk full) is asked again. */
const REFUSED_PAUSE_MS = 500

export interface RunsOptions {
  readonly broker: Broker
  readonly project: () => Project
  readonly dispatcher: () => Dispatcher
  readonly tracing: Tracing
  readonly log: (message: string) => void
}

export class Runs {
  readonly #options: RunsOptions
  readonly #open = new Map<string, Run>()
  readonly #retention: Retention
  #closing = false

  constructor(options: RunsOptions) {
    this.#options = options
    this.#retention = new Retention(options.broker, options.log)
  }

  isOpen(run: string): boolean {
    return this.#open.get(run)?.status === 'running'
  }

  /** The same id again is the same run. */
  async submit(request: SubmitRequest): Promise<string> {
    if (request.id !== undefined && !RUN_ID.test(request.id))
      throw refuse(400, 'AG6006', `a run id must be run_ and a ULID, got "${request.id.slice(0, 40)}"`)
    const id = request.id ?? newRunId()
    if (this.#open.has(id)) return id
    const { broker, project, tracing } = this.#options
    const { definition, tasks } = submission(project(), request, tracing.run(id, request.traceparent ?? null))
    const run = makeRun(id, definition, Date.now())
    const fields: HashField[] = [
      ['def', JSON.stringify(definition)],
      ['status', 'running'],
    ]
    if (tasks !== null)
      fields.push(['tasks', JSON.stringify(tasks)], [jobField(PLAIN_JOB), JSON.stringify({ phase: 'running', items: tasks.length })])
    this.#open.set(id, run)
    const isNew = await broker.createRun(id, run.created, fields).catch((error: unknown) => {
      this.#open.delete(id)
      throw error
    })
    if (!isNew) this.#open.delete(id)
    else if (tasks === null) await this.#advance(run)
    else await this.#startPlain(run, tasks)
    if (isNew) tracing.runStarted(run)
    return id
  }

  async #startPlain(run: Run, tasks: readonly Json[]): Promise<void> {
    const { broker } = this.#options
    const [definition] = Object.values(run.definition.pipeline.jobs)
    const job = run.jobs.get(PLAIN_JOB)
    if (definition === undefined || job === undefined) return
    job.phase = 'running'
    job.items = tasks.length
    await this.#addTasks(run, definition, tasks, null)
    // All are queued: the inputs need not be kept twice.
    void broker.dropRunFields(run.id, ['tasks']).catch(() => {})
  }

  /** A task has ended; its job's and its run's next transition follow. */
  taskEnded(task: Task, status: WorkStatus): void {
    const run = this.#open.get(task.run)
    if (run === undefined) return
    run.tasks.delete(task.id)
    if (status !== 'completed') this.#cancelChildren(run, task)
    if (task.job === null || run.status !== 'running') return
    const job = run.jobs.get(task.job)
    if (job === undefined || job.phase !== 'running') return
    job.ended += 1
    job.statuses.add(status)
    // In a pipeline the first failure is the end; plain tasks do not depend on each other.
    if (job.ended === job.items || (status !== 'completed' && run.pipeline !== null)) void this.#advance(run)
  }

  /** A child of this run's, made by delegation. */
  childAdded(task: Task): void {
    this.#open.get(task.run)?.tasks.add(task.id)
  }

  #cancelChildren(run: Run, parent: Task): void {
    if (parent.children === 0) return
    const { dispatcher, log } = this.#options
    const children = [...run.tasks].filter((id) => dispatcher().task(id)?.parent === parent.id)
    void dispatcher()
      .cancel(children)
      .catch((error: unknown) => log(`children of ${parent.id}: ${String(error)}`))
  }

  /** One step after the other. */
  #advance(run: Run): Promise<void> {
    run.advancing = run.advancing.then(() => this.#steps(run)).catch((error: unknown) => this.#stuck(run, error))
    return run.advancing
  }

  /** What the broker refuses may pass; an error of the code itself is the same at every try, so the run would stay open for ever. */
  async #stuck(run: Run, error: unknown): Promise<void> {
    if (this.#closing) return
    const { log } = this.#options
    log(`run ${run.id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    if (run.status !== 'running' || !(error instanceof RangeError || error instanceof TypeError || error instanceof SyntaxError)) return
    run.ending = false
    await this.#end(run, 'failed').catch((again: unknown) => log(`run ${run.id}: ${String(again)}`))
  }

  async #steps(run: Run): Promise<void> {
    while (run.status === 'running') {
      for (const [id, job] of run.jobs) await this.#settleJob(run, id, job)
      const phases = phasesOf(run)
      const status = runStatus(run.definition.pipeline, phases)
      if (status !== null) {
        await this.#end(run, status)
        return
      }
      const ready = readyJobs(run.definition.pipeline, phases)
      if (ready.length === 0) return
      for (const job of ready) await this.#start(run, job)
    }
  }

  async #settleJob(run: Run, id: string, job: Job): Promise<void> {
    if (job.phase !== 'running') return
    const status = worst(job.statuses)
    if (job.ended < job.items && (status === 'completed' || run.pipeline === null)) return
    job.phase = status as JobPhase
    await this.#writeJob(run, id, job)
  }

  async #writeJob(run: Run, id: string, job: Job): Promise<void> {
    // The run's end is written with the job's: one round trip for the run of one task.
    if (runStatus(run.definition.pipeline, phasesOf(run)) !== null) return
    await this.#insist(() => this.#options.broker.writeRun(run.id, [[jobField(id), JSON.stringify(jobRecord(job))]]))
  }

  async #start(run: Run, definition: PipelineJob): Promise<void> {
    const { broker } = this.#options
    const job = run.jobs.get(definition.id)
    const resolved = await resolveJob(broker, run, definition)
    if (run.status !== 'running' || job === undefined) return
    if (resolved.ok) Object.assign(job, { phase: 'running', items: resolved.inputs.length })
    else Object.assign(job, { phase: 'failed', error: resolved.error })
    await this.#writeJob(run, definition.id, job)
    if (resolved.ok) await this.#addTasks(run, definition, resolved.inputs, null)
  }

  /** `only`: these items (a start that finds some missing). */
  async #addTasks(run: Run, job: PipelineJob, inputs: readonly Json[], only: ReadonlySet<number> | null): Promise<void> {
    const { dispatcher, tracing } = this.#options
    const sent = tracing.send(run.traceparent, job.id)
    const head = { run: run.id, job: job.id, parent: null, depth: 0, type: job.type, sent, created: Date.now() }
    const tasks: { task: Task; data: string }[] = []
    for (const [item, input] of inputs.entries()) {
      if (only !== null && !only.has(item)) continue
      const task: Task = { id: taskId(run.id, job.id, item), agent: job.agent, ...head, children: 0, lease: null }
      run.tasks.add(task.id)
      tasks.push({ task, data: encodeTask(head, JSON.stringify(input)) })
    }
    if (tasks.length === 0) return
    await this.#insist(() => dispatcher().add(tasks))
    tracing.sent(sent, run.traceparent, job.agent, run.id, tasks.length)
    // Cancelled while they were on their way.
    if (run.status !== 'running') await dispatcher().cancel(tasks.map(({ task }) => task.id))
  }

  async #end(run: Run, status: WorkStatus): Promise<void> {
    if (run.ending) return
    run.ending = true
    const { broker, dispatcher, tracing } = this.#options
    const unfit = run.pipeline !== null && status === 'completed' ? await unfitResult(broker, run) : null
    if (unfit !== null) Object.assign(run.jobs.get(unfit.job) ?? {}, { phase: 'failed', error: unfit.error })
    run.status = unfit === null ? status : 'failed'
    let count = 0
    const fields: HashField[] = []
    for (const [id, job] of run.jobs) {
      if (job.phase === 'waiting' || job.phase === 'running') job.phase = 'cancelled'
      count += job.items
      fields.push([jobField(id), JSON.stringify(jobRecord(job))])
    }
    const now = Date.now()
    await this.#insist(() => broker.closeRun(run.id, [...fields, ['status', run.status], ['ended', String(now)], ['count', String(count)]]))
    tracing.runEnded(run, run.status)
    this.#open.delete(run.id)
    for (const watcher of [...run.watchers]) watcher()
    if (run.tasks.size > 0) await dispatcher().cancel([...run.tasks])
    this.#retention.ended({ run: run.id, tasks: count })
  }

  /** Writes that must not get lost because the broker refuses them for a while. Connection errors never come here: those calls wait. */
  async #insist<T>(write: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await write()
      } catch (error) {
        if (this.#closing || !(error instanceof Error) || error.name !== 'ReplyError') throw error
        this.#options.log(`the broker refuses: ${error.message}`)
        await sleep(REFUSED_PAUSE_MS)
      }
    }
  }

  /** false: it had ended before. */
  async cancel(id: string): Promise<boolean> {
    const run = this.#open.get(id)
    if (run === undefined || run.ending) return false
    // At once: no step starts anything from here on.
    run.status = 'cancelled'
    await this.#end(run, 'cancelled')
    return true
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

  /** Open runs of the gateway before, told from their records and tasks. `unfinished`: what the broker's queues hold. */
  async recover(unfinished: readonly Task[]): Promise<void> {
    const { broker, dispatcher } = this.#options
    this.#open.clear()
    const byRun = Map.groupBy(unfinished, (task) => task.run)
    for (const id of await broker.openRuns()) {
      const record = await broker.readRun(id)
      const definition = record?.get('def')
      if (record === null || definition === undefined) await broker.forgetRun(id)
      else if (record.get('status') !== 'running') await broker.closeRun(id, [['status', record.get('status') ?? 'failed']])
      else {
        const run = makeRun(id, JSON.parse(definition) as Definition, Number(record.get('created')))
        this.#open.set(id, run)
        for (const task of byRun.get(id) ?? []) run.tasks.add(task.id)
        for (const job of Object.values(run.definition.pipeline.jobs)) await this.#recoverJob(run, job, record)
      }
    }
    await dispatcher().cancel(unfinished.filter((task) => !this.#open.has(task.run)).map((task) => task.id))
    await this.#retention.load(new Set(this.#open.keys()))
    for (const run of this.#open.values()) void this.#advance(run)
  }

  async #recoverJob(run: Run, definition: PipelineJob, record: ReadonlyMap<string, string>): Promise<void> {
    const text = record.get(jobField(definition.id))
    const job = run.jobs.get(definition.id)
    if (text === undefined || job === undefined) return
    const { phase, items, error } = JSON.parse(text) as JobRecord
    Object.assign(job, { phase, items, error })
    if (phase !== 'running') return
    const refs: (TaskRef & { readonly item: number })[] = []
    for (let item = 0; item < items; item++) {
      const id = taskId(run.id, definition.id, item)
      if (!run.tasks.has(id)) refs.push({ queue: definition.agent, id, item })
    }
    const states = await this.#options.broker.read(refs)
    const missing = new Set<number>()
    for (const [index, { item }] of refs.entries()) {
      const state = states[index]
      if (state?.finished !== true) missing.add(item)
      else {
        job.ended += 1
        job.statuses.add(statusOf(state))
      }
    }
    if (missing.size > 0) await this.#addMissing(run, definition, job, record, missing)
  }

  /** The gateway before wrote the transition, and not all of the tasks. */
  async #addMissing(
    run: Run,
    definition: PipelineJob,
    job: Job,
    record: ReadonlyMap<string, string>,
    missing: ReadonlySet<number>,
  ): Promise<void> {
    const plain = record.get('tasks')
    const resolved = run.pipeline !== null ? await resolveJob(this.#options.broker, run, definition) : null
    const inputs = resolved?.ok === true ? resolved.inputs : plain !== undefined ? (JSON.parse(plain) as Json[]) : null
    if (inputs !== null) return this.#addTasks(run, definition, inputs, missing)
    job.ended += missing.size
    job.statuses.add('failed')
    job.error = { code: 'lost', message: `${missing.size} task(s) are gone from the broker` }
  }

  close(): void {
    this.#closing = true
    for (const run of this.#open.values()) for (const watcher of [...run.watchers]) watcher()
  }
}
