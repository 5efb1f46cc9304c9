/** What a pipeline's run does next, from its definition, inputs and what has finished. Pure: the gateway acts on it, `plan` may print it. */
import type { Pipeline, PipelineInput, PipelineJob, Template } from '../spec/model.ts'
import { type Json, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, type WorkError, type WorkStatus } from '../spec/protocol.ts'

export const MAX_FOREACH = 10_000

/** A job's place in its run. `waiting`: its needs have not all completed. */
export type JobPhase = 'waiting' | 'running' | 'completed' | 'failed' | 'cancelled' | 'dead'
export type Phases = ReadonlyMap<string, JobPhase>

/** The jobs to start now, in the order of the file. */
export function readyJobs(pipeline: Pipeline, phases: Phases): readonly PipelineJob[] {
  return Object.values(pipeline.jobs).filter(
    (job) => (phases.get(job.id) ?? 'waiting') === 'waiting' && job.needs.every((need) => phases.get(need) === 'completed'),
  )
}

/** null: it goes on. The first failure ends a run; `dead` is a failure of the run. */
export function runStatus(pipeline: Pipeline, phases: Phases): 'completed' | 'failed' | null {
  let all = true
  for (const id of Object.keys(pipeline.jobs)) {
    const phase = phases.get(id) ?? 'waiting'
    if (phase === 'failed' || phase === 'dead' || phase === 'cancelled') return 'failed'
    all &&= phase === 'completed'
  }
  return all ? 'completed' : null
}

/** The jobs that nobody needs: their results are the run's. */
export function lastJobs(pipeline: Pipeline): readonly string[] {
  const needed = new Set(Object.values(pipeline.jobs).flatMap((job) => job.needs))
  return Object.keys(pipeline.jobs).filter((id) => !needed.has(id))
}

/** The needs whose results `with` or `foreach` refers to: only these must be read. */
export function resultsUsed(job: PipelineJob): readonly string[] {
  const used = new Set<string>()
  const visit = (template: Template): void => {
    if (isReference(template)) {
      const [root, need] = template.$ref
      if (root === 'needs' && need !== undefined) used.add(need)
    } else if (Array.isArray(template)) template.forEach(visit)
    else if (typeof template === 'object' && template !== null) Object.values(template).forEach((it) => visit(it as Template))
  }
  visit(job.with)
  if (job.foreach !== null) visit(job.foreach.in)
  return job.needs.filter((need) => used.has(need))
}

export interface Scope {
  readonly inputs: { readonly [name: string]: Json }
  /** Results of the needs; of a `foreach` job: the list. */
  readonly results: ReadonlyMap<string, Json>
}
export type Resolved = { readonly ok: true; readonly inputs: readonly Json[] } | { readonly ok: false; readonly error: WorkError }

/** The inputs of a job's tasks: one, or one per element of `foreach`. */
export function taskInputs(job: PipelineJob, scope: Scope): Resolved {
  try {
    const root: { [name: string]: Json } = {
      inputs: scope.inputs,
      needs: Object.fromEntries([...scope.results].map(([need, result]) => [need, { result }])),
    }
    if (job.foreach === null) return { ok: true, inputs: [checked(resolve(job.with, root), job.id)] }
    const list = resolve(job.foreach.in, root)
    if (!Array.isArray(list)) throw new Unresolved('bad_reference', `job "${job.id}": foreach needs a list, got ${kindOf(list)}`)
    if (list.length > MAX_FOREACH)
      throw new Unresolved('too_many_tasks', `job "${job.id}": foreach over ${list.length} elements; the limit is ${MAX_FOREACH}`)
    const as = job.foreach.as
    return { ok: true, inputs: list.map((element: Json) => checked(resolve(job.with, { ...root, [as]: element }), job.id)) }
  } catch (error) {
    if (error instanceof Unresolved) return { ok: false, error: { code: error.code, message: error.message } }
    throw error
  }
}

/** The result of an ended run, or why it has none. */
export function runResult(
  pipeline: Pipeline,
  results: ReadonlyMap<string, Json>,
): { readonly ok: true; readonly result: Json } | { readonly ok: false; readonly error: WorkError } {
  const result: { [job: string]: Json } = {}
  for (const id of lastJobs(pipeline)) result[id] = results.get(id) ?? null
  const bytes = jsonBytes(result)
  if (bytes <= MAX_BODY_BYTES) return { ok: true, result }
  return {
    ok: false,
    error: {
      code: 'payload_too_large',
      message: `the run's result has ${bytes} bytes; the limit is ${MAX_BODY_BYTES}. Write large results to a volume and return their place.`,
    },
  }
}

export type Checked =
  | { readonly ok: true; readonly inputs: { readonly [name: string]: Json } }
  | { readonly ok: false; readonly message: string; readonly hint: string }

/** The given inputs with defaults filled in, or the first problem (all problems named in one message). */
export function checkInputs(pipeline: Pipeline, given: { readonly [name: string]: Json }): Checked {
  const problems: string[] = []
  const inputs: { [name: string]: Json } = {}
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(pipeline.inputs, name)) problems.push(`"${name}" is not an input`)
  }
  for (const [name, input] of Object.entries(pipeline.inputs)) {
    const value = Object.hasOwn(given, name) ? given[name] : input.default
    if (value === undefined) {
      if (input.required) problems.push(`"${name}" is required`)
      else inputs[name] = null
    } else if (!fits(input, value)) problems.push(`"${name}" must be ${article(input.type)}, got ${kindOf(value)}`)
    else inputs[name] = value
  }
  const known = Object.keys(pipeline.inputs)
  const hint =
    known.length === 0
      ? `Pipeline "${pipeline.name}" takes no inputs.`
      : `Inputs of "${pipeline.name}": ${known.map((name) => `${name} (${pipeline.inputs[name]?.type})`).join(', ')}.`
  if (problems.length > 0) return { ok: false, message: `the inputs do not fit pipeline "${pipeline.name}": ${problems.join('; ')}`, hint }
  const bytes = jsonBytes(inputs)
  if (bytes > MAX_PAYLOAD_BYTES)
    return {
      ok: false,
      message: `the inputs have ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`,
      hint: 'Pass files by a volume.',
    }
  return { ok: true, inputs }
}

/** The status of a job with several tasks, and of a run of plain tasks: the worst of them once all have ended. */
export function worst(statuses: Iterable<WorkStatus>): WorkStatus {
  const order: readonly WorkStatus[] = ['completed', 'cancelled', 'failed', 'dead']
  let at = 0
  for (const status of statuses) at = Math.max(at, order.indexOf(status))
  return order[at] ?? 'completed'
}

class Unresolved extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const isReference = (template: Template): template is { readonly $ref: readonly string[] } =>
  typeof template === 'object' &&
  template !== null &&
  !Array.isArray(template) &&
  Object.keys(template).length === 1 &&
  Array.isArray((template as { $ref?: unknown }).$ref)

function resolve(template: Template, scope: { readonly [name: string]: Json }): Json {
  if (isReference(template)) return follow(template.$ref, scope)
  if (Array.isArray(template)) return template.map((it) => resolve(it as Template, scope))
  if (typeof template === 'object' && template !== null)
    return Object.fromEntries(Object.entries(template).map(([key, value]) => [key, resolve(value as Template, scope)]))
  return template as Json
}

function follow(path: readonly string[], scope: { readonly [name: string]: Json }): Json {
  let value: Json = scope
  for (const [index, key] of path.entries()) {
    const inside: unknown =
      typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined
    if (inside === undefined)
      throw new Unresolved(
        'bad_reference',
        `\${{ ${path.join('.')} }}: there is no "${key}" in ${index === 0 ? 'the scope' : `${path.slice(0, index).join('.')} (${kindOf(value)})`}`,
      )
    value = inside as Json
  }
  return value
}

function checked(input: Json, job: string): Json {
  const bytes = jsonBytes(input)
  if (bytes > MAX_PAYLOAD_BYTES)
    throw new Unresolved(
      'payload_too_large',
      `job "${job}": the input has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}. Pass large data by a volume.`,
    )
  return input
}

export const jsonBytes = (value: Json): number => Buffer.byteLength(JSON.stringify(value))

const fits = ({ type }: PipelineInput, value: Json): boolean => kindOf(value) === type
const kindOf = (value: Json | undefined): string => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value)
const article = (type: string): string => (/^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`)
