/** Why a task is where it is: first what its run and its job say, then its agent's queue. */
import { type Explanation, type TaskView, TERMINAL } from '../../../spec/protocol.ts'
import { childField, type Definition, jobField, type JobRecord, runOf } from '../run-record.ts'
import type { Kit } from './call.ts'

type Reason = Explanation['reasons'][number]
/** Of children and needs: enough to see what is meant. */
const MAX_NAMED = 20

export async function explanation(kit: Kit, id: string): Promise<Explanation | null> {
  const view = await kit.views.task(id)
  if (view === null) return null
  const reasons = await reasonsOf(kit, view)
  return { id, agent: view.agent, status: view.status, reasons }
}

async function reasonsOf(kit: Kit, view: TaskView): Promise<readonly Reason[]> {
  if (TERMINAL.has(view.status)) return [ended(view)]
  if (kit.dispatcher.task(view.id)?.lease != null) return await running(kit, view.id)
  const before = await ofItsRun(kit, view.id)
  if (before.length > 0) return before
  return await whyWaiting(kit, view.id)
}

function ended({ status, error, attempts }: TaskView): Reason {
  const how = error === null ? '' : `: ${error.code}: ${error.message}`
  return { code: 'ended', message: `it ended ${status} after ${attempts} execution(s)${how}` }
}

async function running(kit: Kit, id: string): Promise<readonly Reason[]> {
  const lease = kit.dispatcher.task(id)?.lease
  if (lease == null) return []
  const since = new Date(lease.since).toISOString()
  const now: Reason = {
    code: 'running',
    message: `execution ${lease.epoch} runs on ${lease.replica.agent}.${lease.replica.replica} since ${since}${lease.cancel === null ? '' : '; it was told to stop'}`,
    ref: `${lease.replica.agent}.${lease.replica.replica}`,
  }
  return [...(await children(kit, id)), now]
}

/** Its children that have not ended. */
async function children(kit: Kit, id: string): Promise<readonly Reason[]> {
  if ((kit.dispatcher.task(id)?.children ?? 0) === 0) return []
  const record = await kit.broker.readRun(runOf(id))
  const prefix = childField(`${id}.`)
  const open = [...(record?.keys() ?? [])]
    .filter((field) => field.startsWith(prefix) && !field.slice(prefix.length).includes('.'))
    .map((field) => field.slice(childField('').length))
    .flatMap((child) => kit.dispatcher.task(child) ?? [])
  return open.slice(0, MAX_NAMED).map((child) => ({
    code: 'child',
    message: `it waits for its child ${child.id} (agent ${child.agent}, ${child.lease === null ? 'queued' : 'running'})`,
    ref: child.id,
  }))
}

/** A delayed run, or a job of a pipeline whose needs have not completed. */
async function ofItsRun({ broker }: Kit, id: string): Promise<readonly Reason[]> {
  const run = runOf(id)
  const record = await broker.readRun(run)
  const text = record?.get('def')
  if (record === null || text === undefined) return []
  const { pipeline, start_at } = JSON.parse(text) as Definition & { readonly start_at?: number }
  if (start_at !== undefined && start_at > Date.now())
    return [{ code: 'run_delayed', message: `its run was submitted to start at ${new Date(start_at).toISOString()}`, ref: run }]
  const job = pipeline.jobs[id.slice(run.length + 1, id.lastIndexOf('.'))]
  const phase = (name: string): string => {
    const field = record.get(jobField(name))
    return field === undefined ? 'waiting' : (JSON.parse(field) as JobRecord).phase
  }
  if (job === undefined || phase(job.id) !== 'waiting') return []
  return job.needs
    .filter((need) => phase(need) !== 'completed')
    .slice(0, MAX_NAMED)
    .map((need) => ({ code: 'needs', message: `job "${job.id}" needs job "${need}", which is ${phase(need)}`, ref: need }))
}

const whyWaiting = async ({ dispatcher }: Kit, id: string): Promise<readonly Reason[]> => {
  const asked = dispatcher as { readonly whyWaiting?: (id: string) => Promise<readonly Reason[]> | readonly Reason[] }
  return (await asked.whyWaiting?.call(dispatcher, id)) ?? []
}
