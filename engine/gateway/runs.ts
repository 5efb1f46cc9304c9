/**
 * Runs and their pipelines. The record in the broker holds the definition and one field per job of the pipeline, written once per
 * transition, before the tasks that follow from it; all else is read from the tasks, at any time and at every start.
 */
import { CODES, type Code } from '../../spec/codes.ts'
import type { PipelineJob, Project } from '../../spec/model.ts'
import { type Json, MAX_PAYLOAD_BYTES, type SubmitRequest, type WorkError, type WorkStatus } from '../../spec/protocol.ts'
import type { Broker, HashField, TaskRef, TaskState } from '../broker/port.ts'
import {
  checkInputs,
  jsonBytes,
  type JobPhase,
  MAX_FOREACH,
  readyJobs,
  resultsUsed,
  runResult,
  runStatus,
  taskInputs,
  worst,
} from '../pipeline.ts'
import type { Dispatcher } from './dispatcher.ts'
import { HttpError } from './http.ts'
import { Retention } from './retention.ts'
import { type Definition, jobField, type JobRecord, PLAIN_JOB, taskId } from './run-record.ts'
import type { RunSpan, Tracing } from './tracing.ts'
import { newRunId, RUN_ID } from './ulid.ts'
import { encodeTask, parseFailure, type Task } from './work.ts'

/** Results that one step may take in; its own input must then fit MAX_PAYLOAD_BYTES. */
const MAX_READ_BYTES = 16_777_216
interface Job {
  phase: JobPhase
  items: number
  ended: number
  readonly statuses: Set<WorkStatus>
  error: WorkError | undefined
}
interface Run extends RunSpan {
  readonly definition: Definition
  readonly jobs: Map<string, Job>
  readonly tasks: Set<Task>
  readonly watchers: Set<() => void>
  status: WorkStatus
  ending: boolean
  advancing: Promise<void>
}

export interface RunsOptions {
  readonly broker: Broker
  readonly project: () => Project
  readonly dispatcher: () => Dispatcher
  readonly tracing: Tracing
  readonly log: (message: string) => void
}

export const refuse = (status: number, code: Code, message: string, hint: string = CODES[code].fix): HttpError =>
  new HttpError(status, code, message, hint)

export class Runs {
  readonly #options: RunsOptions
  readonly #open = new Map<string, Run>()
  readonly #retention: Retention

  constructor(options: RunsOptions) {
    this.#options = options
    this.#retention = new Retention(options.broker, options.log)
  }

  isOpen(run: string): boolean {
    return this.#open.get(run)?.status === 'running'
  }

  traceparent(run: string): string | null {
    return this.#open.get(run)?.traceparent ?? null
  }

  // ---- submit ----

  async submit(request: SubmitRequest): Promise<string> {
    if (request.id !== undefined && !RUN_ID.test(request.id))
      throw refuse(400, 'AG6006', `a run id must be run_ and a ULID, got "${String(request.id).slice(0, 40)}"`)
    const id = request.id ?? newRunId()
    if (this.#open.has(id)) return id
    const inputs = 'pipeline' in request ? null : this.#plainInputs(request)
    const definition = 'pipeline' in request ? this.#pipelineDefinition(id, request) : this.#plainDefinition(id, request)
    const run = makeRun(id, definition, Date.now())
    this.#open.set(id, run)
    const plain: readonly HashField[] =
      inputs === null
        ? []
        : [
            ['tasks', JSON.stringify(inputs)],
            [jobField(PLAIN_JOB), JSON.stringify({ phase: 'running', items: inputs.length })],
          ]
    try {
      const made = await this.#options.broker.createRun(id, run.created, [
        ['def', JSON.stringify(definition)],
        ['status', 'running'],
        ...plain,
      ])
      if (!made) {
        this.#open.delete(id)
        return id
      }
    } catch (error) {
      this.#open.delete(id)
      throw error
    }
    this.#options.tracing.runStarted(run)
    const job = run.jobs.get(PLAIN_JOB)
    const [only] = Object.values(definition.pipeline.jobs)
    if (inputs !== null && job !== undefined && only !== undefined) {
      job.phase = 'running'
      job.items = inputs.length
      await this.#addTasks(run, only, inputs, null)
      void this.#options.broker.dropRunFields(id, ['tasks']).catch(() => {})
    } else await this.#advance(run)
    return id
  }

  #pipelineDefinition(id: string, request: Extract<SubmitRequest, { pipeline: string }>): Definition {
    const { pipelines } = this.#options.project()
    const pipeline = Object.hasOwn(pipelines, request.pipeline) ? pipelines[request.pipeline] : undefined
    if (pipeline === undefined)
      throw refuse(404, 'AG6003', `there is no pipeline "${request.pipeline}"`, among('pipelines', Object.keys(pipelines)))
    const checked = checkInputs(pipeline, request.inputs ?? {})
    if (!checked.ok) throw refuse(400, 'AG6006', checked.message, checked.hint)
    const parent = request.traceparent ?? null
    return {
      name: pipeline.name,
      pipeline,
      type: 'task',
      inputs: checked.inputs,
      parent,
      traceparent: this.#options.tracing.run(id, parent),
    }
  }

  #plainInputs({ agent, tasks }: Extract<SubmitRequest, { agent: string }>): readonly Json[] {
    const { agents } = this.#options.project()
    if (!Object.hasOwn(agents, agent)) throw refuse(404, 'AG6002', `there is no agent "${agent}"`, among('agents', Object.keys(agents)))
    if (!Array.isArray(tasks) || tasks.length === 0) throw refuse(400, 'AG6006', 'tasks must be a list of at least one input')
    if (tasks.length > MAX_FOREACH)
      throw refuse(413, 'AG6005', `${tasks.length} tasks in one run; the limit is ${MAX_FOREACH}`, 'Submit several runs.')
    const large = tasks.findIndex((input) => jsonBytes(input) > MAX_PAYLOAD_BYTES)
    if (large >= 0)
      throw refuse(413, 'AG6005', `input ${large} has ${jsonBytes(tasks[large])} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`)
    return tasks as readonly Json[]
  }

  #plainDefinition(id: string, { agent, type, traceparent }: Extract<SubmitRequest, { agent: string }>): Definition {
    const parent = traceparent ?? null
    const kind = type ?? 'task'
    const job: PipelineJob = { id: PLAIN_JOB, agent, needs: [], type: kind, with: null, foreach: { in: null, as: 'item' } }
    return {
      name: null,
      pipeline: { name: agent, inputs: {}, jobs: { [PLAIN_JOB]: job } },
      type: kind,
      inputs: {},
      parent,
      traceparent: this.#options.tracing.run(id, parent),
    }
  }

  // ---- progress ----

  /** A task has ended; its job's and its run's next transition follow. */
  taskEnded(task: Task, status: WorkStatus): void {
    const run = this.#open.get(task.run)
    if (run === undefined) return
    run.tasks.delete(task)
    if (status !== 'completed') this.#cancelChildren(run, task)
    if (task.job === null || run.status !== 'running') return
    const job = run.jobs.get(task.job)
    if (job === undefined || job.phase !== 'running') return
    job.ended += 1
    job.statuses.add(status)
    // In a pipeline the first failure is the end; plain tasks do not depend on each other.
    if (job.ended === job.items || (status !== 'completed' && run.definition.name !== null)) void this.#advance(run)
  }

  /** A child of this run's, made by delegation. */
  childAdded(task: Task): void {
    this.#open.get(task.run)?.tasks.add(task)
  }

  #cancelChildren(run: Run, parent: Task): void {
    if (parent.children === 0) return
    void this.#options
      .dispatcher()
      .cancel([...run.tasks].filter((task) => task.parent === parent.id))
      .catch((error: unknown) => this.#options.log(String(error)))
  }

  /** One step after the other; a step that fails (no broker) is tried again by the next one or by the next start. */
  #advance(run: Run): Promise<void> {
    run.advancing = run.advancing
      .then(() => this.#steps(run))
      .catch((error: unknown) =>
        this.#options.log(`run ${run.id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`),
      )
    return run.advancing
  }

  async #steps(run: Run): Promise<void> {
    while (run.status === 'running') {
      for (const [id, job] of run.jobs) await this.#settleJob(run, id, job)
      const { pipeline } = run.definition
      const phases = new Map([...run.jobs].map(([id, job]) => [id, job.phase]))
      const status = runStatus(pipeline, phases)
      if (status !== null) {
        await this.#end(run, status)
        return
      }
      const ready = readyJobs(pipeline, phases)
      if (ready.length === 0) return
      for (const job of ready) await this.#start(run, job)
    }
  }

  async #settleJob(run: Run, id: string, job: Job): Promise<void> {
    if (job.phase !== 'running') return
    const status = worst(job.statuses)
    if (job.ended < job.items && (status === 'completed' || run.definition.name === null)) return
    job.phase = status as JobPhase
    await this.#writeJob(run, id, job)
  }

  async #writeJob(run: Run, id: string, job: Job): Promise<void> {
    // The run's end is written with the job's: one round trip for the run of one task.
    if (runStatus(run.definition.pipeline, new Map([...run.jobs].map(([it, { phase }]) => [it, phase]))) !== null) return
    await this.#options.broker.writeRun(run.id, [[jobField(id), JSON.stringify(jobRecord(job))]])
  }

  async #start(run: Run, job: PipelineJob): Promise<void> {
    const state = run.jobs.get(job.id) as Job
    const resolved = await this.#resolve(run, job)
    if (run.status !== 'running') return
    if (!resolved.ok) {
      state.phase = 'failed'
      state.error = resolved.error
      await this.#writeJob(run, job.id, state)
      return
    }
    await this.#options.broker.writeRun(run.id, [[jobField(job.id), JSON.stringify({ phase: 'running', items: resolved.inputs.length })]])
    state.phase = 'running'
    state.items = resolved.inputs.length
    await this.#addTasks(run, job, resolved.inputs, null)
  }

  async #resolve(run: Run, job: PipelineJob): Promise<ReturnType<typeof taskInputs>> {
    const results = new Map<string, Json>()
    for (const need of resultsUsed(job)) {
      const read = await this.#results(run.id, run.definition.pipeline.jobs[need] as PipelineJob, run.jobs.get(need)?.items ?? 0)
      if (read === null)
        return {
          ok: false,
          error: {
            code: 'payload_too_large',
            message: `job "${job.id}": the results of "${need}" have more than ${MAX_READ_BYTES} bytes; pass large data by a volume`,
          },
        }
      results.set(need, read.value)
    }
    return taskInputs(job, { inputs: run.definition.inputs, results })
  }

  /** A job's result; null: over MAX_READ_BYTES. */
  async #results(run: string, job: PipelineJob, items: number): Promise<{ readonly value: Json } | null> {
    const values: Json[] = []
    let bytes = 0
    for (let at = 0; at < items; at += 500) {
      const refs = Array.from({ length: Math.min(500, items - at) }, (_, index) => ({
        queue: job.agent,
        id: taskId(run, job.id, at + index),
      }))
      for (const state of await this.#options.broker.read(refs)) {
        bytes += state?.result?.length ?? 0
        if (bytes > MAX_READ_BYTES) return null
        values.push(state?.result === null || state === null ? null : (JSON.parse(state.result) as Json))
      }
    }
    return { value: job.foreach === null ? (values[0] ?? null) : values }
  }

  /** `only`: these items (a start that finds some missing). */
  async #addTasks(run: Run, job: PipelineJob, inputs: readonly Json[], only: ReadonlySet<number> | null): Promise<void> {
    const sent = this.#options.tracing.send(run.traceparent, job.id)
    const tasks: { task: Task; data: string }[] = []
    for (const [item, input] of inputs.entries()) {
      if (only !== null && !only.has(item)) continue
      const head = { run: run.id, job: job.id, parent: null, depth: 0, type: job.type, sent }
      const task: Task = { id: taskId(run.id, job.id, item), agent: job.agent, ...head, children: 0, lease: null }
      run.tasks.add(task)
      tasks.push({ task, data: encodeTask(head, JSON.stringify(input)) })
    }
    if (tasks.length === 0) return
    await this.#options.dispatcher().add(tasks)
    this.#options.tracing.sent(sent, run.traceparent, job.agent, run.id, tasks.length)
  }

  async #end(run: Run, status: WorkStatus): Promise<void> {
    if (run.ending) return
    run.ending = true
    let final = status
    const job = run.definition.name === null || status !== 'completed' ? null : await this.#tooLarge(run)
    if (job !== null) final = 'failed'
    run.status = final
    let count = 0
    const fields: HashField[] = []
    for (const [id, state] of run.jobs) {
      if (state.phase === 'waiting' || state.phase === 'running') state.phase = 'cancelled'
      count += state.items
      fields.push([jobField(id), JSON.stringify(jobRecord(state))])
    }
    await this.#options.broker.closeRun(run.id, [...fields, ['status', final], ['ended', String(Date.now())], ['count', String(count)]])
    this.#options.tracing.runEnded(run, final)
    const left = [...run.tasks]
    this.#open.delete(run.id)
    for (const watcher of [...run.watchers]) watcher()
    if (left.length > 0) await this.#options.dispatcher().cancel(left)
    this.#retention.ended({ run: run.id, tasks: count })
  }

  /** Marks the last job as failed when the results together are over the limit. */
  async #tooLarge(run: Run): Promise<Job | null> {
    const results = new Map<string, Json>()
    const needed = new Set(Object.values(run.definition.pipeline.jobs).flatMap((job) => job.needs))
    for (const job of Object.values(run.definition.pipeline.jobs)) {
      if (needed.has(job.id)) continue
      const state = run.jobs.get(job.id) as Job
      const read = await this.#results(run.id, job, state.items)
      results.set(job.id, read?.value ?? null)
      const checked = read === null ? null : runResult(run.definition.pipeline, results)
      if (checked?.ok === true) continue
      state.phase = 'failed'
      state.error = checked?.error ?? {
        code: 'payload_too_large',
        message: `the results of job "${job.id}" have more than ${MAX_READ_BYTES} bytes; write large results to a volume`,
      }
      return state
    }
    return null
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

  // ---- start ----

  /** Open runs of the gateway before, told from their records and tasks. `unfinished`: what the broker's queues hold. */
  async recover(unfinished: readonly Task[]): Promise<void> {
    const { broker } = this.#options
    const byRun = Map.groupBy(unfinished, (task) => task.run)
    for (const id of await broker.openRuns()) {
      const record = await broker.readRun(id)
      const definition = record?.get('def')
      if (record === null || definition === undefined || record.get('status') !== 'running') {
        if (record === null) await broker.forgetRun(id)
        else await broker.closeRun(id, [['status', record.get('status') ?? 'failed']])
        continue
      }
      const run = makeRun(id, JSON.parse(definition) as Definition, Number(record.get('created')))
      this.#open.set(id, run)
      for (const task of byRun.get(id) ?? []) run.tasks.add(task)
      await this.#recoverJobs(run, record)
    }
    const orphans = unfinished.filter((task) => !this.#open.has(task.run))
    if (orphans.length > 0) await this.#options.dispatcher().cancel(orphans)
    await this.#retention.load(new Set(this.#open.keys()))
    await Promise.all([...this.#open.values()].map((run) => this.#advance(run)))
  }

  async #recoverJobs(run: Run, record: ReadonlyMap<string, string>): Promise<void> {
    const queued = new Set([...run.tasks].map((task) => task.id))
    for (const definition of Object.values(run.definition.pipeline.jobs)) {
      const text = record.get(jobField(definition.id))
      if (text === undefined) continue
      const { phase, items, error } = JSON.parse(text) as JobRecord
      const job = run.jobs.get(definition.id) as Job
      Object.assign(job, { phase, items, error })
      if (phase !== 'running') continue
      const refs: TaskRef[] = []
      const numbers: number[] = []
      for (let item = 0; item < items; item++) {
        const id = taskId(run.id, definition.id, item)
        if (queued.has(id)) continue
        refs.push({ queue: definition.agent, id })
        numbers.push(item)
      }
      const states = await this.#options.broker.read(refs)
      const missing = new Set<number>()
      states.forEach((state, index) => {
        if (state?.finished !== true) missing.add(numbers[index] as number)
        else {
          job.ended += 1
          job.statuses.add(statusOf(state))
        }
      })
      if (missing.size > 0) await this.#addMissing(run, definition, job, record, missing)
    }
  }

  async #addMissing(
    run: Run,
    definition: PipelineJob,
    job: Job,
    record: ReadonlyMap<string, string>,
    missing: ReadonlySet<number>,
  ): Promise<void> {
    const plain = record.get('tasks')
    const resolved =
      run.definition.name !== null
        ? await this.#resolve(run, definition)
        : plain !== undefined
          ? { ok: true as const, inputs: JSON.parse(plain) as Json[] }
          : null
    if (resolved?.ok === true) await this.#addTasks(run, definition, resolved.inputs, missing)
    else {
      job.ended += missing.size
      job.statuses.add('failed')
      job.error = { code: 'lost', message: `${missing.size} task(s) are gone from the broker` }
    }
  }

  close(): void {
    for (const run of this.#open.values()) for (const watcher of [...run.watchers]) watcher()
  }
}

export const statusOf = (state: TaskState): WorkStatus => (state.failure !== null ? parseFailure(state.failure).status : 'completed')
const jobRecord = ({ phase, items, error }: Job): JobRecord => ({ phase, items, ...(error === undefined ? {} : { error }) })
const among = (kind: string, names: readonly string[]): string =>
  names.length === 0 ? `The project has no ${kind}.` : `The project's ${kind}: ${names.join(', ')}.`

function makeRun(id: string, definition: Definition, created: number): Run {
  const jobs = new Map(
    Object.keys(definition.pipeline.jobs).map((job) => [
      job,
      { phase: 'waiting' as JobPhase, items: 0, ended: 0, statuses: new Set<WorkStatus>(), error: undefined },
    ]),
  )
  return {
    id,
    definition,
    created,
    jobs,
    workflow: definition.pipeline.name,
    pipeline: definition.name,
    parent: definition.parent,
    traceparent: definition.traceparent,
    tasks: new Set(),
    watchers: new Set(),
    status: 'running',
    ending: false,
    advancing: Promise.resolve(),
  }
}
