/** Why a task is where it is: first what its run and its job say, then its agent's queue. */
import { type ApprovalView, type Explanation, type RunExplanation, type TaskView, TERMINAL } from '../../../spec/protocol.ts'
import type { Run } from '../run.ts'
import { type Definition, jobField, type JobRecord, runOf, taskId } from '../run-record.ts'
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

type Opened = Pick<Run, 'definition' | 'jobs' | 'tasks'>

/** All of a run that has not ended, in pages: from memory, and the places in line from the broker. null: there is no such run. */
export async function runExplanation(
  kit: Kit,
  id: string,
  { limit, after }: { readonly limit: number; readonly after: string | null },
): Promise<RunExplanation | null> {
  const run = kit.runs.opened(id)
  const status = run === null ? await kit.views.status(id) : isDelayed(run.definition) ? 'queued' : 'running'
  if (status === null) return null
  const all = run === null ? [] : unfinished(kit, id, run)
  const begin = after === null || run === null ? 0 : all.findIndex((it) => isBefore(placeOf(run, after), placeOf(run, it.id)))
  const from = begin < 0 ? all.length : begin
  const page = all.slice(from, from + limit)
  const tasks = await Promise.all(
    page.map(async ({ id: task, job }) => (job === null ? ofTask(kit, task) : ofJob(run as Opened, id, task, job))),
  )
  const last = page.at(-1)
  return { run: id, status, tasks: tasks.flatMap((it) => it ?? []), next: from + limit < all.length && last !== undefined ? last.id : null }
}

type Item = { readonly id: string; readonly job: string | null }
type Place = readonly [job: number, item: number, id: string]

/** In the order of `placeOf`. `job`: it waits, and has no tasks yet. */
function unfinished({ dispatcher }: Kit, run: string, { jobs, tasks }: Opened): readonly Item[] {
  const own: Item[] = []
  for (const [job, { phase, items }] of jobs) {
    if (phase === 'waiting') own.push({ id: taskId(run, job, 0), job })
    for (let item = 0; phase === 'running' && item < items; item++) {
      const id = taskId(run, job, item)
      if (tasks.has(id) && dispatcher.task(id) !== undefined) own.push({ id, job: null })
    }
  }
  const children = [...tasks].filter((id) => partsOf(id).length > OWN_PARTS).sort()
  return [...own, ...children.map((id) => ({ id, job: null }))]
}

/** RUN.JOB.ITEM; a child's id goes on. */
const OWN_PARTS = 3
const partsOf = (id: string): readonly string[] => id.split('.')

/** Also of one that has ended since the page before. */
function placeOf({ jobs }: Opened, id: string): Place {
  const [, job = '', item] = partsOf(id)
  return partsOf(id).length > OWN_PARTS ? [jobs.size, 0, id] : [[...jobs.keys()].indexOf(job), Number(item), '']
}
const isBefore = (a: Place, b: Place): boolean => (a[0] !== b[0] ? a[0] < b[0] : a[1] !== b[1] ? a[1] < b[1] : a[2] < b[2])

/** null: it has ended meanwhile. */
async function ofTask(kit: Kit, id: string): Promise<Explanation | null> {
  const task = kit.dispatcher.task(id)
  if (task === undefined) return null
  const reasons = [...kit.approvals.pendingOf(id).map(question), ...(await kit.dispatcher.whyWaiting(id))]
  return { id, agent: task.agent, status: task.lease === null ? 'queued' : 'running', reasons }
}

function ofJob({ definition, jobs }: Opened, run: string, id: string, job: string): Explanation {
  const { agent = '', needs = [] } = definition.pipeline.jobs[job] ?? {}
  const reasons = isDelayed(definition)
    ? [runDelayed(run, definition.start_at)]
    : neededBy(job, needs, (name) => jobs.get(name)?.phase ?? 'waiting')
  return { id, agent, status: 'queued', reasons }
}

const isDelayed = ({ start_at }: Definition): boolean => start_at !== undefined && start_at > Date.now()

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
  const definition = JSON.parse(text) as Definition
  const { pipeline } = definition
  if (isDelayed(definition)) return [runDelayed(run, definition.start_at)]
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
  return neededBy(job.id, job.needs, phase)
}

const runDelayed = (run: string, start_at = 0): Reason => ({
  code: 'run_delayed',
  message: `its run was submitted to start at ${new Date(start_at).toISOString()}`,
  ref: run,
})

const neededBy = (job: string, needs: readonly string[], phase: (job: string) => string): readonly Reason[] =>
  needs
    .filter((need) => phase(need) !== 'completed')
    .slice(0, MAX_NAMED)
    .map((need) => ({ code: 'needs', message: `job "${job}" needs job "${need}", which is ${phase(need)}`, ref: need }))
