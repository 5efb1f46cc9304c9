/**
 * desired × observed → plan. Pure: every rule about order and cause is here (about recreate in verdict.ts) and is tested as text.
 * `up`, `scale`, `stop`, `start` and the controller's repairs are this one function with different desired states; `down` is tear-down.ts.
 */
import { posix } from 'node:path'
import type { Desired, DesiredContainer } from './desired.ts'
import { isRoaming, LABEL, PATHS, SECRETS_VOLUME, STATE_VOLUME, trustedName, volumeName } from './names.ts'
import { type Observed, kindOf, replicaOf } from './observe.ts'
import type { Plan } from './plan.ts'
import { Builder, removeSteps } from './plan-builder.ts'
import type { ObservedContainer } from './ports.ts'
import { judge, type JudgeOptions } from './verdict.ts'

export interface ReconcileOptions extends JudgeOptions {
  /** Remove containers of ours that the file no longer names (agents and services); they are ours by label, so the default is true. */
  readonly removeOrphans?: boolean
  /** Non-null: the record is to be written with this revision. */
  readonly writeRecord: { readonly revision: number; readonly cause: string } | null
  /** Containers whose secrets changed, and why: their files are exchanged, they go on running. */
  readonly changedSecrets?: { readonly [container: string]: string }
  /** Values changed, and why they are to be kept for who starts later, also if no container has them now. */
  readonly keepSecrets?: string
}

export function reconcile(desired: Desired, observed: Observed, options: ReconcileOptions): Plan {
  const build = new Builder()
  const networks = new Map(observed.networks.map((network) => [network.name, network]))
  const volumes = new Set(observed.volumes.map((volume) => volume.name))
  const containers = new Map(observed.containers.map((container) => [container.name, container]))
  const verdicts = new Map(desired.containers.map((want) => [want.spec.name, judge(want, containers.get(want.spec.name), options)]))
  const holderName = trustedName(desired.project, 'secrets')
  const wanted = new Set(desired.containers.map((want) => want.spec.name))
  const made = new Map<string, number>()
  const gateways = desired.containers.filter((want) => want.spec.kind === 'gateway')

  const surplus = observed.containers
    .filter((container) => !wanted.has(container.name) && (kindOf(container) === 'agent' || kindOf(container) === 'service'))
    .filter((container) => container.labels[LABEL.replica] !== '0')
    .sort((a, b) => replicaOf(b) - replicaOf(a) || (a.name < b.name ? -1 : 1))
  const removals = new Map<string, number>()
  const orphans: ObservedContainer[] = []
  for (const container of surplus) {
    const group = container.labels[LABEL.agent] ?? container.labels[LABEL.service] ?? ''
    if (!desired.declared.has(group) && options.removeOrphans === false) {
      orphans.push(container)
      continue
    }
    const cause = desired.declared.has(group)
      ? `scaled down to ${desired.containers.filter((want) => want.group === group).length}`
      : 'is no longer in the file'
    removals.set(container.name, removeSteps(build, container, cause, []))
  }
  // What it kept stays in the state volume, and in the broker: it is there again when the gateway is.
  for (const container of observed.containers)
    if (kindOf(container) === 'gateway' && !wanted.has(container.name))
      removals.set(container.name, removeSteps(build, container, `the project has ${gateways.length} gateway(s) now`, []))
  // Its volume stays: what it holds is there again if the file goes back to our broker.
  for (const container of observed.containers)
    if (kindOf(container) === 'broker' && !wanted.has(container.name))
      removals.set(container.name, removeSteps(build, container, 'the project has a broker of its own', []))

  for (const network of desired.networks) {
    if (!networks.has(network.name))
      made.set(network.name, build.add({ op: 'create-network', network }, `network:${network.name}`, 'does not exist', []))
  }
  for (const volume of desired.volumes) {
    if (!volumes.has(volume.name))
      made.set(volume.name, build.add({ op: 'create-volume', volume }, `volume:${volume.name}`, 'does not exist', []))
  }

  // A volume is its user's before its first container starts. One that was made but never used (an `up` that was cut short) counts as new:
  // the engine may have made the container although nobody waited for it any more.
  const owned = new Map<string, number>()
  const isUnused = (name: string): boolean => (containers.get(name)?.status ?? 'created') === 'created'
  const fresh = new Set(
    Object.keys(desired.owners).filter(
      (volume) =>
        made.has(volume) ||
        desired.containers
          .filter((want) => want.spec.volumes.some((mount) => mount.source === volume))
          .every((want) => isUnused(want.spec.name)),
    ),
  )
  const own = (want: DesiredContainer, needs: readonly (number | undefined)[]): readonly (number | undefined)[] =>
    want.spec.volumes.map((mount) => {
      const owner = desired.owners[mount.source]
      // The engine refuses to write through a mount that only reads: its writer gives the volume away.
      if (owner !== undefined && !mount.read_only && fresh.has(mount.source) && !owned.has(mount.source)) {
        owned.set(
          mount.source,
          build.add(
            { op: 'own-volume', volume: mount.source, container: want.spec.name, path: mount.target, ...owner },
            `volume:${mount.source}`,
            `belongs to uid ${owner.uid}`,
            needs,
          ),
        )
      }
      return owned.get(mount.source)
    })

  const started = new Map<string, number>()
  const up = new Map<string, number>()
  const deferred: DesiredContainer[] = []
  let holderStart: number | undefined
  let record: number | undefined
  const secrets = new Map<string, number>()
  const folders = new Map<string, number>()
  let folder: number | undefined

  // A port of the host may be one that a container which goes still holds.
  const freed = (want: DesiredContainer): readonly number[] => (want.spec.ports.length === 0 ? [] : [...removals.values()])

  const bring = (want: DesiredContainer): void => {
    const { spec } = want
    const verdict = verdicts.get(spec.name) ?? { kind: 'keep' }
    const have = containers.get(spec.name)
    const target = `container:${spec.name}`
    const waits = want.after.flatMap(({ group, until }) =>
      desired.containers
        .filter((other) => other.group === group)
        .map((other) => (until === 'running' ? started.get(other.spec.name) : up.get(other.spec.name))),
    )
    const base = spec.name === holderName ? [] : [record, secrets.get(spec.name), folders.get(spec.name), holderStart]
    switch (verdict.kind) {
      case 'keep': {
        if (isRoaming(spec.kind)) {
          joinNetworks(build, want, have, [...base], made)
          leaveNetworks(build, want, have, desired)
        }
        if (have?.status === 'running' && have.health === 'starting' && spec.healthcheck !== null) {
          up.set(
            spec.name,
            build.add(
              { op: 'wait', container: spec.name, until: want.until === 'ready' ? 'healthy' : want.until, timeout_ms: want.timeout_ms },
              target,
              'is still starting',
              waits,
            ),
          )
        }
        return
      }
      case 'stop':
        build.add({ op: 'stop-container', container: spec.name, grace_s: spec.stop_grace_s }, target, verdict.cause, [])
        return
      case 'create': {
        const gone = verdict.old === null ? undefined : removeSteps(build, verdict.old, verdict.cause, verdict.running ? waits : [])
        const create = build.add({ op: 'create-container', container: spec }, target, verdict.cause, [
          ...base,
          gone,
          ...spec.endpoints.slice(0, 1).map((endpoint) => made.get(endpoint.network)),
          ...spec.volumes.map((volume) => made.get(volume.source)),
        ])
        const joins = spec.endpoints
          .slice(1)
          .map((endpoint) =>
            build.add({ op: 'connect-network', container: spec.name, endpoint }, target, `joins ${endpoint.network}`, [
              create,
              made.get(endpoint.network),
            ]),
          )
        const start = build.add({ op: 'start-container', container: spec.name }, target, verdict.cause, [
          create,
          ...joins,
          ...own(want, [create]),
          ...waits,
          ...freed(want),
        ])
        started.set(spec.name, start)
        break
      }
      case 'start': {
        const stop = verdict.stopFirst
          ? build.add({ op: 'stop-container', container: spec.name, grace_s: spec.stop_grace_s }, target, verdict.cause, [])
          : undefined
        const joins = have?.status === 'created' || isRoaming(spec.kind) ? joinNetworks(build, want, have, [...base, stop], made) : []
        started.set(
          spec.name,
          build.add({ op: 'start-container', container: spec.name }, target, verdict.cause, [
            ...base,
            stop,
            ...joins,
            ...(have?.status === 'created' ? own(want, base) : []),
            ...waits,
            ...freed(want),
          ]),
        )
        break
      }
    }
    deferred.push(want)
  }

  const finish = (): void => {
    for (const want of deferred.splice(0)) {
      const doors = want.until === 'ready' ? gateways.map((gateway) => up.get(gateway.spec.name)) : []
      const wait = (until: DesiredContainer['until'], needs: readonly (number | undefined)[]): number =>
        build.add(
          { op: 'wait', container: want.spec.name, until, timeout_ms: want.timeout_ms },
          `container:${want.spec.name}`,
          `until ${until}`,
          needs,
        )
      const first = wait(want.until, [started.get(want.spec.name), ...doors])
      // Readiness waits for the engine's healthcheck only where the file has one.
      const checked = want.until === 'ready' && want.spec.healthcheck !== null && want.spec.healthcheck.test[0] !== 'NONE'
      up.set(want.spec.name, checked ? wait('healthy', [first]) : first)
    }
  }

  const [holder, ...rest] = desired.containers
  if (holder !== undefined) {
    bring(holder)
    holderStart = started.get(holder.spec.name)
    deferred.length = 0
  }
  if (options.writeRecord !== null) {
    record = build.add(
      { op: 'write-record', revision: options.writeRecord.revision },
      `record:${desired.project}`,
      options.writeRecord.cause,
      [holderStart],
    )
  }
  // A container needs its folder of secrets before it is made (bind sources must exist) and again before every start (the volume may have been lost).
  const holds = rest.filter((want) => want.spec.binds.some((bind) => bind.source.includes(volumeName(desired.project, SECRETS_VOLUME))))
  const starts = (want: DesiredContainer): boolean => ['create', 'start'].includes(verdicts.get(want.spec.name)?.kind ?? '')
  // Apart, so that a value that is missing after a reboot holds up only those who need it.
  const needsValues = (want: DesiredContainer): boolean => want.secrets.length > 0
  const changed = Object.groupBy(
    holds.filter((want) => !starts(want)),
    (want) => options.changedSecrets?.[want.spec.name] ?? '',
  )
  const writes: readonly (readonly [cause: string, containers: readonly DesiredContainer[]])[] = [
    ['files of the containers that start', holds.filter((want) => starts(want) && !needsValues(want))],
    ["the file's secrets for the containers that start", holds.filter((want) => starts(want) && needsValues(want))],
    ...Object.entries(changed).flatMap(([cause, containers]) => (cause === '' ? [] : [[cause, containers ?? []] as const])),
  ]
  for (const [cause, containers] of writes) {
    const names = containers.map((want) => want.spec.name)
    if (names.length === 0) continue
    const step = build.add({ op: 'write-secrets', containers: names }, `volume:${volumeName(desired.project, SECRETS_VOLUME)}`, cause, [
      holderStart,
    ])
    for (const name of names) secrets.set(name, step)
  }
  if (options.keepSecrets !== undefined && secrets.size === 0)
    build.add({ op: 'write-secrets', containers: [] }, `volume:${volumeName(desired.project, SECRETS_VOLUME)}`, options.keepSecrets, [
      holderStart,
    ])

  for (const want of rest.filter((want) => want.group.startsWith('agentctl-'))) {
    if (want.spec.kind === 'gateway' && ['create', 'start'].includes(verdicts.get(want.spec.name)?.kind ?? ''))
      folders.set(want.spec.name, (folder ??= makeFolder(build, desired.project, want, holderStart)))
    bring(want)
  }
  finish()
  for (const want of inOrder(rest.filter((want) => !want.group.startsWith('agentctl-')))) {
    for (const group of want) bring(group)
    finish()
  }

  const joined = observed.containers.filter((container) => isRoaming(kindOf(container)) && wanted.has(container.name))
  for (const network of observed.networks) {
    if (desired.networks.some((want) => want.name === network.name)) continue
    // What stays needs its network, and the engine removes none that is in use.
    if (orphans.some((container) => container.networks[network.name] !== undefined)) continue
    const left = joined
      .filter((gateway) => gateway.networks[network.name] !== undefined && verdicts.get(gateway.name)?.kind !== 'create')
      .map((gateway) =>
        build.add(
          { op: 'disconnect-network', container: gateway.name, network: network.name },
          `container:${gateway.name}`,
          `leaves ${network.name}`,
          [],
        ),
      )
    const users = observed.containers
      .filter((container) => container.networks[network.name] !== undefined)
      .map((container) => removals.get(container.name))
    build.add({ op: 'remove-network', name: network.name }, `network:${network.name}`, 'is no longer needed', [...left, ...users])
  }
  return { project: desired.project, steps: build.steps() }
}

/** The gateway's folder of the state volume: a bind source must exist before who binds it is made. */
function makeFolder(build: Builder, project: string, { spec }: DesiredContainer, holderStart: number | undefined): number {
  const [uid = 0, gid = uid] = (spec.user ?? '0').split(':').map(Number)
  const { dir, base } = posix.parse(PATHS.gatewayState)
  return build.add(
    { op: 'make-folder', container: trustedName(project, 'secrets'), path: dir, folder: base, uid, gid },
    `volume:${volumeName(project, STATE_VOLUME)}`,
    "the gateway's folder",
    [holderStart],
  )
}

function joinNetworks(
  build: Builder,
  want: DesiredContainer,
  have: ObservedContainer | undefined,
  needs: readonly (number | undefined)[],
  made: ReadonlyMap<string, number>,
): readonly number[] {
  return want.spec.endpoints
    .filter((endpoint) => have?.networks[endpoint.network] === undefined)
    .map((endpoint) =>
      build.add(
        { op: 'connect-network', container: want.spec.name, endpoint },
        `container:${want.spec.name}`,
        `joins ${endpoint.network}`,
        [...needs, made.get(endpoint.network)],
      ),
    )
}

/** A role that has no egress rules any more is not to find egress on its network. Networks that are no longer needed are left with their removal. */
function leaveNetworks(build: Builder, want: DesiredContainer, have: ObservedContainer | undefined, { networks }: Desired): void {
  for (const { name } of networks) {
    if (have?.networks[name] === undefined || want.spec.endpoints.some((endpoint) => endpoint.network === name)) continue
    build.add({ op: 'disconnect-network', container: want.spec.name, network: name }, `container:${want.spec.name}`, `leaves ${name}`, [])
  }
}

/** Groups in dependency order (the file was checked for cycles), by name within a level. */
function inOrder(containers: readonly DesiredContainer[]): readonly (readonly DesiredContainer[])[] {
  const groups = new Map<string, DesiredContainer[]>()
  for (const container of containers) groups.set(container.group, [...(groups.get(container.group) ?? []), container])
  const done = new Set<string>()
  const order: DesiredContainer[][] = []
  while (groups.size > 0) {
    const level = [...groups.keys()]
      .sort()
      .filter((group) =>
        (groups.get(group) ?? []).every((container) => container.after.every(({ group }) => done.has(group) || !groups.has(group))),
      )
    if (level.length === 0) throw new Error('cycle in depends_on after check')
    for (const group of level) {
      order.push(groups.get(group) ?? [])
      groups.delete(group)
    }
    for (const group of level) done.add(group)
  }
  return order
}
