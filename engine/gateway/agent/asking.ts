/** Questions to a person: asked by the task that holds a lease, and seen by no other agent. */
import { MAX_WAIT_MS } from '../../../spec/protocol.ts'
import { HttpError, sendJson, waitMs } from '../http.ts'
import { ownerOf } from '../ids.ts'
import { approvalCall } from '../validate.ts'
import type { Handler } from './call.ts'

export const askApproval: Handler = async (kit, call) => {
  const { lease: token, ...asked } = approvalCall(await kit.json(call))
  await kit.whenReady(call.signal)
  const view = await kit.approvals.ask(kit.held(call.replica, token).task, asked)
  sendJson(call.response, 200, JSON.stringify(view))
}

export const approval: Handler = async (kit, { response, replica, signal, url, rest: id }) => {
  await kit.whenReady(signal)
  const wait = waitMs(url, MAX_WAIT_MS)
  const { approvals, dispatcher } = kit
  const missing = (): HttpError =>
    new HttpError(404, 'not_found', `you have no approval "${id.slice(0, 200)}"`, 'Only those of a task that you hold are yours.')
  const lease = dispatcher.task(ownerOf(id))?.lease
  if (lease?.replica !== replica) throw missing()
  // Who waits for an answer is alive.
  lease.heard = Date.now()
  await approvals.whenDecided(id, wait, signal)
  lease.heard = Date.now()
  const view = approvals.get(id)
  if (view === null) throw missing()
  sendJson(response, 200, JSON.stringify(view))
}
