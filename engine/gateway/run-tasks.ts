/** The tasks of a run's jobs, on their way into the queues. */
import type { PipelineJob } from '../../spec/model.ts'
import type { Json } from '../../spec/protocol.ts'
import type { Run } from './run.ts'
import { insist, type RunKit } from './run-kit.ts'
import { taskId } from './run-record.ts'
import { encodeTask, type Head, type Task } from './work.ts'

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
  const tasks: { task: Task; data: string }[] = []
  for (const [item, input] of inputs.entries()) {
    if (only !== null && !only.has(item)) continue
    const task: Task = { id: taskId(run.id, job.id, item), agent: job.agent, ...head, children: 0, lease: null }
    run.tasks.add(task.id)
    tasks.push({ task, data: encodeTask(head, JSON.stringify(input)) })
  }
  if (tasks.length === 0) return
  await insist(kit, () => dispatcher().add(tasks))
  tracing.sent(sent, run.traceparent, job.agent, run.id, tasks.length)
  // Cancelled while they were on their way.
  if (run.status !== 'running') await dispatcher().cancel(tasks.map(({ task }) => task.id))
}
