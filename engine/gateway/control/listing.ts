/** Runs in pages, newest first. */
import type { RunSummary, WorkStatus } from '../../../spec/protocol.ts'

export interface ListFilter {
  readonly limit: number
  readonly before: string | null
  /** When `before` was made, if it is a run of another gateway. */
  readonly created?: string | null
  readonly status: WorkStatus | null
  readonly agent: string | null
}

export interface RunPage {
  readonly runs: readonly RunSummary[]
  readonly next: string | null
}

/** `all`: newest first. */
export function page(all: readonly RunSummary[], { limit, before, status, agent, created = null }: ListFilter): RunPage {
  const from = before === null ? 0 : startAfter(all, before, created)
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
function startAfter(all: readonly RunSummary[], before: string, created: string | null): number {
  const at = all.findIndex(({ run }) => run === before)
  if (at >= 0) return at + 1
  const older = all.findIndex((it) => (created === null ? it.run < before : newestFirst({ run: before, created_at: created }, it) < 0))
  return older < 0 ? all.length : older
}

export const newestFirst = (a: Pick<RunSummary, 'run' | 'created_at'>, b: Pick<RunSummary, 'run' | 'created_at'>): number =>
  a.created_at === b.created_at ? (a.run < b.run ? 1 : -1) : a.created_at < b.created_at ? 1 : -1
