/** Runs and tasks as everyone sees them: read from the broker, with what is running now from the dispatcher. */
import type { Json, JobView, RunSummary, RunView, TaskView, WorkStatus, WorkTimes } from '../../spec/protocol.ts'
import type { Broker, TaskRef, TaskState } from '../broker/port.ts'
import { lastJobs, worst } from '../pipeline.ts'
import { traceIdOf } from '../telemetry/traceparent.ts'
import type { Dispatcher } from './dispatcher.ts'
import { childField, type Definition, jobField, type JobRecord, runOf, taskId } from './run-record.ts'
import { decodeTask, inputOf, parseFailure } from './work.ts'

/** Above it a view leaves results out: the answer must fit a string. */
const MAX_VIEW_BYTES = 134_217_728

export class Views {
  readonly #broker: Broker
  readonly #dispatcher: () => Dispatcher

  constructor(broker: Broker, dispatcher: () => Dispatcher) {
    this.#broker = broker
    this.#dispatcher = dispatcher
  }

  /** The agent of any task that there is or was; null: no such task. */
  async agentOf(id: string): Promise<string | null> {
    const known = this.#dispatcher().task(id)
    if (known !== undefined) return known.agent
    const run = runOf(id)
    const [fields] = await this.#broker.readRunFields([run], [childField(id), 'def'])
    const [child, text] = fields ?? []
    if (typeof child === 'string') return child
    if (typeof text !== 'string') return null
    const job = id.slice(run.length + 1, id.lastIndexOf('.'))
    return (JSON.parse(text) as Definition).pipeline.jobs[job]?.agent ?? null
  }

  async task(id: string): Promise<TaskView | null> {
    const agent = await this.agentOf(id)
    if (agent === null) return null
    const [state] = await this.#broker.read([{ queue: agent, id }])
    const live = this.#dispatcher().task(id)
    if (state === undefined || state === null) {
      const [fields] = await this.#broker.readRunFields([runOf(id)], ['status'])
      const status: WorkStatus = live === undefined && fields?.[0] !== 'running' ? 'cancelled' : 'queued'
      return { id, agent, type: live?.type ?? 'task', status, attempts: 0, result: null, error: null, trace_id: traceIdOf(live?.sent) }
    }
    const task = decodeTask(id, agent, state.data)
    return { id, agent, type: task?.type ?? 'task', ...this.#outcome(id, state), trace_id: traceIdOf(task?.sent), times: timesOf(state) }
  }

  async run(id: string): Promise<RunView | null> {
    const record = await this.#broker.readRun(id)
    const text = record?.get('def')
    if (record === null || text === undefined) return null
    const definition = JSON.parse(text) as Definition
    const { pipeline, name } = definition
    const status = (record.get('status') ?? 'running') as WorkStatus
    const jobs: JobView[] = []
    const results = new Map<string, Json>()
    const budget = { bytes: MAX_VIEW_BYTES }
    for (const job of Object.values(pipeline.jobs)) {
      const field = record.get(jobField(job.id))
      const recorded = field === undefined ? null : (JSON.parse(field) as JobRecord)
      const tasks = await this.#tasks(
        Array.from({ length: recorded?.items ?? 0 }, (_, item) => ({ queue: job.agent, id: taskId(id, job.id, item) })),
        status,
        budget,
      )
      const result: Json = job.foreach === null ? (tasks[0]?.result ?? null) : tasks.map((task) => task.result)
      results.set(job.id, result)
      if (name === null) jobs.push(...tasks.map((task) => ({ ...task, agent: job.agent })))
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
      ...(definition.retry_of === undefined ? {} : { retry_of: definition.retry_of }),
    }
  }

  async runs(): Promise<readonly RunSummary[]> {
    const ids = await this.#broker.listRuns()
    const fields = await this.#broker.readRunFields(ids, ['def', 'status', 'created', 'ended'])
    return ids.flatMap((run, index) => {
      const [text, status, created, ended] = fields[index] ?? []
      if (typeof text !== 'string') return []
      const { name, pipeline } = JSON.parse(text) as Definition
      return [
        {
          run,
          pipeline: name,
          status: (status ?? 'running') as WorkStatus,
          created_at: iso(created) ?? '',
          ended_at: iso(ended),
          agents: [...new Set(Object.values(pipeline.jobs).map((job) => job.agent))],
        },
      ]
    })
  }

  async #tasks(refs: readonly TaskRef[], run: WorkStatus, budget: { bytes: number }): Promise<readonly Omit<JobView, 'agent'>[]> {
    const states = await this.#broker.read(refs)
    return states.map((state, index) => {
      const id = (refs[index] as TaskRef).id
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
