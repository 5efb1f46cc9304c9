/** Runs and tasks as everyone sees them: read from the broker or, when it has forgotten them, from the archive, with what is running now from the dispatcher. */
import type { ArtifactView, Json, JobView, RunSummary, RunView, TaskView, WorkError, WorkStatus, WorkTimes } from '../../spec/protocol.ts'
import type { Broker, TaskRef, TaskState } from '../broker/port.ts'
import { lastJobs, worst } from '../pipeline.ts'
import { traceIdOf } from '../telemetry/traceparent.ts'
import type { Archive, ArchivedRun } from './archive.ts'
import type { Dispatcher } from './dispatcher.ts'
import { childField, childrenOf, type Definition, jobField, type JobRecord, LOST_FIELD, runOf, taskId } from './run-record.ts'
import { decodeTask, inputOf, parseFailure } from './work.ts'

/** Above it a view leaves results out: the answer must fit a string. */
const MAX_VIEW_BYTES = 134_217_728

/** Where a run is read from. */
interface Source {
  readonly record: ReadonlyMap<string, string>
  read(tasks: readonly TaskRef[]): Promise<readonly (TaskState | null)[]>
  readonly archived: boolean
}

export class Views {
  readonly #broker: Broker
  readonly #dispatcher: () => Dispatcher
  readonly #archive: Archive | null
  readonly #artifacts: (run: string) => Promise<readonly ArtifactView[]>

  constructor(
    broker: Broker,
    dispatcher: () => Dispatcher,
    archive: Archive | null = null,
    artifacts: (run: string) => Promise<readonly ArtifactView[]> = async () => [],
  ) {
    this.#artifacts = artifacts
    this.#broker = broker
    this.#dispatcher = dispatcher
    this.#archive = archive
  }

  /** The agent of any task that there is or was; null: no such task. */
  async agentOf(id: string): Promise<string | null> {
    const known = this.#dispatcher().task(id)
    if (known !== undefined) return known.agent
    const run = runOf(id)
    const [fields] = await this.#broker.readRunFields([run], [childField(id), 'def'])
    const [child, text] = fields ?? []
    return agentIn(id, child, text)
  }

  /** null: there is no such run. */
  async status(id: string): Promise<WorkStatus | null> {
    const [fields] = await this.#broker.readRunFields([id], ['created', 'status', LOST_FIELD])
    const [created, status, lost] = fields ?? []
    const known = this.#archive?.entry(id)?.status
    if (typeof created !== 'string' || typeof lost === 'string') return known ?? null
    return status === 'running' && known !== undefined ? known : ((status ?? 'running') as WorkStatus)
  }

  /** As it was submitted; null: there is no such run. */
  async definition(run: string): Promise<Definition | null> {
    const text = (await this.#source(run))?.record.get('def')
    return text === undefined ? null : (JSON.parse(text) as Definition)
  }

  /** The states of these tasks of a run, wherever they are. */
  async states(run: string, tasks: readonly TaskRef[]): Promise<readonly (TaskState | null)[]> {
    return (await this.#source(run))?.read(tasks) ?? tasks.map(() => null)
  }

  async #source(id: string): Promise<Source | null> {
    const record = await this.#broker.readRun(id)
    // What has ended stays so, whatever a broker that lost data says.
    const isBack = record?.get('status') === 'running' && this.#archive?.has(id) === true
    if (record !== null && record.has('def') && !record.has(LOST_FIELD) && !isBack)
      return { record, read: (tasks) => this.#broker.read(tasks), archived: false }
    return this.#fromArchive(id)
  }

  async #fromArchive(id: string): Promise<Source | null> {
    const archived = (await this.#archive?.read(id, { bytes: MAX_VIEW_BYTES })) ?? null
    return archived === null ? null : { record: archived.record, read: async (tasks) => statesIn(archived, tasks), archived: true }
  }

  async task(id: string): Promise<TaskView | null> {
    const view = await this.#task(id)
    if (view?.status !== 'completed') return view
    return withArtifacts(
      view,
      (await this.#artifacts(runOf(id))).filter((it) => it.task === id),
    )
  }

  /** Of one run, made by delegation, in two requests to the broker, however many; those that it does not have are looked for one by one. */
  async children(run: string, ids: readonly string[]): Promise<readonly (TaskView | null)[]> {
    if (this.#archive?.has(run) === true) return Promise.all(ids.map((id) => this.task(id)))
    // As they are now: one may end while the record is read.
    const live = new Map(ids.map((id) => [id, this.#dispatcher().task(id)?.agent]))
    const ended = ids.filter((id) => live.get(id) === undefined)
    const [fields = []] = ended.length === 0 ? [] : await this.#broker.readRunFields([run], ended.map(childField))
    const agents = new Map(ended.map((id, index) => [id, fields[index] ?? null]))
    const refs = ids.flatMap((id) => {
      const queue = live.get(id) ?? agents.get(id)
      return typeof queue === 'string' ? [{ queue, id }] : []
    })
    const read = await this.#broker.read(refs)
    const artifacts = Map.groupBy(await this.#artifacts(run), (it) => it.task)
    const states = new Map(refs.map(({ queue, id }, index) => [id, { queue, state: read[index] ?? null }]))
    return Promise.all(
      ids.map(async (id) => {
        const found = states.get(id)
        if (found === undefined) return this.#archive?.has(run) === true ? this.task(id) : null
        if (found.state === null) return this.task(id)
        const view = this.#taskView(id, found.queue, found.state)
        return view.status === 'completed' ? withArtifacts(view, artifacts.get(id)) : view
      }),
    )
  }

  async #task(id: string): Promise<TaskView | null> {
    const run = runOf(id)
    const agent = await this.agentOf(id)
    const [state] = agent === null ? [] : await this.#broker.read([{ queue: agent, id }])
    const live = this.#dispatcher().task(id)
    const isArchived = this.#archive?.has(run) === true
    const isHere = state?.finished === true ? !isArchived || !(await this.#isBack(run)) : !isArchived
    if (agent !== null && state !== undefined && state !== null && isHere) return this.#taskView(id, agent, state)
    if (this.#archive !== null && isArchived) {
      const archived = await this.#archive.read(run, { task: id })
      const then = archived === null ? null : agentIn(id, archived.record.get(childField(id)), archived.record.get('def'))
      const was = archived?.tasks.get(id)
      if (then === null || was === undefined) return null
      if (was.state?.finished === true) return this.#taskView(id, then, was.state)
      const { record } = archived as ArchivedRun
      const error = was.state === null ? goneError(record.get(jobField(jobIn(id))), record.get('status')) : null
      const status = error === null ? 'cancelled' : 'failed'
      return { id, agent: then, type: 'task', status, attempts: 0, result: null, error, trace_id: null }
    }
    if (agent === null) return null
    const [fields] = await this.#broker.readRunFields([run], ['status', jobField(jobIn(id))])
    const isOver = live === undefined && fields?.[0] !== 'running'
    const error = isOver ? goneError(fields?.[1], fields?.[0]) : null
    const status: WorkStatus = error !== null ? 'failed' : isOver ? 'cancelled' : 'queued'
    return { id, agent, type: live?.type ?? 'task', status, attempts: 0, result: null, error, trace_id: traceIdOf(live?.sent) }
  }

  /** A broker that lost data has it once more, as it was before its end. */
  async #isBack(archived: string): Promise<boolean> {
    const [fields] = await this.#broker.readRunFields([archived], ['status', LOST_FIELD])
    return fields?.[0] === 'running' || typeof fields?.[1] === 'string'
  }

  #taskView(id: string, agent: string, state: TaskState): TaskView {
    const task = decodeTask(id, agent, state.data)
    return { id, agent, type: task?.type ?? 'task', ...this.#outcome(id, state), trace_id: traceIdOf(task?.sent), times: timesOf(state) }
  }

  async run(id: string): Promise<RunView | null> {
    const source = await this.#source(id)
    if (source === null) return null
    let isWhole = true
    const read: Source['read'] = async (tasks) => {
      const states = await source.read(tasks)
      isWhole &&= states.every((state) => state !== null)
      return states
    }
    const view = await this.#view(id, { ...source, read })
    // Forgotten by the broker while it was read, or half forgotten by a gateway that was killed at it: its tasks go first.
    if (source.archived || isWhole || this.#archive?.has(id) !== true) return view
    const archived = await this.#fromArchive(id)
    return archived === null ? view : this.#view(id, archived)
  }

  async #view(id: string, source: Source): Promise<RunView> {
    const { record } = source
    const definition = JSON.parse(record.get('def') as string) as Definition
    const lost = lostError(record)
    const children = childrenOf(id, record)
    const { pipeline, name } = definition
    const status = (record.get('status') ?? 'running') as WorkStatus
    const jobs: JobView[] = []
    const results = new Map<string, Json>()
    const budget = { bytes: MAX_VIEW_BYTES }
    for (const job of Object.values(pipeline.jobs)) {
      const field = record.get(jobField(job.id))
      const recorded = field === undefined ? null : (JSON.parse(field) as JobRecord)
      const tasks = await this.#tasks(
        source,
        Array.from({ length: recorded?.items ?? 0 }, (_, item) => ({ queue: job.agent, id: taskId(id, job.id, item) })),
        status,
        budget,
        goneError(field, status),
      )
      const result: Json = job.foreach === null ? (tasks[0]?.result ?? null) : tasks.map((task) => task.result)
      results.set(job.id, result)
      const delegated = children.get(job.id) ?? 0
      if (name === null && lost !== null)
        jobs.push({ id: job.id, agent: job.agent, status: 'failed', attempts: 0, result: null, error: lost })
      else if (name === null) jobs.push(...tasks.map((task) => ({ ...task, agent: job.agent })))
      else {
        const phase = jobStatus(recorded, tasks, status)
        const error = recorded?.error ?? tasks.find((task) => task.error !== null)?.error ?? null
        jobs.push({
          id: job.id,
          agent: job.agent,
          status: phase,
          attempts: Math.max(0, ...tasks.map((task) => task.attempts)),
          result: phase === 'completed' ? result : null,
          error,
          tasks: tasks.length,
          ...(delegated === 0 ? {} : { children: delegated }),
          ...(tasks.some((task) => task.times !== undefined) ? { times: together(tasks) } : {}),
        })
      }
    }
    const last = status === 'completed' ? Object.fromEntries(lastJobs(pipeline).map((job) => [job, results.get(job) ?? null])) : null
    return {
      run: id,
      pipeline: name,
      status: status === 'running' && jobs.every((job) => job.status === 'queued') ? 'queued' : status,
      inputs: definition.inputs,
      result: last,
      jobs,
      trace_id: traceIdOf(definition.traceparent),
      created_at: iso(record.get('created')) ?? '',
      ended_at: iso(record.get('ended')),
      ...(definition.start_at === undefined ? {} : { start_at: isoOf(definition.start_at) }),
      ...(definition.retry_of === undefined ? {} : { retry_of: definition.retry_of }),
      ...(lost === null ? {} : { error: lost }),
      ...(children.size === 0 ? {} : { children: [...children.values()].reduce((sum, it) => sum + it, 0) }),
    }
  }

  /** Newest first: what the broker has, and what only the archive has. */
  async runs(): Promise<readonly RunSummary[]> {
    const ids = await this.#broker.listRuns()
    const fields = await this.#broker.readRunFields(ids, ['def', 'status', 'created', 'ended', LOST_FIELD])
    const there = new Map<string, { readonly created: number; readonly summary: RunSummary }>()
    ids.forEach((run, index) => {
      const [text, status, created, ended, lost] = fields[index] ?? []
      const isBack = status === 'running' && this.#archive?.has(run) === true
      if (typeof text !== 'string' || typeof lost === 'string' || isBack) return
      const { name, pipeline, start_at } = JSON.parse(text) as Definition
      const isWaiting = status === 'running' && start_at !== undefined && start_at > Date.now()
      const summary: RunSummary = {
        run,
        pipeline: name,
        status: isWaiting ? 'queued' : ((status ?? 'running') as WorkStatus),
        created_at: iso(created) ?? '',
        ended_at: iso(ended),
        agents: [...new Set(Object.values(pipeline.jobs).map((job) => job.agent))],
      }
      there.set(run, { created: Number(created), summary })
    })
    const archived = [...(this.#archive?.entries() ?? [])].filter(({ run }) => !there.has(run))
    if (archived.length === 0) return [...there.values()].map(({ summary }) => summary)
    const old = archived.map(({ run, pipeline, status, agents, created, ended }) => ({
      created,
      summary: { run, pipeline, status, agents, created_at: isoOf(created) ?? '', ended_at: isoOf(ended) },
    }))
    return [...there.values(), ...old]
      .sort((a, b) => b.created - a.created || (a.summary.run < b.summary.run ? 1 : -1))
      .map(({ summary }) => summary)
  }

  async #tasks(
    source: Source,
    refs: readonly TaskRef[],
    run: WorkStatus,
    budget: { bytes: number },
    gone: WorkError | null,
  ): Promise<readonly Omit<JobView, 'agent'>[]> {
    const states = await source.read(refs)
    return states.map((state, index) => {
      const id = (refs[index] as TaskRef).id
      if (state === null && gone !== null) return { id, status: 'failed', attempts: 0, result: null, error: gone }
      if (state === null) return { id, status: run === 'running' ? 'queued' : 'cancelled', attempts: 0, result: null, error: null }
      budget.bytes -= state.result?.length ?? 0
      const outcome = this.#outcome(id, budget.bytes < 0 ? { ...state, result: null } : state)
      return { id, ...outcome, times: timesOf(state), status: !state.finished && run !== 'running' ? 'cancelled' : outcome.status }
    })
  }

  #outcome(id: string, state: TaskState): Pick<TaskView, 'status' | 'attempts' | 'result' | 'error'> {
    const attempts = state.epoch
    if (!state.finished) {
      const lease = this.#dispatcher().task(id)?.lease
      return { status: lease === null || lease === undefined ? 'queued' : 'running', attempts, result: null, error: null }
    }
    if (state.failure === null)
      return { status: 'completed', attempts, result: state.result === null ? null : (JSON.parse(state.result) as Json), error: null }
    const { status, error } = parseFailure(state.failure)
    return { status, attempts, result: null, error }
  }
}

const withArtifacts = (view: TaskView, artifacts: readonly ArtifactView[] = []): TaskView =>
  artifacts.length === 0 ? view : { ...view, artifacts }

function agentIn(id: string, child: string | null | undefined, definition: string | null | undefined): string | null {
  if (typeof child === 'string') return child
  if (typeof definition !== 'string') return null
  return (JSON.parse(definition) as Definition).pipeline.jobs[jobIn(id)]?.agent ?? null
}
const jobIn = (id: string): string => id.slice(runOf(id).length + 1, id.lastIndexOf('.'))

/** What is told of a task that the broker does not have, when its run ended without it; null: it was cancelled before it began. */
function goneError(field: string | null | undefined, run: string | null | undefined): WorkError | null {
  if (typeof field !== 'string' || run === 'running' || run === 'cancelled') return null
  const { error } = JSON.parse(field) as JobRecord
  return error?.code === 'lost' ? error : null
}

const statesIn = ({ tasks }: ArchivedRun, refs: readonly TaskRef[]): readonly (TaskState | null)[] =>
  refs.map(({ id }) => tasks.get(id)?.state ?? null)

function lostError(record: ReadonlyMap<string, string>): WorkError | null {
  const text = record.get(LOST_FIELD)
  return text === undefined ? null : (JSON.parse(text) as WorkError)
}

const iso = (ms: string | null | undefined): string | null => (typeof ms === 'string' ? new Date(Number(ms)).toISOString() : null)

const isoOf = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString())

const timesOf = ({ added_ms, fetched_ms, ended_ms, data, result }: TaskState): WorkTimes => ({
  created_at: isoOf(added_ms),
  started_at: isoOf(fetched_ms),
  ended_at: isoOf(ended_ms),
  input_bytes: Buffer.byteLength(inputOf(data)),
  result_bytes: result === null ? null : Buffer.byteLength(result),
})

/** Of a job with these tasks. Times in ISO 8601 compare as text. */
function together(tasks: readonly Pick<TaskView, 'times'>[]): WorkTimes {
  const times = tasks.flatMap((task) => task.times ?? [])
  const all = (name: 'created_at' | 'started_at' | 'ended_at'): string[] => times.flatMap((it) => it[name] ?? []).sort()
  const ended = all('ended_at')
  return {
    created_at: all('created_at')[0] ?? null,
    started_at: all('started_at')[0] ?? null,
    ended_at: ended.length === tasks.length ? (ended.at(-1) ?? null) : null,
    input_bytes: times.reduce((sum, it) => sum + it.input_bytes, 0),
    result_bytes: ended.length === tasks.length ? times.reduce((sum, it) => sum + (it.result_bytes ?? 0), 0) : null,
  }
}

function jobStatus(recorded: JobRecord | null, tasks: readonly Omit<JobView, 'agent'>[], run: WorkStatus): WorkStatus {
  if (recorded === null || recorded.phase === 'waiting') return run === 'running' ? 'queued' : 'cancelled'
  if (recorded.phase !== 'running') return recorded.phase
  if (run !== 'running') return worst(tasks.map((task) => task.status))
  return tasks.every((task) => task.status === 'queued') && tasks.length > 0 ? 'queued' : 'running'
}
