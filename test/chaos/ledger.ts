/** The ledger as the control API tells it, through everything that breaks: asked again until it answers. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ControlClient } from '../../engine/control.ts'
import { type RunView, TERMINAL } from '../../spec/protocol.ts'
import type { LedgerRun } from './history.ts'

export class Ledger {
  readonly #control: ControlClient
  readonly #views = new Map<string, RunView[]>()

  constructor(control: ControlClient) {
    this.#control = control
  }

  get ended(): ReadonlySet<string> {
    return new Set(this.#views.keys())
  }

  /** Views of runs that have ended since the last look: the first answer that anyone can have seen. */
  async look(known: ReadonlySet<string>): Promise<void> {
    let before: string | undefined
    for (let open = known.size - this.#views.size; open > 0; ) {
      const page = await this.#control.runs(before === undefined ? {} : { before })
      for (const { run, status } of page.runs) {
        if (!known.has(run) || this.#views.has(run)) continue
        open -= 1
        const view = TERMINAL.has(status) ? await this.#control.run(run) : null
        if (view !== null && TERMINAL.has(view.status)) this.#views.set(run, [view])
      }
      if (page.next === null) return
      before = page.next
    }
  }

  /** Until all have ended or the time is over. */
  async drain(known: ReadonlySet<string>, ms: number): Promise<void> {
    const until = Date.now() + ms
    while (this.#views.size < known.size && Date.now() < until) {
      await this.look(known).catch(() => {})
      await sleep(500)
    }
  }

  /** Once more at the very end: what was shown must still be what is shown. */
  async final(known: ReadonlySet<string>): Promise<readonly LedgerRun[]> {
    const runs: LedgerRun[] = []
    for (const run of known) {
      const view = await this.#control.run(run).catch(() => null)
      const views = [...(this.#views.get(run) ?? []), ...(view === null ? [] : [view])]
      if (views.length > 0) runs.push(ledgerRun(views))
    }
    return runs
  }
}

/** What several answers about one run show. */
export function ledgerRun(views: readonly RunView[]): LedgerRun {
  const last = views.at(-1) as RunView
  const ended = views.filter((view) => TERMINAL.has(view.status))
  return {
    run: last.run,
    status: last.status,
    answers: [...new Set(ended.map((view) => JSON.stringify([view.status, view.result])))],
    shown: last.pipeline === null ? Object.fromEntries(last.jobs.map((job) => [job.id, job.result])) : {},
    roots:
      last.pipeline === null
        ? last.jobs.map(({ id, agent, status, attempts, result }) => ({ id, run: last.run, agent, parent: null, status, attempts, result }))
        : [],
    lost: last.error?.code === 'lost',
    errors: last.jobs.flatMap((job) =>
      job.status === 'completed'
        ? []
        : [`${job.id} ${job.status} after ${job.attempts}: ${job.error?.code ?? '-'} ${job.error?.message ?? ''}`],
    ),
  }
}
