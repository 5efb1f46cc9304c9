/** Open runs of the gateway before, told from their records and tasks. */
import type { PipelineJob } from '../../spec/model.ts'
import type { Json, WorkError } from '../../spec/protocol.ts'
import type { TaskRef } from '../broker/port.ts'
import { resolveJob } from './results.ts'
import { type Job, makeRun, type Run, statusOf } from './run.ts'
import type { RunKit } from './run-kit.ts'
import { childCount, type Definition, jobField, type JobRecord, taskId } from './run-record.ts'
import { addTasks } from './run-tasks.ts'
import { decodeTask, type Task } from './work.ts'

/** Ranges of lost tasks in a message. */
const NAMED = 20

/** null: the record is of no use. `tasks`: those of it that have not ended. */
export function readRun(id: string, record: ReadonlyMap<string, string>, tasks: readonly Task[]): Run | null {
  const definition = record.get('def')
  if (definition === undefined) return null
  const run = makeRun(id, JSON.parse(definition) as Definition, Number(record.get('created')))
  for (const task of tasks) run.tasks.add(task.id)
  run.children.tasks = childCount(record)
  return run
}

/** A run that is to start later: only how many tasks it will have is told. */
export function readDelayed(run: Run, record: ReadonlyMap<string, string>): void {
  for (const [id, job] of run.jobs) job.items = jobOf(record, id)?.items ?? 0
}

export async function readJobs(kit: RunKit, run: Run, record: ReadonlyMap<string, string>): Promise<void> {
  for (const definition of Object.values(run.definition.pipeline.jobs)) await readJob(kit, run, definition, record)
}

async function readJob(kit: RunKit, run: Run, definition: PipelineJob, record: ReadonlyMap<string, string>): Promise<void> {
  const recorded = jobOf(record, definition.id)
  const job = run.jobs.get(definition.id)
  if (recorded === null || job === undefined) return
  const { phase, items, error } = recorded
  Object.assign(job, { phase, items, error })
  if (phase !== 'running') return
  const refs: (TaskRef & { readonly item: number })[] = []
  for (let item = 0; item < items; item++) {
    const id = taskId(run.id, definition.id, item)
    if (!run.tasks.has(id)) refs.push({ queue: definition.agent, id, item })
  }
  // One that ends while they are read is counted by whoever hears of it.
  for (const { id } of refs) run.tasks.add(id)
  const states = await kit.broker.read(refs)
  const missing = new Set<number>()
  for (const [index, { id, item, queue }] of refs.entries()) {
    const state = states[index] ?? null
    if (!run.tasks.has(id)) continue
    if (state?.finished === false) {
      // It was on its way from one place of its queue to another when these were read.
      const task = decodeTask(id, queue, state.data)
      if (task !== null) kit.dispatcher().found(task)
      continue
    }
    run.tasks.delete(id)
    if (state === null) missing.add(item)
    else {
      job.ended += 1
      job.statuses.add(statusOf(state))
    }
  }
  if (missing.size > 0) await addMissing(kit, run, definition, job, record, missing)
}

/** The gateway before wrote the transition, and not all of the tasks. */
async function addMissing(
  kit: RunKit,
  run: Run,
  definition: PipelineJob,
  job: Job,
  record: ReadonlyMap<string, string>,
  missing: ReadonlySet<number>,
): Promise<void> {
  const plain = record.get('tasks')
  const resolved = run.pipeline !== null ? await resolveJob(kit.broker, run, definition) : null
  const inputs = resolved?.ok === true ? resolved.inputs : plain !== undefined ? (JSON.parse(plain) as Json[]) : null
  if (inputs !== null) return addTasks(kit, run, definition, inputs, missing)
  job.ended += missing.size
  job.statuses.add('failed')
  const error: WorkError = { code: 'lost', message: `${missing.size} task(s) are gone from the broker: ${itemsOf(missing)}` }
  job.error = error
  kit.log(`AG5004: run ${run.id}, job "${definition.id}": ${error.message}`)
}

/** 0-2, 5, … */
function itemsOf(missing: ReadonlySet<number>): string {
  const ranges: [number, number][] = []
  for (const item of [...missing].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === item - 1) last[1] = item
    else ranges.push([item, item])
  }
  const told = ranges.slice(0, NAMED).map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`))
  return `${told.join(', ')}${ranges.length > NAMED ? ', …' : ''}`
}

function jobOf(record: ReadonlyMap<string, string>, id: string): JobRecord | null {
  const text = record.get(jobField(id))
  return text === undefined ? null : (JSON.parse(text) as JobRecord)
}
