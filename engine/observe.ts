import { LABEL } from './names.ts'
import type { ContainerRuntime, ObservedContainer, ObservedNetwork, ObservedVolume } from './ports.ts'

/** One snapshot: three list calls, whatever the size of the project. */
export interface Observed {
  readonly containers: readonly ObservedContainer[]
  readonly networks: readonly ObservedNetwork[]
  readonly volumes: readonly ObservedVolume[]
}

export async function observe(
  runtime: ContainerRuntime,
  project: string,
  signal: AbortSignal,
  ownNetworks: Promise<readonly ObservedNetwork[]> = runtime.networks(project, signal),
): Promise<Observed> {
  const [containers, networks, volumes] = await Promise.all([
    runtime.containers(project, signal),
    ownNetworks,
    runtime.volumes(project, signal),
  ])
  return { containers, networks, volumes }
}

export const kindOf = (container: ObservedContainer): string => container.labels[LABEL.kind] ?? ''
/** The agent or service that a container belongs to; null for our own parts. */
export const groupOf = (container: ObservedContainer): string | null =>
  container.labels[LABEL.agent] ?? container.labels[LABEL.service] ?? null
export const replicaOf = (container: ObservedContainer): number => Number(container.labels[LABEL.replica] ?? '1')
