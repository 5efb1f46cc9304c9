/** Results of jobs, read from their tasks where a step needs them. */
import type { PipelineJob } from '../../spec/model.ts'
import type { Json, WorkError } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import { lastJobs, type Resolved, resultsUsed, runResult, taskInputs } from '../pipeline.ts'
import type { Run } from './run.ts'
import { taskId } from './run-record.ts'

/** That one step may take in; its own input must then fit MAX_PAYLOAD_BYTES. */
const MAX_READ_BYTES = 16_777_216
const CHUNK = 500

/** The inputs of a job's tasks, from the results of the jobs before it. */
export async function resolveJob(broker: Broker, run: Run, job: PipelineJob): Promise<Resolved> {
  const results = new Map<string, Json>()
  for (const need of resultsUsed(job)) {
    const value = await readResult(broker, run, need)
    if (value === undefined) return { ok: false, error: tooMuch(`job "${job.id}": the results of "${need}"`) }
    results.set(need, value)
  }
  return taskInputs(job, { inputs: run.definition.inputs, results })
}

/** Why the run cannot have a result although all its jobs have completed, with the job that is to blame; null: it can. */
export async function unfitResult(broker: Broker, run: Run): Promise<{ readonly job: string; readonly error: WorkError } | null> {
  const results = new Map<string, Json>()
  for (const job of lastJobs(run.definition.pipeline)) {
    const value = await readResult(broker, run, job)
    if (value === undefined) return { job, error: tooMuch(`the results of job "${job}"`) }
    results.set(job, value)
    const fit = runResult(run.definition.pipeline, results)
    if (!fit.ok) return { job, error: fit.error }
  }
  return null
}

/** undefined: over MAX_READ_BYTES. */
async function readResult(broker: Broker, run: Run, id: string): Promise<Json | undefined> {
  const job = run.definition.pipeline.jobs[id]
  const items = run.jobs.get(id)?.items ?? 0
  if (job === undefined) return null
  const values: Json[] = []
  let bytes = 0
  for (let at = 0; at < items; at += CHUNK) {
    const refs = Array.from({ length: Math.min(CHUNK, items - at) }, (_, index) => ({
      queue: job.agent,
      id: taskId(run.id, id, at + index),
    }))
    for (const state of await broker.read(refs)) {
      const text = state?.result ?? 'null'
      bytes += text.length
      if (bytes > MAX_READ_BYTES) return undefined
      values.push(JSON.parse(text) as Json)
    }
  }
  return job.foreach === null ? (values[0] ?? null) : values
}

const tooMuch = (what: string): WorkError => ({
  code: 'payload_too_large',
  message: `${what} have more than ${MAX_READ_BYTES} bytes; write large results to a volume and return their place`,
})
