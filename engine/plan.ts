/** A plan is data: what to do, to what, why, after what. `reconcile` decides, `execute` acts, both over these types. */
import type { ContainerSpec, Endpoint, NetworkSpec, VolumeSpec } from './ports.ts'

/** One operation, roughly one engine call each. */
export type Operation =
  | { readonly op: 'create-network'; readonly network: NetworkSpec }
  | { readonly op: 'remove-network'; readonly name: string }
  | { readonly op: 'create-volume'; readonly volume: VolumeSpec }
  /** Give a named volume to its user: a PUT of a folder's entry into a created container, which runs nothing. */
  | {
      readonly op: 'own-volume'
      readonly volume: string
      readonly container: string
      readonly path: string
      readonly uid: number
      readonly gid: number
    }
  /** A folder in a volume that another container holds, made there (by PUT) for who binds it. One that exists keeps what is in it. */
  | {
      readonly op: 'make-folder'
      readonly container: string
      readonly path: string
      readonly folder: string
      readonly uid: number
      readonly gid: number
    }
  | { readonly op: 'remove-volume'; readonly name: string }
  /** Write the secret files of these containers into the secrets volume (values are resolved by the executor, never in the plan). */
  | { readonly op: 'write-secrets'; readonly containers: readonly string[] }
  /** Write the project record (revision, resolved project without secret values). */
  | { readonly op: 'write-record'; readonly revision: number }
  | { readonly op: 'create-container'; readonly container: ContainerSpec }
  | { readonly op: 'connect-network'; readonly container: string; readonly endpoint: Endpoint }
  | { readonly op: 'disconnect-network'; readonly container: string; readonly network: string }
  | { readonly op: 'start-container'; readonly container: string }
  /** Wait until: running · healthy (engine healthcheck) · completed (exit 0) · ready (connected to the gateway; healthy too where the file has a healthcheck). */
  | {
      readonly op: 'wait'
      readonly container: string
      readonly until: 'running' | 'healthy' | 'completed' | 'ready'
      readonly timeout_ms: number
    }
  | { readonly op: 'stop-container'; readonly container: string; readonly grace_s: number }
  | { readonly op: 'remove-container'; readonly container: string }

export interface Step {
  /** 1, 2, …, in the order of the text. */
  readonly id: number
  readonly operation: Operation
  /** "container:research-coder-1", "network:research_control", "volume:…", "record:research". */
  readonly target: string
  /** Why: "does not exist", "config hash changed", "scaled down to 2", "exited (137)", … */
  readonly cause: string
  readonly needs: readonly number[]
}

export interface Plan {
  readonly project: string
  readonly steps: readonly Step[]
}
