/** Questions of tasks to people. */
import type { ApprovalView } from '../../../spec/protocol.ts'
import { refuse } from '../submission.ts'
import { type Call, type Kit, send } from './call.ts'

export async function list(kit: Kit, call: Call): Promise<void> {
  send(call, { approvals: await listOf(kit, call) })
}

export async function listOf(kit: Kit, call: Call): Promise<readonly ApprovalView[]> {
  await kit.whenReady()
  const status = call.url.searchParams.get('status') ?? 'pending'
  return kit.approvals.list().filter((it) => status === 'all' || it.status === status)
}

export async function show(kit: Kit, call: Call): Promise<void> {
  await kit.whenReady()
  send(call, found(kit, call))
}

/** The same decision again is the same; another one is refused. */
export async function decide(kit: Kit, call: Call): Promise<void> {
  const { decision, comment } = call.body
  await kit.whenReady()
  const view = found(kit, call)
  const wanted = decision === 'approve' ? 'approved' : 'rejected'
  if (view.status === wanted) send(call, view)
  else send(call, await kit.approvals.decide(view.id, wanted, typeof comment === 'string' ? comment : null))
}

function found(kit: Kit, call: Call): ApprovalView {
  const id = call.at['approval'] as string
  const view = kit.approvals.get(id)
  if (view === null) throw refuse(404, 'AG6012', `there is no approval "${id.slice(0, 200)}"`)
  return view
}
