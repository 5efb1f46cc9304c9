/** `down`: observed → plan. Pure. */
import { SECRETS_VOLUME, volumeName } from './names.ts'
import { kindOf, type Observed } from './observe.ts'
import type { Plan } from './plan.ts'
import { Builder, UP } from './plan-builder.ts'
import type { ObservedContainer } from './ports.ts'

/** Everything with the project's label, agents and services first, the lock's holder last. */
export function tearDown(project: string, observed: Observed, options: { readonly volumes: boolean; readonly grace_s?: number }): Plan {
  const build = new Builder()
  const rank = (container: ObservedContainer): number =>
    ['controller', 'agent', 'service', 'gateway', 'egress', 'broker', 'secrets'].indexOf(kindOf(container))
  const ordered = [...observed.containers].sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1))
  const removed = new Map<number, number[]>()
  const cause = 'project is taken down'
  for (const container of ordered) {
    const tier = rank(container) === 0 ? 0 : rank(container) <= 2 ? 1 : rank(container) <= 5 ? 2 : 3
    const before = Array.from({ length: tier }, (_, index) => removed.get(index) ?? []).flat()
    const target = `container:${container.name}`
    const grace = kindOf(container) === 'secrets' || kindOf(container) === 'controller' ? 0 : (options.grace_s ?? 10)
    const stop = UP.has(container.status)
      ? build.add({ op: 'stop-container', container: container.name, grace_s: grace }, target, cause, before)
      : undefined
    removed.set(tier, [
      ...(removed.get(tier) ?? []),
      build.add({ op: 'remove-container', container: container.name }, target, cause, stop === undefined ? before : [stop]),
    ])
  }
  const all = [...removed.values()].flat()
  const step = new Map(
    ordered.map((container) => [
      container.name,
      build.steps().find((entry) => entry.operation.op === 'remove-container' && entry.operation.container === container.name)?.id,
    ]),
  )
  for (const network of [...observed.networks].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    build.add(
      { op: 'remove-network', name: network.name },
      `network:${network.name}`,
      cause,
      ordered.filter((container) => container.networks[network.name] !== undefined).map((container) => step.get(container.name)),
    )
  }
  for (const volume of [...observed.volumes].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const secret = volume.name === volumeName(project, SECRETS_VOLUME)
    if (options.volumes || secret)
      build.add(
        { op: 'remove-volume', name: volume.name },
        `volume:${volume.name}`,
        secret ? 'secrets do not outlive the project' : 'volumes were asked for',
        all,
      )
  }
  return { project, steps: build.steps() }
}
