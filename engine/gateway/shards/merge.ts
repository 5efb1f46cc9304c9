/** What several gateways say, as one. Pure. */
import type { ApprovalView, ReplicaView } from '../../../spec/protocol.ts'
import { pendingFirst } from '../approvals.ts'
import type { LetterPage } from '../control/dlq.ts'
import type { Health } from '../control/gateway.ts'
import { newestFirst, type RunPage } from '../control/listing.ts'

/** Each page is the beginning of what its gateway has; so is the merged one of all. */
export function mergeRuns(pages: readonly RunPage[], limit: number): RunPage {
  const all = pages.flatMap((page) => page.runs).sort(newestFirst)
  const runs = all.slice(0, limit)
  const isMore = all.length > limit || pages.some((page) => page.next !== null)
  return { runs, next: isMore ? (runs.at(-1)?.run ?? null) : null }
}

export function mergeLetters(pages: readonly LetterPage[], limit: number): LetterPage {
  const all = pages
    .flatMap((page) => page.tasks)
    .sort((a, b) => (a.ended_at === b.ended_at ? (a.id < b.id ? 1 : -1) : a.ended_at < b.ended_at ? 1 : -1))
  const tasks = all.slice(0, limit)
  const last = tasks.at(-1)
  const isMore = all.length > limit || pages.some((page) => page.next !== null)
  return { tasks, next: isMore && last !== undefined ? `${Date.parse(last.ended_at)}:${last.id}` : null }
}

/** Pending first, oldest first: as one gateway does. */
export const mergeApprovals = (lists: readonly (readonly ApprovalView[])[]): readonly ApprovalView[] => lists.flat().sort(pendingFirst)

/** null: that gateway does not answer, so no replica is known to be connected to it. */
export function mergeReplicas(lists: readonly (readonly ReplicaView[] | null)[]): readonly ReplicaView[] {
  const all = Map.groupBy(
    lists.flatMap((list) => list ?? []),
    ({ agent, replica }) => `${agent}.${replica}`,
  )
  return [...all.values()].map((views) => {
    const { agent, replica } = views[0] as ReplicaView
    const stalled = views.find((view) => view.stalled !== undefined)?.stalled
    return {
      agent,
      replica,
      connected: views.length === lists.length && views.every((view) => view.connected),
      tasks: views.reduce((sum, view) => sum + view.tasks, 0),
      ...(stalled === undefined ? {} : { stalled }),
      ...(views.some((view) => view.unproved) ? { unproved: true as const } : {}),
    }
  })
}

/** `open`: unfinished runs. */
export type ShardHealth = Health & { readonly open: number }
export interface GatewayHealth {
  readonly name: string
  readonly ok: boolean
  readonly broker: boolean
  readonly open: number | null
}

/** All is well when it is with all. */
export function mergeHealth(
  first: ShardHealth,
  others: readonly { readonly name: string; readonly health: ShardHealth | null }[],
): Health & { readonly gateways: readonly GatewayHealth[] } {
  const all = [{ name: 'gateway', health: first }, ...others]
  const absent = all.find(({ health }) => health === null)
  const away = { code: 'AG5001', message: `${absent?.name} does not answer` }
  return {
    ok: true,
    broker: all.every(({ health }) => health?.broker === true),
    problem: all.find(({ health }) => (health?.problem ?? null) !== null)?.health?.problem ?? (absent === undefined ? null : away),
    project: first.project,
    broker_loss: all.find(({ health }) => (health?.broker_loss ?? null) !== null)?.health?.broker_loss ?? null,
    gateways: all.map(({ name, health }) => ({ name, ok: health !== null, broker: health?.broker === true, open: health?.open ?? null })),
  }
}
