/** What a verb tells while it works, and what came of it. The CLI renders these; `--progress json` prints them as they are. */

export type ProgressEvent =
  | {
      readonly kind: 'step'
      readonly id: number
      readonly total: number
      readonly op: string
      readonly target: string
      readonly cause: string
      readonly state: 'start' | 'done' | 'failed' | 'skipped'
      readonly ms?: number
      readonly message?: string
    }
  | { readonly kind: 'note'; readonly message: string }

export interface StepFailure {
  readonly target: string
  readonly op: string
  readonly code: string
  readonly message: string
  readonly hint: string
}
export interface Outcome {
  /** Every step done. */
  readonly ok: boolean
  readonly failures: readonly StepFailure[]
  /** Steps not tried because of a failure: "start container:x (waiting on container:y)". */
  readonly skipped: readonly string[]
  readonly interrupted: boolean
}

/** `agentctl ps --format json`. */
export interface PsView {
  readonly project: string
  readonly status: 'running' | 'partial' | 'stopped'
  readonly containers: readonly PsContainer[]
}
export interface PsContainer {
  readonly name: string
  readonly kind: string
  readonly agent: string | null
  readonly service: string | null
  readonly replica: number
  readonly status: string
  readonly health: string | null
  /** Agents: connected to the gateway (null: the gateway does not answer). Others: running and not unhealthy. */
  readonly ready: boolean | null
  readonly exit_code: number | null
  readonly image: string
  readonly started_at: string | null
  /** Tasks held now; null for non-agents. */
  readonly tasks: number | null
}
