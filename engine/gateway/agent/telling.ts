/** What an agent tells of its work while it goes on: for people, and for traces. */
import { LOG_BYTES_PER_S } from '../../../spec/protocol.ts'
import { readBody, readJson, sendJson } from '../http.ts'
import { MAX_TRACES_BYTES, ownTraces } from '../traces.ts'
import { logsCall, progressCall } from '../validate.ts'
import type { Handler } from './call.ts'

export const progress: Handler = async (kit, call) => {
  const { lease, ...told } = progressCall(await kit.json(call))
  const held = kit.held(call.replica, lease)
  const { message, percent, data } = told
  // A step alone is for the gateway, not for people.
  if (told.step === undefined || message !== undefined || percent !== undefined || data !== undefined)
    kit.logs.progress(held, message, percent, data)
  kit.dispatcher.progress(held, told)
  sendJson(call.response, 200, '{"ok":true}')
}

/** JSON of 64 KiB of text, each byte escaped. */
const MAX_LOGS_BYTES = 8 * LOG_BYTES_PER_S

export const logs: Handler = async (kit, call) => {
  const { lease: token, lines } = logsCall(await readJson(call.request, MAX_LOGS_BYTES, kit.reserve(call)))
  const lease = kit.held(call.replica, token)
  lease.sign = Date.now()
  kit.logs.add(lease, lines)
  sendJson(call.response, 200, '{"ok":true}')
}

export const traces: Handler = async (kit, call) => {
  const body = await readBody(call.request, MAX_TRACES_BYTES, kit.reserve(call))
  kit.traces.forward(ownTraces(body, call.replica, kit.config.project.name), 'application/json')
  sendJson(call.response, 200, '{}')
}
