/** Children: made by the task that holds a lease, and seen by nobody else. */
import { type DelegateRequest, MAX_BODY_BYTES, MAX_CHILDREN, MAX_DEPTH, MAX_PAYLOAD_BYTES, MAX_WAIT_MS } from '../../../spec/protocol.ts'
import { traceIdOf } from '../../telemetry/traceparent.ts'
import type { Needs, Refusal } from '../admission.ts'
import { HttpError, sendJson, waitMs } from '../http.ts'
import { idOf, ownerOf } from '../ids.ts'
import type { Replica } from '../replicas.ts'
import { overRun, type RunChildren } from '../run-children.ts'
import { childField } from '../run-record.ts'
import { refuse } from '../submission.ts'
import { awaitCall, delegateCall, delegateManyCall } from '../validate.ts'
import { encodeTask, type Head, type Lease, type Task } from '../work.ts'
import { refuseForeign } from './access.ts'
import { type Call, type Handler, type Kit, lost, tooLarge } from './call.ts'

const tooManyChildren = (): HttpError =>
  new HttpError(429, 'too_many_children', `a task has at most ${MAX_CHILDREN} unfinished children`, 'Wait until some have ended.')
const missing = (id: string): HttpError =>
  new HttpError(404, 'not_found', `you have no task "${id.slice(0, 200)}"`, 'Only the children of a task that you hold are yours.')

type Asked = Omit<DelegateRequest, 'lease'> & { readonly type: string }
/** One that is not known to be there: it is made unless the broker has it. */
interface Wanted extends Asked {
  readonly id: string
  readonly text: string
}

/** One, or with `tasks` many: all or none, as what is refused is refused before anything is made. */
export const delegate: Handler = async (kit, call) => {
  const body = await kit.json(call)
  if (body['tasks'] !== undefined) {
    const { lease: token, tasks: asked } = delegateManyCall(body)
    sendJson(call.response, 200, JSON.stringify({ tasks: await delegateAll(kit, call, token, asked) }))
    return
  }
  const { lease: token, ...asked } = delegateCall(body)
  const [task] = await delegateAll(kit, call, token, [asked])
  sendJson(call.response, 200, JSON.stringify({ task }))
}

async function delegateAll(
  kit: Kit,
  { request, replica, signal }: Call,
  token: string,
  asked: readonly Asked[],
): Promise<readonly string[]> {
  const texts = asked.map(({ input }) => JSON.stringify(input))
  for (const text of texts) {
    const bytes = Buffer.byteLength(text)
    if (bytes > MAX_PAYLOAD_BYTES) throw tooLarge('input', bytes)
  }
  await kit.whenReady(signal)
  const lease = kit.held(replica, token)
  lease.sign = Date.now()
  for (const it of asked) mayDelegate(kit, replica, lease, it)
  const ids = asked.map(({ key }) => idOf(lease.task.id, key))
  const wanted: Wanted[] = []
  for (const [index, it] of asked.entries()) {
    const id = ids[index] as string
    if (kit.dispatcher.task(id)?.agent !== it.agent) wanted.push({ ...it, id, text: texts[index] as string })
  }
  if (wanted.length > 0) await makeChildren(kit, lease, wanted, request.headers['traceparent'])
  return ids
}

function mayDelegate(kit: Kit, replica: Replica, lease: Lease, { agent }: Asked): void {
  const own = kit.config.agent(replica.agent)
  if (own?.delegates_to.includes(agent) !== true)
    throw new HttpError(
      403,
      'not_allowed',
      `agent "${replica.agent}" may not delegate to "${agent}"`,
      `Add it to delegates_to of "${replica.agent}".`,
    )
  if (kit.config.agent(agent) === null) throw new HttpError(403, 'not_allowed', `the project has no agent "${agent}" any more`)
  if (lease.task.depth + 1 > MAX_DEPTH) throw new HttpError(403, 'too_deep', `delegation is ${MAX_DEPTH} deep at most`)
}

/** The same key again is the same child, whoever asks: this attempt of the parent, a later one, or a request that was sent twice. */
async function makeChildren(kit: Kit, lease: Lease, wanted: readonly Wanted[], traceparent: string | string[] | undefined): Promise<void> {
  const parent = lease.task
  // Before anything is written for them.
  if (parent.children >= MAX_CHILDREN) throw tooManyChildren()
  for (const { text } of wanted) await refuseForeign(kit, parent, lease.input, text)
  const needs = needsOf(wanted)
  const made = kit.runs.childrenOf(parent.run)
  const refusal = kit.runs.mayDelegate(needs)
  try {
    const isOver = overRun(made, wanted.length, bytesOf(wanted)) !== null
    const isRead = refusal !== null || isOver || wanted.length > 1
    const unclaimed = isRead ? await refuseNew(kit, parent, wanted, refusal, made) : wanted.length
    await claim(kit, parent, wanted, made, unclaimed)
    const states = await kit.broker.read(wanted.map(({ agent, id }) => ({ queue: agent, id })))
    const fresh = wanted.filter(({ id }, index) => states[index] === null && kit.dispatcher.task(id) === undefined)
    if (fresh.length === 0) return
    if (!kit.runs.isOpen(parent.run) || parent.lease !== lease) throw lost()
    // Others came meanwhile.
    if (parent.children + fresh.length > MAX_CHILDREN) throw tooManyChildren()
    // Their keys are counted by now.
    const over = overRun(made, 0, bytesOf(fresh))
    if (over !== null) throw over
    made.bytes += bytesOf(fresh)
    await add(kit, lease, fresh, traceparent)
  } finally {
    if (refusal === null) kit.runs.delegated(needs)
  }
}

/** Those that were never asked for would be new: too many, or no room for them. `refusal` null: there is room. How many they are. */
async function refuseNew(kit: Kit, parent: Task, wanted: readonly Wanted[], refusal: Refusal | null, made: RunChildren): Promise<number> {
  const [claimed = []] = await kit.broker.readRunFields(
    [parent.run],
    wanted.map(({ id }) => childField(id)),
  )
  for (const [index, it] of wanted.entries()) refuseKey(it, claimed[index] ?? it.agent)
  const unclaimed = wanted.filter((_, index) => typeof claimed[index] !== 'string')
  const fresh = unclaimed.length
  if (parent.children + fresh > MAX_CHILDREN) throw tooManyChildren()
  const over = fresh === 0 ? null : overRun(made, fresh, bytesOf(unclaimed))
  if (over !== null) throw over
  if (fresh > 0 && refusal !== null)
    throw refusal.kind === 'queue' ? refuse(429, 'AG6008', refusal.message) : refuse(503, 'AG6009', refusal.message)
  return fresh
}

/** All are counted before they are claimed, so that requests at the same time cannot pass the bound together. */
async function claim(kit: Kit, parent: Task, wanted: readonly Wanted[], made: RunChildren, unclaimed: number): Promise<void> {
  const over = unclaimed === 0 ? null : overRun(made, unclaimed, 0)
  if (over !== null) throw over
  let claimed = 0
  made.tasks += unclaimed
  try {
    const claims = await Promise.all(wanted.map(({ id, agent }) => kit.broker.claimRunField(parent.run, childField(id), agent)))
    claimed = claims.filter((it) => it.made).length
    for (const [index, { value }] of claims.entries()) refuseKey(wanted[index] as Wanted, value)
  } finally {
    made.tasks += claimed - unclaimed
  }
}

const bytesOf = (wanted: readonly Wanted[]): number => wanted.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0)

function refuseKey({ key, agent }: Wanted, claimed: string): void {
  if (claimed !== agent)
    throw new HttpError(400, 'bad_request', `the key "${key}" was used before, for agent "${claimed}"`, 'A key names one child of a task.')
}

function needsOf(wanted: readonly Wanted[]): Needs {
  const needs = new Map<string, { tasks: number; bytes: number }>()
  for (const { agent, text } of wanted) {
    const { tasks, bytes } = needs.get(agent) ?? { tasks: 0, bytes: 0 }
    needs.set(agent, { tasks: tasks + 1, bytes: bytes + text.length })
  }
  return needs
}

async function add(kit: Kit, lease: Lease, fresh: readonly Wanted[], traceparent: string | string[] | undefined): Promise<void> {
  const { tracing } = kit
  const parent = lease.task
  const process = tracing.process(parent, lease.epoch)
  const above =
    typeof traceparent === 'string' && traceIdOf(traceparent) !== null && traceIdOf(traceparent) === traceIdOf(process)
      ? traceparent
      : process
  const { priority, timeouts } = parent
  const tasks = fresh.map(({ id, agent, type, text }) => {
    const head: Head = {
      run: parent.run,
      job: null,
      parent: parent.id,
      depth: parent.depth + 1,
      type,
      sent: tracing.send(above, id),
      created: Date.now(),
      ...(priority === undefined ? {} : { priority }),
      ...(timeouts === undefined ? {} : { timeouts }),
    }
    const task: Task = { id, agent, ...head, children: 0, lease: null }
    return { task, data: encodeTask(head, text) }
  })
  for (const { task } of tasks) kit.runs.childAdded(task)
  await kit.dispatcher.add(tasks)
  for (const { task } of tasks) tracing.sent(task.sent, above, task.agent, parent.run, 1)
}

/** Only the replica that holds the parent sees a child; for all others it is not there. */
export const task: Handler = async (kit, { response, replica, signal, url, rest: id }) => {
  await kit.whenReady(signal)
  const wait = waitMs(url, MAX_WAIT_MS)
  const { dispatcher, views } = kit
  const parent = dispatcher.task(ownerOf(id))?.lease
  if (parent?.replica !== replica) throw missing(id)
  // Who waits for a child is alive.
  parent.heard = Date.now()
  await dispatcher.whenEnded(id, wait, signal)
  parent.heard = Date.now()
  const view = await views.task(id)
  if (view === null) throw missing(id)
  sendJson(response, 200, JSON.stringify(view))
}

/** One after the other: all must have ended, so the order does not matter, and one timer is enough. */
export const awaitAll: Handler = async (kit, call) => {
  const { replica, response, signal } = call
  const { lease: token, tasks, wait_ms } = awaitCall(await kit.json(call))
  await kit.whenReady(signal)
  const lease = kit.held(replica, token)
  for (const id of tasks) if (ownerOf(id) !== lease.task.id) throw missing(id)
  const until = Date.now() + wait_ms
  for (const id of tasks) await kit.dispatcher.whenEnded(id, until - Date.now(), signal)
  if (signal.aborted) return
  lease.heard = Date.now()
  const done = tasks.every((id) => kit.dispatcher.task(id) === undefined)
  const reserve = kit.reserve(call)
  const views: string[] = []
  let bytes = 0
  for (let at = 0; at < tasks.length; at += VIEWS_AT_ONCE) {
    const part = tasks.slice(at, at + VIEWS_AT_ONCE)
    for (const [index, view] of (await kit.views.children(lease.task.run, part)).entries()) {
      if (view === null) throw missing(part[index] as string)
      const text = JSON.stringify(view)
      bytes += text.length
      if (bytes > MAX_BODY_BYTES) throw tooMuchAwaited()
      reserve(text.length)
      views.push(text)
    }
  }
  sendJson(response, 200, `{"done":${done},"tasks":[${views.join(',')}]}`)
}

const VIEWS_AT_ONCE = 50
const tooMuchAwaited = (): HttpError =>
  new HttpError(
    413,
    'payload_too_large',
    `the tasks have more than ${MAX_BODY_BYTES} bytes together`,
    'Await fewer at once, or see each with GET /v1/tasks/ID.',
  )
