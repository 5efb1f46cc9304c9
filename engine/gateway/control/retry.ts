/** A run as it would be submitted again. */
import type { Json, RunView, SubmitRequest } from '../../../spec/protocol.ts'
import type { Fields } from '../http.ts'
import { PLAIN_JOB } from '../run-record.ts'
import { refuse } from '../submission.ts'
import { inputOf } from '../work.ts'
import { type Kit, noRun } from './call.ts'
import { waitingInputs } from './waiting-inputs.ts'

/** Plain tasks: those that did not complete, or with `all` every one. A pipeline: the same inputs, from the beginning. */
export async function retryRequest(kit: Kit, id: string, { id: newId, all }: Fields): Promise<SubmitRequest> {
  const view = await kit.views.run(id)
  if (view === null) throw noRun(id)
  if (kit.runs.isOpen(id)) throw refuse(409, 'AG6006', `run "${id}" has not ended`, `Wait for it, or cancel it first.`)
  const definition = await kit.views.definition(id)
  const { priority, timeouts } = definition ?? {}
  const options = {
    retry_of: id,
    ...(typeof newId === 'string' ? { id: newId } : {}),
    ...(priority === undefined ? {} : { priority }),
    ...(timeouts === undefined ? {} : { timeouts }),
  }
  if (view.pipeline !== null) return { pipeline: view.pipeline, inputs: view.inputs, ...options }
  const wanted = view.jobs.filter((job) => all === true || job.status !== 'completed')
  const [first] = wanted
  if (first === undefined)
    throw refuse(
      409,
      'AG6006',
      `all tasks of run "${id}" have completed`,
      'Repeat them all with `all: true` (`agentctl runs retry --all`).',
    )
  const type = definition?.pipeline.jobs[PLAIN_JOB]?.type ?? 'task'
  return { agent: first.agent, type, tasks: await inputsOf(kit, view, wanted), ...options }
}

async function inputsOf(kit: Kit, view: RunView, jobs: RunView['jobs']): Promise<readonly Json[]> {
  const states = await kit.views.states(
    view.run,
    jobs.map((job) => ({ queue: job.agent, id: job.id })),
  )
  const waited = states.includes(null) ? await waitingInputs(kit, view.run) : {}
  return jobs.map((job, index): Json => {
    const data = states[index]?.data
    if (data === undefined && Object.hasOwn(waited, job.id)) return waited[job.id] ?? null
    if (data === undefined)
      throw refuse(
        409,
        'AG6006',
        `the input of task "${job.id}" is not kept any more, so run "${view.run}" cannot be repeated`,
        'Submit its tasks again.',
      )
    return JSON.parse(inputOf(data)) as Json
  })
}
