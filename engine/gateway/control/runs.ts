/** Runs: submit, list, inspect, follow, cancel, retry. */
import type { WorkStatus } from '../../../spec/protocol.ts'
import { type Call, type Kit, limitOf, noRun, send, waitOf } from './call.ts'
import { runExplanation } from './explain.ts'
import { page, type RunPage } from './listing.ts'
import { retryRequest } from './retry.ts'
import { submitRequest } from './submit.ts'
import { keepWaitingInputs } from './waiting-inputs.ts'

/** From the first of several gateways: when the run named by `before` was made. */
export const CREATED_HEADER = 'agentctl-created'
const headerOf = ({ request }: Call, name: string): string | null => [request.headers[name]].flat()[0] ?? null

export async function submit(kit: Kit, call: Call): Promise<void> {
  const request = submitRequest(call.body)
  await kit.whenReady()
  send(call, await kit.runs.submit(request))
}

export async function list(kit: Kit, call: Call): Promise<void> {
  send(call, await pageOf(kit, call))
}

/** `created`: when the run named by `before` was made, which another gateway may have. */
export async function pageOf(kit: Kit, call: Call, created: string | null = null): Promise<RunPage> {
  await kit.whenReady()
  const { searchParams } = call.url
  const filter = {
    limit: limitOf(call),
    before: searchParams.get('before'),
    created: created ?? headerOf(call, CREATED_HEADER),
    status: searchParams.get('status') as WorkStatus | null,
    agent: searchParams.get('agent'),
  }
  return page(await kit.views.runs(), filter)
}

export async function show(kit: Kit, call: Call): Promise<void> {
  const id = call.at['run'] as string
  await kit.whenReady()
  await kit.runs.whenEnded(id, waitOf(call), call.signal)
  const view = await kit.views.run(id)
  if (view === null) throw noRun(id)
  send(call, view)
}

export async function explain(kit: Kit, call: Call): Promise<void> {
  const id = call.at['run'] as string
  // What is in memory can be told at once while the broker is away.
  if (kit.broker.connected || kit.runs.opened(id) === null) await kit.whenReady()
  const view = await runExplanation(kit, id, { limit: limitOf(call), after: call.url.searchParams.get('after') })
  if (view === null) throw noRun(id)
  send(call, view)
}

export async function cancel(kit: Kit, call: Call): Promise<void> {
  const id = call.at['run'] as string
  await kit.whenReady()
  if (kit.runs.isOpen(id)) await keepWaitingInputs(kit, id)
  await kit.runs.cancel(id)
  const view = await kit.views.run(id)
  if (view === null) throw noRun(id)
  send(call, { run: id, status: view.status })
}

export async function retry(kit: Kit, call: Call): Promise<void> {
  await kit.whenReady()
  const request = await retryRequest(kit, call.at['run'] as string, call.body)
  send(call, await kit.runs.submit(request))
}
