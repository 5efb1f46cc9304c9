/** What runs, from labels and the gateway's word: works without the file. */
import { openControl } from './control.ts'
import { LABEL, PROBE } from './names.ts'
import { kindOf, replicaOf } from './observe.ts'
import type { ContainerRuntime, ObservedContainer } from './ports.ts'
import type { PsContainer, PsView } from './progress.ts'
import type { ReplicaView } from '../spec/protocol.ts'

/** A view is not worth waiting for: what the gateway does not say in this time is shown as unknown. */
const GATEWAY_MS = 3_000

const ORDER = ['agent', 'service', 'gateway', 'broker', 'egress', 'controller', 'secrets']

export async function ps(ctx: { readonly runtime: ContainerRuntime; readonly signal: AbortSignal }, project: string): Promise<PsView> {
  // A probe is there for half a second.
  const observed = (await ctx.runtime.containers(project, ctx.signal)).filter((container) => kindOf(container) !== PROBE)
  const gatewayRuns = observed.some((container) => kindOf(container) === 'gateway' && container.status === 'running')
  const [replicas, started] = await Promise.all([
    gatewayRuns ? replicasOf(ctx.runtime, project, ctx.signal) : null,
    Promise.all(observed.map(async (container) => [container.name, await startedAt(ctx.runtime, container, ctx.signal)] as const)),
  ])
  const startTimes = new Map(started)
  const containers = [...observed]
    .sort(
      (a, b) =>
        ORDER.indexOf(kindOf(a)) - ORDER.indexOf(kindOf(b)) ||
        (a.name.replace(/-\d+$/, '') < b.name.replace(/-\d+$/, '')
          ? -1
          : a.name.replace(/-\d+$/, '') > b.name.replace(/-\d+$/, '')
            ? 1
            : replicaOf(a) - replicaOf(b)),
    )
    .map((container) => view(container, replicas, startTimes.get(container.name) ?? null))
  // A service that ended well is ready without running.
  const up = containers.filter((container) => (container.status === 'running' ? container.ready !== false : container.ready === true))
  return { project, status: up.length === 0 ? 'stopped' : up.length === containers.length ? 'running' : 'partial', containers }
}

async function replicasOf(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<readonly ReplicaView[] | null> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(GATEWAY_MS)])
  const control = await openControl(runtime, project, limit, { retry_ms: 0 })
  try {
    return await control.replicas()
  } catch {
    return null
  } finally {
    control.close()
  }
}

/** The engine's list has no start time; one inspect per container that ever started. */
async function startedAt(runtime: ContainerRuntime, container: ObservedContainer, signal: AbortSignal): Promise<string | null> {
  if (container.status === 'created') return null
  const inspected = (await runtime.inspect(container.name, signal).catch(() => null)) as { State?: { StartedAt?: string } } | null
  const at = inspected?.State?.StartedAt
  return at === undefined || at.startsWith('0001') ? null : at
}

function view(container: ObservedContainer, replicas: readonly ReplicaView[] | null, started_at: string | null): PsContainer {
  const kind = kindOf(container)
  const agent = container.labels[LABEL.agent] ?? null
  const replica = replicaOf(container)
  const known = replicas?.find((entry) => entry.agent === agent && entry.replica === replica)
  const isUp = container.status === 'running' && container.health !== 'unhealthy'
  const done = container.status === 'exited' && container.exit_code === 0 && kind === 'service'
  return {
    name: container.name,
    kind,
    agent,
    service: container.labels[LABEL.service] ?? null,
    replica,
    status: container.status,
    health: container.health,
    ready:
      kind !== 'agent'
        ? done || (isUp && container.health !== 'starting')
        : !isUp
          ? false
          : replicas === null
            ? null
            : known?.connected === true,
    exit_code: container.status === 'exited' ? container.exit_code : null,
    image: container.image,
    started_at,
    tasks: kind === 'agent' ? (known?.tasks ?? (replicas === null ? null : 0)) : null,
  }
}
