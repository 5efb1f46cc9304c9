/** Steps that an execution records for the ones after it. */
import { sendJson } from '../http.ts'
import { journalCall } from '../validate.ts'
import { type Handler, leaseParam, lost } from './call.ts'

export const record: Handler = async (kit, call) => {
  const { lease: token, entries } = journalCall(await kit.json(call))
  await kit.whenReady(call.signal)
  const lease = kit.held(call.replica, token)
  if (entries.length > 0 && !(await kit.journals.write(lease, entries, (id) => kit.dispatcher.task(id) !== undefined))) throw lost()
  sendJson(call.response, 200, '{"ok":true}')
}

export const recorded: Handler = async (kit, call) => {
  await kit.whenReady(call.signal)
  const lease = kit.held(call.replica, leaseParam(call.url))
  const { entries, bytes } = await kit.journals.size(lease.task)
  // The answer is in memory until it is out, as a body would be.
  kit.reserve(call)(2 * bytes)
  const list = entries === 0 ? [] : await kit.journals.read(lease.task.id)
  sendJson(call.response, 200, JSON.stringify({ entries: list }))
}
