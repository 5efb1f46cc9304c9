/** From what was submitted to what will be run, or why not: with a code, the names that there are, and the limits. */
import { CODES, type Code } from '../../spec/codes.ts'
import type { PipelineJob, Project } from '../../spec/model.ts'
import { type Json, MAX_PAYLOAD_BYTES, type SubmitRequest } from '../../spec/protocol.ts'
import { checkInputs, jsonBytes, MAX_FOREACH } from '../pipeline.ts'
import { HttpError } from './http.ts'
import { type Definition, PLAIN_JOB } from './run-record.ts'

export const refuse = (status: number, code: Code, message: string, hint: string = CODES[code].fix): HttpError =>
  new HttpError(status, code, message, hint)

/** `tasks`: inputs of plain tasks; null: a pipeline makes its own. */
export interface Submission {
  readonly definition: Definition
  readonly tasks: readonly Json[] | null
}

export function submission(project: Project, request: SubmitRequest, traceparent: string): Submission {
  const parent = request.traceparent ?? null
  if ('pipeline' in request) {
    const { pipelines } = project
    const pipeline = Object.hasOwn(pipelines, request.pipeline) ? pipelines[request.pipeline] : undefined
    if (pipeline === undefined)
      throw refuse(404, 'AG6003', `there is no pipeline "${request.pipeline}"`, among('pipelines', Object.keys(pipelines)))
    const checked = checkInputs(pipeline, request.inputs ?? {})
    if (!checked.ok) throw refuse(400, 'AG6006', checked.message, checked.hint)
    return { definition: { name: pipeline.name, pipeline, inputs: checked.inputs, parent, traceparent }, tasks: null }
  }
  const { agent, type } = request
  const tasks = plainTasks(project, request)
  const job: PipelineJob = { id: PLAIN_JOB, agent, needs: [], type, with: null, foreach: { in: null, as: 'item' } }
  return {
    definition: { name: null, pipeline: { name: agent, inputs: {}, jobs: { [PLAIN_JOB]: job } }, inputs: {}, parent, traceparent },
    tasks,
  }
}

function plainTasks({ agents }: Project, { agent, tasks }: Extract<SubmitRequest, { agent: string }>): readonly Json[] {
  if (!Object.hasOwn(agents, agent)) throw refuse(404, 'AG6002', `there is no agent "${agent}"`, among('agents', Object.keys(agents)))
  if (tasks.length === 0) throw refuse(400, 'AG6006', 'tasks must be a list of at least one input')
  if (tasks.length > MAX_FOREACH)
    throw refuse(413, 'AG6005', `${tasks.length} tasks in one run; the limit is ${MAX_FOREACH}`, 'Submit several runs.')
  const sizes = tasks.map(jsonBytes)
  const large = sizes.findIndex((bytes) => bytes > MAX_PAYLOAD_BYTES)
  if (large >= 0) throw refuse(413, 'AG6005', `input ${large} has ${sizes[large]} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`)
  return tasks
}

const among = (kind: string, names: readonly string[]): string =>
  names.length === 0 ? `The project has no ${kind}.` : `The project's ${kind}: ${names.join(', ')}.`
