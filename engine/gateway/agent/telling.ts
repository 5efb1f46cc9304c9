/** What an agent tells of its work while it goes on: for people, and for traces. */
import { readBody, sendJson } from '../http.ts'
import { MAX_TRACES_BYTES, ownTraces } from '../traces.ts'
import { progressCall } from '../validate.ts'
import type { Handler } from './call.ts'

export const progress: Handler = async (kit, call) => {
  const { lease, message, percent, data } = progressCall(await kit.json(call))
  kit.events.add(kit.held(call.replica, lease).task, 'progress', message, percent, data)
  sendJson(call.response, 200, '{"ok":true}')
}

export const traces: Handler = async (kit, call) => {
  const body = await readBody(call.request, MAX_TRACES_BYTES, kit.reserve(call))
  kit.traces.forward(ownTraces(body, call.replica, kit.config.project.name), 'application/json')
  sendJson(call.response, 200, '{}')
}
