/** The verbs, over the ports: what the CLI, the controller and tests call. Each prepares a plan (pure, printable) that can then be applied. */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Place } from '../spec/diagnostic.ts'
import { DEFAULT_BROKER, gatewaysOf, type Project } from '../spec/model.ts'
import { canonicalJson } from './canonical.ts'
import { type Desired, desired, networkNames } from './desired.ts'
import { AgentctlError, DiagnosticsError } from './errors.ts'
import { execute } from './execute.ts'
import { requireBroker, requireIdle } from './far-broker.ts'
import { requireFinished } from './gateways.ts'
import { requirePorts } from './host-ports.ts'
import { parseRecord, type ProjectLock, readRecord as fetchRecord, takeLock } from './lock.ts'
import { LABEL, networkName, trustedName } from './names.ts'
import { groupOf, kindOf, type Observed, observe, replicaOf } from './observe.ts'
import type { Plan, Step } from './plan.ts'
import type { ContainerRuntime, EngineInfo, ObservedContainer, ObservedNetwork } from './ports.ts'
import { preflight } from './preflight.ts'
import type { Outcome, ProgressEvent } from './progress.ts'
import { readiness } from './readiness.ts'
import { reconcile, type ReconcileOptions, tearDown } from './reconcile.ts'
import { changeOf } from './record-changes.ts'
import { overrides, type ProjectRecord, RECORD_VERSION } from './record.ts'
import { SECCOMP } from './seccomp.ts'
import { newStore, readStore, type SecretStore, writeSecrets } from './secrets/store.ts'
import { allocateSubnets, hostRoutes } from './subnets.ts'

export interface VerbContext {
  readonly runtime: ContainerRuntime
  readonly signal: AbortSignal
  readonly emit: (event: ProgressEvent) => void
  /** For `secrets: {x: {environment: VAR}}` and AGENTCTL_SUBNETS. */
  readonly environment: { readonly [name: string]: string | undefined }
}

export interface Prepared {
  readonly plan: Plan
  /** Take the project lock, plan again under it (the world may have moved), write the record, execute, release. */
  apply(): Promise<Outcome>
}

export interface Images {
  /** References without building anything: what the plan names. */
  references(): Promise<{ readonly engine: string; readonly agent: string }>
  /** Builds what misses (of those `wanted`). */
  ensure(signal: AbortSignal, emit: (message: string) => void, wanted?: readonly string[]): Promise<void>
}

export interface UpOptions {
  readonly images: Images
  readonly version: string
  /** Places in the file, for problems found on the host. */
  readonly places?: ReadonlyMap<string, Place>
  readonly scale?: { readonly [name: string]: number }
  readonly forceRecreate?: boolean
  readonly removeOrphans?: boolean
  readonly lock_timeout_ms?: number
}

/** How long a verb waits for the controller or another verb. */
const LOCK_TIMEOUT_MS = 60_000
const SUBNET_ATTEMPTS = 5
const DONE: Outcome = { ok: true, failures: [], skipped: [], interrupted: false }

// ---- up ----

export async function prepareUp(ctx: VerbContext, project: Project, options: UpOptions): Promise<Prepared> {
  const { runtime, signal } = ctx
  // Everybody's, for the subnets; one call serves both.
  const networks = runtime.networks(null, signal)
  const own = networks.then((all) => all.filter((network) => network.labels[LABEL.project] === project.name))
  const [info, observed, previous, images] = await Promise.all([
    runtime.info(signal),
    observe(runtime, project.name, signal, own),
    fetchRecord(runtime, project.name, signal),
    options.images.references(),
  ])
  const host = preflight(project, { environment: ctx.environment, places: options.places ?? new Map(), local: isLocal(info) })
  if (host.diagnostics.length > 0) throw new DiagnosticsError(host.diagnostics)
  const missing = networkNames(project).some((short) => !observed.networks.some((it) => it.name === networkName(project.name, short)))
  const taken = missing ? await takenSubnets(await networks, project, info) : []
  const compose = (previous: ProjectRecord | null, seen: Observed, used: readonly string[] = taken): ProjectRecord =>
    nextRecord(ctx, project, options, info, images, previous, seen, used)
  if (previous !== null) await requireFinished(runtime, project.name, gatewaysOf(previous.project), gatewaysOf(project), signal)
  if (previous !== null && isRunning(observed, trustedName(project.name, 'gateway'))) {
    const note = (message: string): void => ctx.emit({ kind: 'note', message })
    await requireIdle(runtime, project.name, previous.project.broker ?? DEFAULT_BROKER, project.broker, note, signal)
  }
  const draft = await plan(ctx, project.name, observed, previous, compose(previous, observed), host.values, options)
  if (options.removeOrphans === false) tellOrphans(ctx, project, observed)
  await requireImages(ctx, draft.plan, images)
  if (isLocal(info)) await requirePorts(draft.plan, draft.desired, observed)
  return {
    plan: draft.plan,
    apply: async () => {
      if (draft.plan.steps.length === 0) return DONE
      const ours = oursToFind(draft.plan, images, observed)
      if (ours.length > 0) await options.images.ensure(signal, (message) => ctx.emit({ kind: 'note', message }), ours)
      const opened = await firstIn(ctx, project.name, { ...draft, observed }, async (seen) => ({
        ...(await plan(ctx, project.name, seen, null, compose(null, seen), host.values, options, draft.store)),
        observed: seen,
      }))
      if (!opened.ok) return opened
      return await locked(ctx, project.name, options.lock_timeout_ms ?? LOCK_TIMEOUT_MS, async (lock) => {
        for (let attempt = 1; ; attempt++) {
          const [seen, current] = await Promise.all([observe(runtime, project.name, signal), fetchRecord(runtime, project.name, signal)])
          const record = compose(
            current,
            seen,
            attempt === 1 ? taken : await takenSubnets(await runtime.networks(null, signal), project, info),
          )
          const outcome = await run(
            ctx,
            await plan(ctx, project.name, seen, current, record, host.values, options, draft.store),
            seen,
            record,
            lock,
          )
          // Another project's `up` took a subnet between our look and our create: choose again.
          if (
            attempt === SUBNET_ATTEMPTS ||
            !outcome.failures.some((failure) => failure.op === 'create-network' && failure.code === 'AG4007')
          )
            return outcome
        }
      })
    },
  }
}

const isRunning = (observed: Observed, name: string): boolean =>
  observed.containers.some((container) => container.name === name && container.status === 'running')

/** As Compose: they stay, and who left them is told. */
function tellOrphans(ctx: VerbContext, { agents, services }: Project, observed: Observed): void {
  const orphans = observed.containers.filter((container) => {
    const group = groupOf(container)
    return group !== null && container.labels[LABEL.replica] !== '0' && agents[group] === undefined && services[group] === undefined
  })
  if (orphans.length === 0) return
  const names = orphans.map((container) => container.name).sort()
  ctx.emit({
    kind: 'note',
    message: `left running though no longer in the file: ${names.join(', ')}; \`up --remove-orphans\` removes them`,
  })
}

const isLocal = (info: EngineInfo): boolean => info.endpoint.startsWith('unix:') || info.endpoint.startsWith('/')

/** Where the controller finds the engine's socket, on the engine's own machine (a desktop's lies in its VM, at the usual place). */
function engineSocket(info: EngineInfo): string {
  const path = info.endpoint.replace(/^unix:\/\//, '')
  return isLocal(info) && !path.includes('/.docker/') ? path : '/var/run/docker.sock'
}

/** Those of networks that the project is about to lose count too: they go after the new ones have come. */
async function takenSubnets(networks: readonly ObservedNetwork[], project: Project, info: EngineInfo): Promise<readonly string[]> {
  const kept = new Set(networkNames(project).map((name) => networkName(project.name, name)))
  const routes = isLocal(info) ? await readFile('/proc/net/route', 'utf8').catch(() => '') : ''
  const own = new Set(
    networks
      .filter((network) => network.labels[LABEL.project] === project.name && kept.has(network.name))
      .flatMap((network) => network.subnets),
  )
  return [...networks.flatMap((network) => network.subnets), ...hostRoutes(routes)].filter((subnet) => !own.has(subnet))
}

function nextRecord(
  ctx: VerbContext,
  project: Project,
  options: UpOptions,
  info: EngineInfo,
  images: ProjectRecord['images'],
  previous: ProjectRecord | null,
  observed: Observed,
  taken: readonly string[],
): ProjectRecord {
  const names = networkNames(project)
  const existing = Object.fromEntries(
    names.flatMap((name) => {
      const subnet = observed.networks.find((network) => network.name === networkName(project.name, name))?.subnets[0]
      return subnet === undefined ? [] : [[name, subnet]]
    }),
  )
  // A subnet of the record whose network is gone may have been taken by another project meanwhile.
  const remembered = Object.fromEntries(
    Object.entries(previous?.subnets ?? {}).filter(([name, subnet]) => names.includes(name) && !taken.includes(subnet)),
  )
  const subnets = allocateSubnets({
    networks: names,
    chosen: { ...remembered, ...existing },
    taken,
    range: ctx.environment['AGENTCTL_SUBNETS'],
  })
  return {
    version: RECORD_VERSION,
    written_by: options.version,
    revision: previous?.revision ?? 0,
    project,
    scale: overrides(project, options.scale ?? {}),
    stopped: [],
    images,
    data_root: info.data_root,
    engine_socket: engineSocket(info),
    subnets,
  }
}

/** An image that a running container was made from is there; the others are looked for. */
function oursToFind(plan: Plan, ours: ProjectRecord['images'], observed: Observed): readonly string[] {
  const present = new Set(observed.containers.flatMap((container) => (container.status === 'running' ? [container.image] : [])))
  const wanted = new Set(plan.steps.flatMap((step) => (step.operation.op === 'create-container' ? [step.operation.container.image] : [])))
  return [ours.engine, ours.agent].filter((image) => wanted.has(image) && !present.has(image))
}

/** Missing images of users are found before anything is made. */
async function requireImages(ctx: VerbContext, plan: Plan, ours: ProjectRecord['images']): Promise<void> {
  const wanted = new Set(plan.steps.flatMap((step) => (step.operation.op === 'create-container' ? [step.operation.container.image] : [])))
  wanted.delete(ours.engine)
  wanted.delete(ours.agent)
  for (const image of [...wanted].sort()) {
    if ((await ctx.runtime.image(image, ctx.signal)) !== null) continue
    ctx.emit({ kind: 'note', message: `pulling ${image}` })
    await ctx.runtime.pullImage(image, ctx.signal)
  }
}

// ---- the other verbs ----

export async function prepareDown(
  ctx: VerbContext,
  name: string,
  options: { readonly volumes: boolean; readonly timeout_s?: number },
): Promise<Prepared> {
  const make = (observed: Observed): Plan =>
    tearDown(name, observed, { volumes: options.volumes, ...(options.timeout_s === undefined ? {} : { grace_s: options.timeout_s }) })
  const observed = await observe(ctx.runtime, name, ctx.signal)
  if (holderOf(name, observed) !== null) await refuseNewer(ctx, name)
  return {
    plan: make(observed),
    apply: async () => {
      const act = async (): Promise<Outcome> => {
        const seen = await observe(ctx.runtime, name, ctx.signal)
        return await execute(make(seen), { ...ctx, observed: seen, containers: [], writeRecord: never, writeSecrets: never, ready: never })
      }
      // Without a living holder nobody can hold the lock either.
      if (holderOf(name, observed)?.status !== 'running') return await act()
      return await locked(ctx, name, LOCK_TIMEOUT_MS, act)
    },
  }
}

const never = (): Promise<never> => Promise.reject(new Error('not part of this plan'))

/** `scale`, `stop` and `start` change the record and make it true. */
async function prepareChange(
  ctx: VerbContext,
  name: string,
  change: (record: ProjectRecord) => ProjectRecord,
  options: Partial<ReconcileOptions> = {},
): Promise<Prepared> {
  const { runtime, signal } = ctx
  const observed = await observe(runtime, name, signal)
  const current = await requireRecord(ctx, name)
  const draft = await plan(ctx, name, observed, current, change(current), {}, options)
  return {
    plan: draft.plan,
    apply: async () => {
      const opened = await bootstrap(ctx, name, draft.plan, observed, draft.desired)
      if (!opened.ok) return opened
      return await locked(ctx, name, LOCK_TIMEOUT_MS, async (lock) => {
        const seen = await observe(runtime, name, signal)
        const now = await requireRecord(ctx, name)
        const next = change(now)
        return await run(ctx, await plan(ctx, name, seen, now, next, {}, options, draft.store), seen, next, lock)
      })
    },
  }
}

export async function prepareScale(ctx: VerbContext, name: string, scale: { readonly [group: string]: number }): Promise<Prepared> {
  return await prepareChange(ctx, name, (record) => {
    for (const group of Object.keys(scale)) {
      if (record.project.agents[group] === undefined && record.project.services[group] === undefined) throw unknownTarget(name, group)
    }
    return { ...record, scale: overrides(record.project, { ...record.scale, ...scale }) }
  })
}

export async function prepareStop(ctx: VerbContext, name: string, targets: readonly string[]): Promise<Prepared> {
  const names = await containerNames(ctx, name, targets)
  if (names.includes(trustedName(name, 'secrets')))
    throw new AgentctlError(
      'AG7001',
      `${trustedName(name, 'secrets')} holds the secrets and the lock of the project: it is not stopped alone`,
      {
        hint: 'Take the whole project down with `agentctl down`.',
        exit: 2,
      },
    )
  return await prepareChange(ctx, name, (record) => ({ ...record, stopped: [...new Set([...record.stopped, ...names])].sort() }))
}

export async function prepareStart(ctx: VerbContext, name: string, targets: readonly string[]): Promise<Prepared> {
  const names = await containerNames(ctx, name, targets)
  return await prepareChange(ctx, name, (record) => ({ ...record, stopped: record.stopped.filter((entry) => !names.includes(entry)) }))
}

async function containerNames(ctx: VerbContext, name: string, targets: readonly string[]): Promise<readonly string[]> {
  const lists =
    targets.length === 0
      ? [(await resolveContainers(ctx, name, null)).filter((container) => ['agent', 'service'].includes(kindOf(container)))]
      : await Promise.all(targets.map((target) => resolveContainers(ctx, name, target)))
  return lists.flat().map((container) => container.name)
}

const unknownTarget = (project: string, target: string): AgentctlError =>
  new AgentctlError('AG4012', `project "${project}" has no agent, service or container "${target}"`, {
    hint: `See \`agentctl ps -p ${project}\`.`,
    exit: 2,
  })

export async function readRecord(ctx: VerbContext, name: string): Promise<ProjectRecord | null> {
  return await fetchRecord(ctx.runtime, name, ctx.signal)
}

/** A record that a newer agentctl wrote may mean what we do not know: no verb touches such a project, nor tells about it (AG4010). */
export async function refuseNewer(ctx: VerbContext, name: string): Promise<void> {
  await readRecord(ctx, name)
}

async function requireRecord(ctx: VerbContext, name: string): Promise<ProjectRecord> {
  const record = await readRecord(ctx, name)
  if (record === null)
    throw new AgentctlError('AG4012', `there is no project "${name}" on this engine`, {
      hint: 'Bring it up with `agentctl up`, or name another with -p.',
      exit: 2,
    })
  return record
}

/** AGENT or SERVICE (all replicas), `NAME-2`, a container's full name, or a part of ours ("agentctl-gateway"); null: all of the project. */
export async function resolveContainers(ctx: VerbContext, name: string, target: string | null): Promise<readonly ObservedContainer[]> {
  const containers = [...(await ctx.runtime.containers(name, ctx.signal))].sort(
    (a, b) => (groupOf(a) ?? '').localeCompare(groupOf(b) ?? '') || replicaOf(a) - replicaOf(b) || a.name.localeCompare(b.name),
  )
  if (target === null) {
    if (containers.length === 0)
      throw new AgentctlError('AG4012', `there is no project "${name}" on this engine`, {
        hint: 'Bring it up with `agentctl up`, or name another with -p.',
        exit: 2,
      })
    return containers
  }
  const found = containers.filter(
    (container) =>
      groupOf(container) === target ||
      container.name === target ||
      container.name === `${name}-${target}` ||
      container.name === `${name}-${target}-1` ||
      // Of our own parts there may be several gateways.
      (groupOf(container) === null && container.name.replace(/-\d+$/, '') === `${name}-${target}`),
  )
  if (found.length === 0) throw unknownTarget(name, target)
  return found
}

/** The controller restores everything else; who restores the controller is the next verb. */
export async function restoreController(ctx: VerbContext, name: string): Promise<void> {
  const observed = await observe(ctx.runtime, name, ctx.signal)
  const controller = observed.containers.find((container) => kindOf(container) === 'controller')
  if (controller?.status === 'running' || holderOf(name, observed) === null) return
  const record = await fetchRecord(ctx.runtime, name, ctx.signal)
  if (record === null) return
  const want = desired(record, SECCOMP)
  const target = trustedName(name, 'controller')
  const part = subset(
    reconcile(want, observed, { writeRecord: null }),
    (step) => step.target === `container:${target}` && step.operation.op !== 'wait',
  )
  if (part.steps.length === 0) return
  ctx.emit({ kind: 'note', message: 'restoring the controller' })
  await execute(part, {
    ...ctx,
    observed,
    containers: want.containers,
    writeRecord: never,
    writeSecrets: async () => undefined,
    ready: never,
  })
}

// ---- what they share ----

interface Draft {
  readonly plan: Plan
  readonly desired: Desired
  readonly store: SecretStore | null
}

async function plan(
  ctx: VerbContext,
  name: string,
  observed: Observed,
  previous: ProjectRecord | null,
  next: ProjectRecord,
  values: SecretStore['values'],
  options: Partial<ReconcileOptions>,
  before: SecretStore | null = null,
): Promise<Draft> {
  const stripped = (record: ProjectRecord): string => canonicalJson({ ...record, revision: 0, written_by: '' })
  const changed = previous === null || stripped(previous) !== stripped(next)
  const revision = changed ? (previous?.revision ?? 0) + 1 : previous.revision
  const want = desired({ ...next, revision }, SECCOMP)
  // `before`: as it was before the holder was made again, whose volume may be empty now.
  // Only to tell which values are new; who writes secrets reads the store again.
  const isCompared = Object.keys(values).length > 0 && holderOf(name, observed)?.status === 'running'
  const store = (isCompared ? await readStore(ctx.runtime, name, ctx.signal) : null) ?? before
  const renewed = Object.keys(values).filter((secret) => store !== null && store.values[secret] !== values[secret])
  const changedSecrets = want.containers
    .filter((container) => container.secrets.some((use) => renewed.includes(use.source)))
    .map((container) => container.spec.name)
  const plan = reconcile(want, observed, {
    ...(options.forceRecreate === undefined ? {} : { forceRecreate: options.forceRecreate }),
    ...(options.removeOrphans === undefined ? {} : { removeOrphans: options.removeOrphans }),
    ...(options.heal === undefined ? {} : { heal: options.heal }),
    changedSecrets,
    writeRecord: changed ? { revision, cause: changeOf(previous, next) } : null,
  })
  return { plan, desired: want, store: { ...(store ?? newStore()), values: { ...store?.values, ...values } } }
}

async function run(
  ctx: VerbContext,
  draft: Draft,
  observed: Observed,
  record: ProjectRecord,
  lock: Pick<ProjectLock, 'writeRecord'>,
): Promise<Outcome> {
  const { runtime, signal } = ctx
  const replicas = readiness(runtime, draft.plan.project, signal)
  // The holder may have been (re)started after the draft: only now is it certain what the volume holds.
  const store = async (): Promise<SecretStore> => {
    const kept = await readStore(runtime, draft.plan.project, signal)
    return { ...(kept ?? draft.store ?? newStore()), values: { ...kept?.values, ...draft.store?.values } }
  }
  try {
    return await execute(draft.plan, {
      ...ctx,
      observed,
      containers: draft.desired.containers,
      writeRecord: async () => {
        const step = draft.plan.steps.find((entry) => entry.operation.op === 'write-record')?.operation
        await lock.writeRecord({ ...record, revision: step?.op === 'write-record' ? step.revision : record.revision })
      },
      writeSecrets: async (names) =>
        await writeSecrets(
          runtime,
          draft.plan.project,
          await store(),
          draft.desired.containers.filter((container) => names.includes(container.spec.name)),
          signal,
        ),
      ready: replicas.ready,
      ...((record.project.broker?.url ?? null) === null ? {} : { broker: (limit) => requireBroker(runtime, draft.plan.project, limit) }),
    })
  } finally {
    replicas.close()
  }
}

const holderOf = (project: string, observed: Observed): ObservedContainer | null =>
  observed.containers.find((container) => container.name === trustedName(project, 'secrets')) ?? null

/** The lock lives in the holder: its part of the plan comes before everything else. */
async function bootstrap(ctx: VerbContext, name: string, plan: Plan, observed: Observed, want: Desired): Promise<Outcome> {
  const part = subset(plan, (step) => step.operation.op === 'start-container' && step.operation.container === trustedName(name, 'secrets'))
  return part.steps.length === 0
    ? DONE
    : await execute(part, { ...ctx, observed, containers: want.containers, writeRecord: never, writeSecrets: never, ready: never })
}

const BOOTSTRAP_ATTEMPTS = 3
/** The engine reserves a name a moment before it lists the container. */
const SHOWS_MS = 2_000

/** null: what has the holder's name is not ours. */
async function holderShows(ctx: VerbContext, name: string): Promise<Observed | null> {
  for (const end = Date.now() + SHOWS_MS; ; await sleep(100, undefined, { signal: ctx.signal })) {
    const seen = await observe(ctx.runtime, name, ctx.signal)
    if (holderOf(name, seen) !== null) return seen
    if (Date.now() > end) return null
  }
}

/**
 * Bootstrap comes before the lock, so that two first `up`s of one project meet in it: the engine lets one of them make the holder. The other
 * looks again and goes on with that one, and its lock decides.
 */
async function firstIn(
  ctx: VerbContext,
  name: string,
  first: Draft & { readonly observed: Observed },
  again: (seen: Observed) => Promise<Draft & { readonly observed: Observed }>,
): Promise<Outcome> {
  let draft = first
  for (let attempt = 1; ; attempt++) {
    const held: ProgressEvent[] = []
    const emit = (event: ProgressEvent): void => {
      if (event.kind === 'step' && (event.state === 'failed' || event.state === 'skipped')) held.push(event)
      else ctx.emit(event)
    }
    const outcome = await bootstrap({ ...ctx, emit }, name, draft.plan, draft.observed, draft.desired)
    const met = !outcome.ok && attempt < BOOTSTRAP_ATTEMPTS && outcome.failures.some((failure) => failure.code === 'AG4014')
    const seen = met ? await holderShows(ctx, name) : null
    if (seen === null) {
      held.forEach(ctx.emit)
      return outcome
    }
    draft = await again(seen)
  }
}

/** The chosen steps and all that they need. */
function subset(plan: Plan, choose: (step: Step) => boolean): Plan {
  const wanted = new Set<number>()
  const add = (step: Step): void => {
    if (wanted.has(step.id)) return
    wanted.add(step.id)
    for (const need of step.needs) {
      const needed = plan.steps[need - 1]
      if (needed !== undefined) add(needed)
    }
  }
  for (const step of plan.steps) if (choose(step)) add(step)
  return { project: plan.project, steps: plan.steps.filter((step) => wanted.has(step.id)) }
}

async function locked(ctx: VerbContext, name: string, timeout_ms: number, act: (lock: ProjectLock) => Promise<Outcome>): Promise<Outcome> {
  const lock = await takeLock(ctx.runtime, name, { timeout_ms, signal: ctx.signal })
  try {
    return await act(lock)
  } finally {
    lock.release()
  }
}

// ---- the controller's repair ----

/** Makes the record true again; the caller has read it from the state volume. Stands back (null) while a verb holds the lock. */
export async function repair(ctx: VerbContext, text: string, skip: (container: string) => boolean): Promise<Outcome | null> {
  const { runtime, signal } = ctx
  const name = (JSON.parse(text) as ProjectRecord).project.name
  const record = parseRecord(name, text)
  const heal = async (): Promise<Draft & { observed: Observed }> => {
    const observed = await observe(runtime, name, signal)
    const draft = await plan(ctx, name, observed, record, record, {}, { heal: true, removeOrphans: false })
    return { ...draft, plan: without(draft.plan, skip), observed }
  }
  const first = await heal()
  if (first.plan.steps.length === 0) return DONE
  const opened = await bootstrap(ctx, name, first.plan, first.observed, first.desired)
  if (!opened.ok) return opened
  let lock: ProjectLock
  try {
    lock = await takeLock(runtime, name, { timeout_ms: 0, signal })
  } catch (error) {
    if (error instanceof AgentctlError && error.code === 'AG4011') return null
    throw error
  }
  try {
    const now = await heal()
    return await run(ctx, now, now.observed, record, lock)
  } finally {
    lock.release()
  }
}

/** Leaves out containers that are to be left alone for now and what depends on them, and all waits: a repair does not hold the lock for them. */
function without(plan: Plan, skip: (container: string) => boolean): Plan {
  const waits = new Set(plan.steps.flatMap((step) => (step.operation.op === 'wait' ? [step.id] : [])))
  const dropped = new Set<number>()
  for (const step of plan.steps) {
    const container = step.target.startsWith('container:') ? step.target.slice('container:'.length) : null
    if ((container !== null && skip(container)) || step.needs.some((need) => dropped.has(need))) dropped.add(step.id)
  }
  const kept = plan.steps.filter((step) => !dropped.has(step.id) && !waits.has(step.id))
  // Filling folders is for containers that start; alone it is nothing to do.
  return kept.every((step) => step.operation.op === 'write-secrets') ? { ...plan, steps: [] } : { ...plan, steps: kept }
}
