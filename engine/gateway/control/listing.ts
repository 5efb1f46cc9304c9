/** Runs in pages, newest first. */
import type { RunSummary, WorkStatus } from '../../../spec/protocol.ts'

export interface ListFilter {
  readonly limit: number
  readonly before: string | null
  readonly status: WorkStatus | null
  readonly agent: string | null
}

export interface RunPage {
  readonly runs: readonly RunSummary[]
  readonly next: string | null
}

/** `all`: newest first. */
export function page(all: readonly RunSummary[], { limit, before, status, agent }: ListFilter): RunPage {
  const from = before === null ? 0 : startAfter(all, before)
  const found: RunSummary[] = []
  for (let index = from; index < all.length; index++) {
    const run = all[index] as RunSummary
    if ((status !== null && run.status !== status) || (agent !== null && run.agents?.includes(agent) !== true)) continue
    if (found.length === limit) return { runs: found, next: found.at(-1)?.run ?? null }
    found.push(run)
  }
  return { runs: found, next: null }
}

/** A run that has been forgotten meanwhile: its id says when it was. */
function startAfter(all: readonly RunSummary[], before: string): number {
  const at = all.findIndex(({ run }) => run === before)
  if (at >= 0) return at + 1
  const older = all.findIndex(({ run }) => run < before)
  return older < 0 ? all.length : older
}
