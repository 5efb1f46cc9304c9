/** Taking tasks and ending them. */
import type { Settlement } from '../../../spec/protocol.ts'
import { jsonBytes } from '../../pipeline.ts'
import { sendJson } from '../http.ts'
import type { JournalSize } from '../journal.ts'
import { completeCall, failCall, heartbeatCall, leaseCall } from '../validate.ts'
import type { Lease } from '../work.ts'
import { type Call, type Handler, inTime, type Kit, lost, READY_MS, tooLarge, unavailable } from './call.ts'

export const lease: Handler = async (kit, call) => {
  const { request, response, session, signal } = call
  const asked = leaseCall(await kit.json(call))
  const { dispatcher, log } = kit
  await kit.whenReady(signal)
  const working = dispatcher.lease(session, asked, signal)
  const reply = await inTime(working, asked.wait_ms + READY_MS)
  if (reply === null || signal.aborted) {
    // What it brings later goes out with another request; what it settles is known then.
    working.then(
      ({ leases }) => dispatcher.undelivered(leases),
      (error: unknown) => log(String(error)),
    )
    throw unavailable()
  }
  const { leases, settled, cancel } = reply
  const having = kit.journals.having(leases)
  const journals = having.length === 0 ? null : await journalsOf(kit, call, leases, having)
  response.once('finish', () => dispatcher.delivered(session, leases, request.socket))
  response.once('close', () => {
    if (!response.writableFinished) dispatcher.undelivered(leases)
  })
  sendJson(
    response,
    200,
    `{"tasks":[${leases.map((it) => withJournal(dispatcher.view(it), journals?.get(it))).join(',')}],"settled":${JSON.stringify(settled)},"cancel":${JSON.stringify(cancel)}}`,
  )
}

/** Executions that are not their task's first, of tasks that recorded steps: how many. */
async function journalsOf(
  { dispatcher, journals }: Kit,
  { signal }: Call,
  leases: readonly Lease[],
  having: readonly Lease[],
): Promise<ReadonlyMap<Lease, JournalSize>> {
  const sizes = await inTime(journals.sizes(having), READY_MS).catch(() => null)
  if (sizes !== null && !signal.aborted) return sizes
  dispatcher.undelivered(leases)
  throw unavailable()
}

const withJournal = (view: string, size: JournalSize | undefined): string =>
  size === undefined || size.entries === 0 ? view : `{"journal":${size.entries},${view.slice(1)}`

export const complete: Handler = async (kit, call) => settle(kit, call, completeCall(await kit.json(call)))
export const fail: Handler = async (kit, call) => settle(kit, call, failCall(await kit.json(call)))

async function settle(kit: Kit, { response, session, signal }: Call, settlement: Settlement): Promise<void> {
  await kit.whenReady(signal)
  const settling = kit.dispatcher.settle(session, settlement)
  const reply = await inTime(settling, READY_MS)
  settling.catch(() => {})
  if (reply === null) throw unavailable()
  const { ok, code } = reply
  if (code === 'payload_too_large' && settlement.status === 'completed') throw tooLarge('result', jsonBytes(settlement.result))
  if (!ok) throw lost()
  sendJson(response, 200, '{"ok":true}')
}

export const heartbeat: Handler = async (kit, call) => {
  const { response, replica, signal } = call
  const token = heartbeatCall(await kit.json(call))
  await kit.whenReady(signal)
  const held = kit.held(replica, token)
  // By hand, and not by a thread beside the work.
  if (call.session.id === '') held.sign = Date.now()
  if (held.cancel !== null) held.cancel.told = true
  sendJson(response, 200, JSON.stringify({ ok: true, cancel: held.cancel === null ? [] : [token] }))
}
