/** What happened, as three independent witnesses tell it: the agents' own records, the ledger, and the broker's sets. */
import type { Json, WorkStatus } from '../../spec/protocol.ts'

/** One execution, as the agent that did it wrote it down. All clocks are the one of this machine. */
export interface Execution {
  readonly task: string
  readonly run: string
  readonly attempt: number
  /** Unique, and part of the result that it reports. */
  readonly execution: string
  readonly replica: string
  /** The task that delegated it, and under which key. */
  readonly parent: string | null
  readonly child_key: string | null
  /** Of `concurrency.key`. */
  readonly key: string | null
  /** Unix ms. */
  readonly begin: number
  /** When its outcome stood; null: it never came so far. */
  readonly end: number | null
  readonly outcome: Outcome | null
  /** The gateway said that it has it. null: nobody knows (the runtime's own answer is not recorded). */
  readonly acked: boolean | null
}
export type Outcome =
  | { readonly status: 'completed'; readonly result: Json }
  | { readonly status: 'failed'; readonly code: string; readonly retryable: boolean }

export interface Submitted {
  readonly run: string
  /** The gateway answered the submit at least once. */
  readonly acked: boolean
  /** Roots of the run; null: a pipeline's, which are not counted here. */
  readonly tasks: number | null
  /** How it may end if nobody cancels it. */
  readonly ends: readonly WorkStatus[]
  /** When a cancel was first sent, and when one was answered. */
  readonly cancel: { readonly sent: number; readonly acked: number | null } | null
}

export interface LedgerTask {
  readonly id: string
  readonly run: string
  readonly agent: string
  readonly parent: string | null
  readonly status: WorkStatus
  readonly attempts: number
  readonly result: Json
}
export interface LedgerRun {
  readonly run: string
  readonly status: WorkStatus
  /** All different answers that this run's view gave once it had ended: one, if nothing is visible twice. */
  readonly answers: readonly string[]
  /** What the control API shows of its tasks, by id. */
  readonly shown: { readonly [task: string]: Json }
  /** The same as tasks: all that is known of those of a run that has gone from the broker into the archive. */
  readonly roots: readonly LedgerTask[]
  /** Said to be lost by the broker (AG5004): what it showed before is gone with it. */
  readonly lost: boolean
  /** Why it did not complete, for the reader of a verdict. */
  readonly errors: readonly string[]
}

export interface Queue {
  readonly name: string
  readonly waiting: number
  readonly active: number
  readonly delayed: number
  readonly prioritized: number
  readonly locks: number
}

/** A moment at which something was broken on purpose. `target`: replica (AGENT.N) or part. */
export interface Fault {
  readonly kind: string
  readonly target: string
  readonly at: number
  /** When it was taken back (thawed, connected, up again); null: it has no end of its own. */
  readonly until: number | null
  /** What it was to break had just gone. */
  readonly missed: boolean
}

export interface History {
  readonly submitted: readonly Submitted[]
  readonly executions: readonly Execution[]
  readonly runs: readonly LedgerRun[]
  readonly tasks: readonly LedgerTask[]
  readonly queues: readonly Queue[]
  /** Runs that the broker calls open, and keys that nothing explains. */
  readonly open: readonly string[]
  readonly strayKeys: readonly string[]
  readonly faults: readonly Fault[]
  /** The broker may lose its last second (`durability: normal`), if the loss is told. Else nothing may be lost. */
  readonly mayLose: boolean
  /** Most executions with the same key at once; null: not asked for. */
  readonly perKey: number | null
  /** Roots per run as the receiver of spans saw them; null: no telemetry. */
  readonly roots: { readonly [run: string]: number } | null
  /** Containers that should not be, or are missing; null: no engine in this test. */
  readonly containers: readonly string[] | null
}
