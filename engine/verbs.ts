/** The verbs, over the ports: what the CLI and tests call. Each prepares a plan (pure, printable) that can then be applied. */
import type { Project } from '../spec/model.ts'
import type { ContainerRuntime } from './ports.ts'
import type { Plan } from './plan.ts'
import type { Outcome, ProgressEvent } from './progress.ts'

export interface VerbContext {
  readonly runtime: ContainerRuntime
  readonly signal: AbortSignal
  readonly emit: (event: ProgressEvent) => void
  /** For `secrets: {x: {environment: VAR}}`. */
  readonly environment: { readonly [name: string]: string | undefined }
}

export interface Prepared {
  readonly plan: Plan
  /** Take the project lock, plan again under it (the world may have moved), write the record, execute, release. */
  apply(): Promise<Outcome>
}
