/** The project record: the desired state, one writer at a time (who holds the project lock). Kept at PATHS.record in the state volume. */
import type { Project } from '../spec/model.ts'

/** Raised with every change that an older agentctl must not touch; a newer one is refused by name (AG4010). */
export const RECORD_VERSION = 1

export interface ProjectRecord {
  readonly version: number
  /** Version of the package that wrote it. */
  readonly written_by: string
  readonly revision: number
  readonly project: Project
  /** `agentctl scale` overrides, by agent or service name. */
  readonly scale: { readonly [name: string]: number }
  /** Names (containers) stopped on purpose by `agentctl stop`; the controller leaves them alone. */
  readonly stopped: readonly string[]
  /** Image references resolved at `up` (so that the controller builds the same specs): engine, agent. */
  readonly images: { readonly engine: string; readonly agent: string }
  /** The engine's data root: where the secrets volume lies for bind mounts of its folders. */
  readonly data_root: string
  /** The engine's socket on its own machine, for the controller. */
  readonly engine_socket: string
  /** Processors of the engine's machine: each has files of its own that are masked. */
  readonly cpus?: number
  /** Seccomp profiles that the file names, by path: the controller makes the same containers without the file. */
  readonly seccomp_profiles?: { readonly [path: string]: string }
  /** network (short name) → subnet, chosen once. */
  readonly subnets: { readonly [network: string]: string }
}

/** `scale` without what says the same as the file: a project that was scaled back has the record that it had before. */
export function overrides(project: Project, scale: ProjectRecord['scale']): ProjectRecord['scale'] {
  return Object.fromEntries(
    Object.entries(scale).filter(([name, count]) => count !== (project.agents[name] ?? project.services[name])?.replicas),
  )
}
