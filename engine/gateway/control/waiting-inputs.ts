/**
 * Inputs of tasks that wait when their run is cancelled. Their jobs leave the queue with it, so what a retry needs is put into the run's
 * record before.
 */
import type { Json } from '../../../spec/protocol.ts'
import { type Definition, jobField, type JobRecord, PLAIN_JOB, taskId } from '../run-record.ts'
import { inputOf } from '../work.ts'
import type { Kit } from './call.ts'

const FIELD = 'waiting'
/** A cancel is to be quick, and a record small: of a run beyond these the inputs that waited are lost with it. */
const MAX_TASKS = 2_000
const MAX_BYTES = 4_194_304

type Inputs = { readonly [task: string]: Json }

export async function keepWaitingInputs({ broker }: Pick<Kit, 'broker'>, run: string): Promise<void> {
  const [fields] = await broker.readRunFields([run], ['def', jobField(PLAIN_JOB)])
  const [text, recorded] = fields ?? []
  if (typeof text !== 'string' || typeof recorded !== 'string') return
  const { name, pipeline } = JSON.parse(text) as Definition
  const { items } = JSON.parse(recorded) as JobRecord
  const queue = pipeline.jobs[PLAIN_JOB]?.agent
  // A pipeline is repeated from its inputs.
  if (name !== null || queue === undefined || items > MAX_TASKS) return
  const refs = Array.from({ length: items }, (_, item) => ({ queue, id: taskId(run, PLAIN_JOB, item) }))
  const parts: string[] = []
  let bytes = 0
  for (const [index, state] of (await broker.read(refs)).entries()) {
    if (state === null || state.finished) continue
    const input = inputOf(state.data)
    bytes += input.length
    parts.push(`${JSON.stringify(refs[index]?.id)}:${input}`)
  }
  if (parts.length > 0 && bytes <= MAX_BYTES) await broker.writeRun(run, [[FIELD, `{${parts.join(',')}}`]])
}

export async function waitingInputs({ broker }: Pick<Kit, 'broker'>, run: string): Promise<Inputs> {
  const [fields] = await broker.readRunFields([run], [FIELD])
  const text = fields?.[0]
  return typeof text === 'string' ? (JSON.parse(text) as Inputs) : {}
}
