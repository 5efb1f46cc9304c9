/** What a chaos run prints, and writes as JSON: faults by kind, work by kind, executions that were repeated, verdicts, times to recover. */
import { TERMINAL } from '../../spec/protocol.ts'
import type { ChaosResult } from './chaos.ts'
import type { Execution, Fault } from './history.ts'

export interface Report {
  readonly seed: number
  readonly tasks: number
  readonly runs: number
  readonly executions: number
  /** Executions beyond the first of their task, without those that follow a failure. */
  readonly again: number
  /** Runs that the gateway says the broker lost. */
  readonly lost: number
  readonly durability: string
  /** Tasks that three agents died with: their runs fail, and are no violation. */
  readonly dead: number
  readonly ends: { readonly [status: string]: number }
  readonly faults: { readonly [kind: string]: { readonly count: number; readonly missed: number; readonly next_lease_ms: Times | null } }
  readonly invariants: readonly {
    readonly invariant: string
    readonly says: string
    readonly checked: number
    readonly violations: readonly string[]
  }[]
  readonly heal_ms: number
}
interface Times {
  readonly median: number
  readonly max: number
}

export function reportOf({ options, history, verdicts, heal_ms }: ChaosResult): Report {
  const { executions, faults, tasks, runs } = history
  const begins = executions.map((it) => it.begin).sort((a, b) => a - b)
  const kinds = Map.groupBy(faults, (it) => it.kind)
  return {
    seed: options.seed,
    tasks: tasks.length,
    runs: runs.length,
    executions: executions.length,
    again: againOf(executions),
    lost: runs.filter((it) => it.lost).length,
    durability: options.durability,
    dead: tasks.filter((it) => it.status === 'dead').length,
    ends: counted(runs.filter((it) => TERMINAL.has(it.status)).map((it) => it.status)),
    faults: Object.fromEntries(
      [...kinds]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([kind, all]) => [
          kind,
          { count: all.length, missed: all.filter((it) => it.missed).length, next_lease_ms: timesOf(all, begins) },
        ]),
    ),
    invariants: verdicts,
    heal_ms,
  }
}

const againOf = (executions: readonly Execution[]): number => {
  const failed = new Set(executions.filter((it) => it.outcome?.status === 'failed').map((it) => `${it.task} ${it.attempt}`))
  return executions.filter((it) => it.attempt > 1 && !failed.has(`${it.task} ${it.attempt - 1}`)).length
}

const counted = (words: readonly string[]): { readonly [word: string]: number } =>
  Object.fromEntries([...Map.groupBy(words, (it) => it)].map(([word, all]) => [word, all.length]))

/** From when a fault was over to the next begin of any execution: how long nothing moved. */
function timesOf(faults: readonly Fault[], begins: readonly number[]): Times | null {
  const all = faults.flatMap((fault) => {
    const from = fault.until ?? fault.at
    const next = begins.find((begin) => begin >= from)
    return next === undefined ? [] : [next - from]
  })
  all.sort((a, b) => a - b)
  return all.length === 0 ? null : { median: all[all.length >> 1] as number, max: all.at(-1) as number }
}

export function reportText(report: Report): string {
  const lines = [
    `SEED=${report.seed}: ${report.tasks} tasks of ${report.runs} runs in ${report.executions} executions, ${report.again} of them again after a fault`,
    `runs: ${Object.entries(report.ends)
      .map(([status, count]) => `${count} ${status}`)
      .join(
        ', ',
      )}; ${report.dead} tasks dead; ${report.lost} runs lost and said to be (durability: ${report.durability}); healed and drained in ${(report.heal_ms / 1_000).toFixed(1)} s`,
    '',
    'fault                          count  missed   next begin after its end, ms (median, longest)',
    ...Object.entries(report.faults).map(
      ([kind, { count, missed, next_lease_ms: ms }]) =>
        `${kind.padEnd(30)} ${String(count).padStart(5)}  ${String(missed).padStart(6)}   ${ms === null ? '-' : `${ms.median}, ${ms.max}`}`,
    ),
    '',
    ...report.invariants.flatMap(({ invariant, says, checked, violations }) => [
      `${violations.length === 0 ? '✔' : '✘'} ${invariant} ${says}: ${checked} checked, ${violations.length} violated`,
      ...violations.slice(0, 20).map((it) => `    ${it}`),
    ]),
  ]
  return `${lines.join('\n')}\n`
}
