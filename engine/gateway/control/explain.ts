/** Why a task is where it is: first what its run and its job say, then its agent's queue. */
import { type ApprovalView, type Explanation, type TaskView, TERMINAL } from '../../../spec/protocol.ts'
import { type Definition, jobField, type JobRecord, runOf } from '../run-record.ts'
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
  const asked = kit.approvals.pendingOf(view.id).map(question)
  if ((kit.dispatcher.task(view.id)?.lease ?? null) === null) {
    const before = await ofItsRun(kit, view.id)
    if (before.length > 0) return before
  }
  return [...asked, ...(await kit.dispatcher.whyWaiting(view.id))]
}

function ended({ status, error, attempts }: TaskView): Reason {
  const how = error === null ? '' : `: ${error.code}: ${error.message}`
  return { code: 'ended', message: `it ended ${status} after ${attempts} execution(s)${how}` }
}

const question = ({ id, message }: ApprovalView): Reason => ({
  code: 'approval',
  message: `it asks a person: ${message.slice(0, 200)} (\`agentctl approve ${id}\`)`,
  ref: id,
})

/** A delayed run, or a job of a pipeline whose needs have not completed. */
async function ofItsRun({ broker }: Kit, id: string): Promise<readonly Reason[]> {
  const run = runOf(id)
  const [[text] = []] = await broker.readRunFields([run], ['def'])
  if (typeof text !== 'string') return []
  const { pipeline, start_at } = JSON.parse(text) as Definition
  if (start_at !== undefined && start_at > Date.now())
    return [{ code: 'run_delayed', message: `its run was submitted to start at ${new Date(start_at).toISOString()}`, ref: run }]
  const job = pipeline.jobs[id.slice(run.length + 1, id.lastIndexOf('.'))]
  if (job === undefined) return []
  // Not the whole record: one of 100,000 children has as many fields.
  const names = [job.id, ...job.needs]
  const [fields = []] = await broker.readRunFields([run], names.map(jobField))
  const phase = (name: string): string => {
    const field = fields[names.indexOf(name)]
    return typeof field === 'string' ? (JSON.parse(field) as JobRecord).phase : 'waiting'
  }
  if (phase(job.id) !== 'waiting') return []
  return job.needs
    .filter((need) => phase(need) !== 'completed')
    .slice(0, MAX_NAMED)
    .map((need) => ({ code: 'needs', message: `job "${job.id}" needs job "${need}", which is ${phase(need)}`, ref: need }))
}
