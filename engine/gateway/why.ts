/** Why a task is not executed now: from what the gateway holds in memory, and its place in line from the broker. */
import type { Explanation } from '../../spec/protocol.ts'
import type { Desk } from './desk.ts'
import type { Limits } from './limits.ts'
import { isInLine, isParked, type Task } from './work.ts'

export type Reason = Explanation['reasons'][number]
interface Sources {
  readonly desk: Desk
  readonly limits: Limits
}

/** So many children are named. */
const MAX_NAMED = 20

export async function whyWaiting(sources: Sources, id: string): Promise<readonly Reason[]> {
  const { desk } = sources
  const task = desk.book.tasks.get(id)
  if (task === undefined) return []
  if (!desk.broker.connected) return [{ code: 'broker_away', message: 'the broker does not answer: nothing is started until it does' }]
  if (task.lease !== null) return executed(desk, task)
  if (task.due !== undefined) return [delayed(task, task.due)]
  if (!isInLine(task)) return [turn(desk, task), ...(await inLine(sources, task))]
  return inLine(sources, task)
}

function executed({ book }: Desk, task: Task): readonly Reason[] {
  const { lease } = task
  const by = lease === null ? '' : `${lease.replica.agent}.${lease.replica.replica}`
  const running: Reason = {
    code: 'running',
    message: `execution ${lease?.epoch ?? 0} is with replica ${by}${isParked(task) ? ', and is parked' : ''}`,
    ref: by,
  }
  if (!isParked(task)) return [running]
  const children = [...book.tasks.values()].filter((it) => it.parent === task.id).slice(0, MAX_NAMED)
  const waits = children.map(
    (child): Reason => ({ code: 'child', message: `it waits for its child ${child.id} of "${child.agent}"`, ref: child.id }),
  )
  return [...waits, running]
}

function delayed(task: Task, due: number): Reason {
  const at = new Date(due).toISOString()
  return task.retry === true
    ? { code: 'retry_delay', message: `an execution of it failed; it is tried again at ${at}`, ref: at }
    : { code: 'delayed', message: `it was submitted to start no earlier than ${at}`, ref: at }
}

function turn({ book }: Desk, task: Task): Reason {
  const view = book.keys.view(task)
  const key = task.key ?? ''
  const many = view === null ? '' : `: ${view.seats} of at most ${view.size} have their turn, ${view.before ?? 0} wait before it`
  return { code: 'per_key', message: `other tasks with the key "${key}" are first${many}`, ref: key }
}

async function inLine({ desk, limits }: Sources, task: Task): Promise<readonly Reason[]> {
  const { book, broker, replicas } = desk
  const reasons: Reason[] = []
  const queue = book.queue(task.agent)
  const say = (code: Reason['code'], message: string, ref: string): void => void reasons.push({ code, message, ref })
  const here = [...replicas.all()].filter((it) => it.agent === task.agent && replicas.connected(it.agent, it.replica))
  if (here.length === 0) say('no_replica', `no replica of "${task.agent}" is connected`, task.agent)
  else if (here.every((it) => !it.proved))
    say('no_replica', `no replica of "${task.agent}" has been proved to be as it was declared; see \`agentctl audit\``, task.agent)
  const until = broker.limitedUntil(task.agent)
  if (until > Date.now())
    say(
      'rate_limit',
      `"${task.agent}" has started as many tasks as its rate allows; the next at ${new Date(until).toISOString()}`,
      task.agent,
    )
  const total = limits.total(queue)
  if (total !== null && limits.running(queue) >= total)
    say('agent_total', `${limits.running(queue)} tasks of "${task.agent}" run; \`concurrency.total\` is ${total}`, task.agent)
  if (limits.project !== null && limits.projectRoom <= 0)
    say(
      'project_concurrency',
      `${limits.runningInProject()} tasks of the project run; \`broker.concurrency\` is ${limits.project}`,
      'broker',
    )
  if (here.length > 0 && here.every((it) => book.capacity(it) <= 0))
    say('slots_busy', `all slots of the ${here.length} connected replica(s) of "${task.agent}" are in use`, task.agent)
  const before = isInLine(task) ? await broker.position({ queue: task.agent, id: task.id }) : null
  if (before !== null && (before > 0 || reasons.length === 0))
    say('behind', before === 0 ? 'it is the next in line' : `${before} task(s) are before it in the line of "${task.agent}"`, task.agent)
  return reasons
}
