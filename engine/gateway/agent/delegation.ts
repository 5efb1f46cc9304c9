/** Children: made by the task that holds a lease, and seen by nobody else. */
import { createHash } from 'node:crypto'
import { type DelegateRequest, MAX_CHILDREN, MAX_DEPTH, MAX_PAYLOAD_BYTES, MAX_WAIT_MS } from '../../../spec/protocol.ts'
import { jsonBytes } from '../../pipeline.ts'
import { traceIdOf } from '../../telemetry/traceparent.ts'
import { HttpError, sendJson, waitMs } from '../http.ts'
import type { Replica } from '../replicas.ts'
import { childField } from '../run-record.ts'
import { delegateCall } from '../validate.ts'
import { encodeTask, type Head, type Lease, type Task } from '../work.ts'
import { type Handler, type Kit, lost, tooLarge } from './call.ts'

const tooManyChildren = (): HttpError =>
  new HttpError(429, 'too_many_children', `a task has at most ${MAX_CHILDREN} unfinished children`, 'Wait until some have ended.')
const missing = (id: string): HttpError =>
  new HttpError(404, 'not_found', `you have no task "${id.slice(0, 200)}"`, 'Only the children of a task that you hold are yours.')

type Asked = Omit<DelegateRequest, 'lease'> & { readonly type: string }

export const delegate: Handler = async (kit, call) => {
  const { request, response, replica, signal } = call
  const asked = delegateCall(await kit.json(call))
  const bytes = jsonBytes(asked.input)
  if (bytes > MAX_PAYLOAD_BYTES) throw tooLarge('input', bytes)
  await kit.whenReady(signal)
  const lease = kit.held(replica, asked.lease)
  mayDelegate(kit, replica, lease, asked)
  const task = await child(kit, lease, asked, request.headers['traceparent'])
  sendJson(response, 200, JSON.stringify({ task }))
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
async function child(kit: Kit, lease: Lease, asked: Asked, traceparent: string | string[] | undefined): Promise<string> {
  const { dispatcher, broker, runs, tracing } = kit
  const { key, agent, type } = asked
  const parent = lease.task
  const id = `${parent.id}.${createHash('sha256').update(key).digest('hex').slice(0, 16)}`
  if (dispatcher.task(id)?.agent === agent) return id
  // Before anything is written for it.
  if (parent.children >= MAX_CHILDREN) throw tooManyChildren()
  const claimed = await broker.claimRunField(parent.run, childField(id), agent)
  if (claimed !== agent)
    throw new HttpError(400, 'bad_request', `the key "${key}" was used before, for agent "${claimed}"`, 'A key names one child of a task.')
  const [state] = await broker.read([{ queue: agent, id }])
  if (state !== null || dispatcher.task(id) !== undefined) return id
  if (!runs.isOpen(parent.run) || parent.lease !== lease) throw lost()
  // Others came meanwhile.
  if (parent.children >= MAX_CHILDREN) throw tooManyChildren()
  const process = tracing.process(parent, lease.epoch)
  const above =
    typeof traceparent === 'string' && traceIdOf(traceparent) !== null && traceIdOf(traceparent) === traceIdOf(process)
      ? traceparent
      : process
  const sent = tracing.send(above, id)
  const { priority, timeouts } = parent
  const head: Head = {
    run: parent.run,
    job: null,
    parent: parent.id,
    depth: parent.depth + 1,
    type,
    sent,
    created: Date.now(),
    ...(priority === undefined ? {} : { priority }),
    ...(timeouts === undefined ? {} : { timeouts }),
  }
  const task: Task = { id, agent, ...head, children: 0, lease: null }
  runs.childAdded(task)
  await dispatcher.add([{ task, data: encodeTask(head, JSON.stringify(asked.input)) }])
  tracing.sent(sent, above, agent, parent.run, 1)
  return id
}

/** Only the replica that holds the parent sees a child; for all others it is not there. */
export const task: Handler = async (kit, { response, replica, signal, url, rest: id }) => {
  await kit.whenReady(signal)
  const wait = waitMs(url, MAX_WAIT_MS)
  const { dispatcher, views } = kit
  const parent = dispatcher.task(id.slice(0, Math.max(0, id.lastIndexOf('.'))))
  if (parent?.lease?.replica !== replica) throw missing(id)
  await dispatcher.whenEnded(id, wait, signal)
  const view = await views.task(id)
  if (view === null) throw missing(id)
  sendJson(response, 200, JSON.stringify(view))
}
