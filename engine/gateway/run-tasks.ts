/** The tasks of a run's jobs, on their way into the queues. */
import { ADD_CHUNK } from '../broker/port.ts'
import type { PipelineJob } from '../../spec/model.ts'
import type { Json } from '../../spec/protocol.ts'
import type { Run } from './run.ts'
import { insistFor, type RunKit } from './run-kit.ts'
import { taskId } from './run-record.ts'
import { encodeTask, type Head, type Task } from './work.ts'

const BATCH_CHARACTERS = 1_048_576

/** `only`: these items (a start that finds some missing). */
export async function addTasks(
  kit: RunKit,
  run: Run,
  job: PipelineJob,
  inputs: readonly Json[],
  only: ReadonlySet<number> | null = null,
): Promise<void> {
  const { dispatcher, tracing } = kit
  const { priority, timeouts } = run.definition
  const sent = tracing.send(run.traceparent, job.id)
  const head: Head = {
    run: run.id,
    job: job.id,
    parent: null,
    depth: 0,
    type: job.type,
    sent,
    created: Date.now(),
    ...(priority === undefined ? {} : { priority }),
    ...(timeouts === undefined ? {} : { timeouts }),
  }
  const ids: string[] = []
  let batch: { task: Task; data: string }[] = []
  let characters = 0
  // One batch is written while the broker works on the one before; thousands of large inputs are never all in memory a second time.
  let before: Promise<unknown> = Promise.resolve()
  const send = async (): Promise<void> => {
    const part = batch
    batch = []
    characters = 0
    const added = insistFor(kit, run, () => dispatcher().add(part))
    added.catch(() => {})
    await before
    before = added
  }
  for (const [item, input] of inputs.entries()) {
    if (only !== null && !only.has(item)) continue
    if (run.status !== 'running' || run.stale) break
    const task: Task = { id: taskId(run.id, job.id, item), agent: job.agent, ...head, children: 0, lease: null }
    const data = encodeTask(head, JSON.stringify(input))
    run.tasks.add(task.id)
    ids.push(task.id)
    batch.push({ task, data })
    characters += data.length
    if (batch.length >= ADD_CHUNK || characters >= BATCH_CHARACTERS) await send()
  }
  if (batch.length > 0) await send()
  await before
  if (ids.length === 0) return
  tracing.sent(sent, run.traceparent, job.agent, run.id, ids.length)
  // Cancelled while they were on their way.
  if (run.status !== 'running') await dispatcher().cancel(ids)
}
