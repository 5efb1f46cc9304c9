/** Tasks: inspect, explain. */
import { type Call, type Kit, noTask, send, waitOf } from './call.ts'
import { explanation } from './explain.ts'

export async function show(kit: Kit, call: Call): Promise<void> {
  const id = call.at['task'] as string
  await kit.whenReady()
  await kit.dispatcher.whenEnded(id, waitOf(call), call.signal)
  const view = await kit.views.task(id)
  if (view === null) throw noTask(id)
  send(call, view)
}

export async function explain(kit: Kit, call: Call): Promise<void> {
  const id = call.at['task'] as string
  // Of a broker that is away it can be told at once, instead of after the time that others wait for it.
  if (!kit.broker.connected) {
    const agent = kit.dispatcher.task(id)?.agent
    if (agent !== undefined) {
      const reasons = [{ code: 'broker_away', message: 'the broker does not answer; nothing is lost, and nothing moves until it is back' }]
      return send(call, { id, agent, status: kit.dispatcher.task(id)?.lease === null ? 'queued' : 'running', reasons })
    }
  }
  await kit.whenReady()
  const view = await explanation(kit, id)
  if (view === null) throw noTask(id)
  send(call, view)
}
