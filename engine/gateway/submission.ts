/** From what was submitted to what will be run, or why not: with a code, the names that there are, and the limits. */
import { CODES, type Code } from '../../spec/codes.ts'
import type { PipelineJob, Project } from '../../spec/model.ts'
import { type Json, MAX_PAYLOAD_BYTES, type SubmitRequest } from '../../spec/protocol.ts'
import { checkInputs, jsonBytes, MAX_FOREACH, readyJobs } from '../pipeline.ts'
import type { Needs } from './admission.ts'
import { dedupHash } from './dedup.ts'
import { HttpError } from './http.ts'
import { type Definition, PLAIN_JOB } from './run-record.ts'

export const refuse = (status: number, code: Code, message: string, hint: string = CODES[code].fix): HttpError =>
  new HttpError(status, code, message, hint)

/** `tasks`: inputs of plain tasks; null: a pipeline makes its own. */
export interface Submission {
  readonly definition: Definition
  readonly tasks: readonly Json[] | null
  /** What it needs at its start. */
  readonly needs: Needs
}

/** A key is known as long as the archive knows its run. */
const MAX_DEDUP_TTL_MS = 30 * 86_400_000
const MAX_DELAY_MS = 366 * 86_400_000

export function submission(project: Project, request: SubmitRequest, traceparent: string, now: number): Submission {
  const parent = request.traceparent ?? null
  const options = optionsOf(request, now)
  if ('pipeline' in request) {
    const { pipelines } = project
    const pipeline = Object.hasOwn(pipelines, request.pipeline) ? pipelines[request.pipeline] : undefined
    if (pipeline === undefined)
      throw refuse(404, 'AG6003', `there is no pipeline "${request.pipeline}"`, among('pipelines', Object.keys(pipelines)))
    const checked = checkInputs(pipeline, request.inputs ?? {})
    if (!checked.ok) throw refuse(400, 'AG6006', checked.message, checked.hint)
    const first = readyJobs(pipeline, new Map(Object.keys(pipeline.jobs).map((id) => [id, 'waiting'])))
    const bytes = jsonBytes(checked.inputs)
    return {
      definition: { name: pipeline.name, pipeline, inputs: checked.inputs, parent, traceparent, ...options },
      tasks: null,
      // What a foreach makes is known later; its job then waits for room.
      needs: new Map(
        [
          ...Map.groupBy(
            first.filter((job) => job.foreach === null),
            (job) => job.agent,
          ),
        ].map(([agent, jobs]) => [agent, { tasks: jobs.length, bytes: bytes * jobs.length }]),
      ),
    }
  }
  const { agent, type } = request
  const { tasks, bytes } = plainTasks(project, request)
  const job: PipelineJob = { id: PLAIN_JOB, agent, needs: [], type, with: null, foreach: { in: null, as: 'item' } }
  return {
    definition: {
      name: null,
      pipeline: { name: agent, inputs: {}, jobs: { [PLAIN_JOB]: job } },
      inputs: {},
      parent,
      traceparent,
      ...options,
    },
    tasks,
    needs: new Map([[agent, { tasks: tasks.length, bytes }]]),
  }
}

type Options = Pick<Definition, 'priority' | 'timeouts' | 'start_at' | 'dedup' | 'retry_of'>

function optionsOf({ priority = 0, delay_ms = 0, dedup_key, dedup_ttl_ms = 0, timeouts, retry_of }: SubmitRequest, now: number): Options {
  const within = (name: string, value: number, min: number, max: number): void => {
    if (!Number.isInteger(value) || value < min || value > max)
      throw refuse(400, 'AG6006', `"${name}" must be a whole number from ${min} to ${max}, got ${value}`)
  }
  within('priority', priority, -9, 9)
  within('delay_ms', delay_ms, 0, MAX_DELAY_MS)
  within('dedup_ttl_ms', dedup_ttl_ms, 0, MAX_DEDUP_TTL_MS)
  return {
    ...(priority === 0 ? {} : { priority }),
    ...(delay_ms === 0 ? {} : { start_at: now + delay_ms }),
    ...(dedup_key === undefined ? {} : { dedup: { key: dedupHash(dedup_key), ttl_ms: dedup_ttl_ms } }),
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(retry_of === undefined ? {} : { retry_of }),
  }
}

function plainTasks(
  { agents }: Project,
  { agent, tasks }: Extract<SubmitRequest, { agent: string }>,
): { readonly tasks: readonly Json[]; readonly bytes: number } {
  if (!Object.hasOwn(agents, agent)) throw refuse(404, 'AG6002', `there is no agent "${agent}"`, among('agents', Object.keys(agents)))
  if (tasks.length === 0) throw refuse(400, 'AG6006', 'tasks must be a list of at least one input')
  if (tasks.length > MAX_FOREACH)
    throw refuse(413, 'AG6005', `${tasks.length} tasks in one run; the limit is ${MAX_FOREACH}`, 'Submit several runs.')
  const sizes = tasks.map(jsonBytes)
  const large = sizes.findIndex((bytes) => bytes > MAX_PAYLOAD_BYTES)
  if (large >= 0) throw refuse(413, 'AG6005', `input ${large} has ${sizes[large]} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`)
  return { tasks, bytes: sizes.reduce((sum, it) => sum + it, 0) }
}

const among = (kind: string, names: readonly string[]): string =>
  names.length === 0 ? `The project has no ${kind}.` : `The project's ${kind}: ${names.join(', ')}.`
