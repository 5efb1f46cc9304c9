/** Which artifacts a task may read: its own, its children's, and those that somebody who may read them put into its input. */
import { decodeTask, inputOf, type Task } from '../work.ts'
import { HttpError } from '../http.ts'
import { type Definition } from '../run-record.ts'
import type { Kit } from './call.ts'

const DIGESTS = /sha256:[0-9a-f]{64}/g

type Asker = Pick<Task, 'id' | 'run' | 'parent'>

/** `input`: its JSON text. Up the line of parents, at most MAX_DEPTH of them. */
export async function mayRead(kit: Kit, task: Asker, input: string, digest: string): Promise<boolean> {
  if (kit.artifacts.isOf(task.run, task.id, digest)) return true
  if (!input.includes(digest)) return false
  return task.parent === null ? submitterMayName(kit, task.run, digest) : parentMayRead(kit, task.parent, digest)
}

async function parentMayRead(kit: Kit, id: string, digest: string): Promise<boolean> {
  const agent = await kit.views.agentOf(id)
  if (agent === null) return false
  const [state] = await kit.broker.read([{ queue: agent, id }])
  const task = state === null || state === undefined ? null : decodeTask(id, agent, state.data)
  return task !== null && state !== null && state !== undefined && mayRead(kit, task, inputOf(state.data), digest)
}

/**
 * Who submits a run may name any artifact. In a pipeline an input may also come from the result of a task, and a task must not open to
 * another what it knows the digest of: it counts when the run's own inputs name it, or when it was stored in this run.
 */
async function submitterMayName(kit: Kit, run: string, digest: string): Promise<boolean> {
  const [fields] = await kit.broker.readRunFields([run], ['def'])
  const text = fields?.[0]
  if (typeof text !== 'string') return false
  return (JSON.parse(text) as Definition).name === null || text.includes(digest) || kit.artifacts.isVisibleIn(run, digest)
}

/** Before a child gets an input. A digest of something that is no artifact (an image, say) is only a text. */
export async function refuseForeign(kit: Kit, task: Asker, taskInput: string, childInput: string): Promise<void> {
  if (!childInput.includes('sha256:')) return
  for (const digest of new Set(childInput.match(DIGESTS))) {
    if (kit.artifacts.has(digest) && !(await mayRead(kit, task, taskInput, digest)))
      throw new HttpError(403, 'not_allowed', `the input names ${digest}, which this task may not read`, 'Name artifacts of your own.')
  }
}
