/** `up`: the file made true, with its images and subnets. */
import { readFile } from 'node:fs/promises'
import type { Place } from '../spec/diagnostic.ts'
import { DEFAULT_BROKER, gatewaysOf, type Project } from '../spec/model.ts'
import { DONE, firstIn, LOCK_TIMEOUT_MS, locked, plan, type Prepared, run, type VerbContext } from './applying.ts'
import { networkNames } from './desired.ts'
import { DiagnosticsError } from './errors.ts'
import { requireIdle } from './far-broker.ts'
import { requireFinished } from './gateways.ts'
import type { SeccompProfiles } from './harden.ts'
import { requirePorts } from './host-ports.ts'
import { type ImageFacts, imageSecrets } from './image-secrets.ts'
import { readRecord as fetchRecord } from './lock.ts'
import { looseningsOf } from './loosening.ts'
import { LABEL, networkName, trustedName } from './names.ts'
import { groupOf, type Observed, observe } from './observe.ts'
import type { Plan } from './plan.ts'
import type { EngineInfo, ObservedNetwork } from './ports.ts'
import { preflight } from './preflight.ts'
import { requirements } from './requirements.ts'
import { overrides, type ProjectRecord, RECORD_VERSION } from './record.ts'
import { seccompProfiles } from './seccomp-files.ts'
import { readSources } from './secrets/sources.ts'
import { allocateSubnets, hostRoutes } from './subnets.ts'

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

const SUBNET_ATTEMPTS = 5

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
  const places = options.places ?? new Map<string, Place>()
  const note = (message: string): void => ctx.emit({ kind: 'note', message })
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  const host = preflight(project, { places, local: isLocal(info), mountinfo })
  const seccomp = seccompProfiles(project, places)
  const secrets = await readSources(project, { environment: ctx.environment, places, signal, note })
  ctx.learn?.(Object.fromEntries(Object.entries(secrets.values).map(([name, value]) => [name, Buffer.from(value, 'base64')])))
  const problems = [...host, ...seccomp.diagnostics, ...secrets.diagnostics, ...requirements(project, info, places)]
  if (problems.length > 0) throw new DiagnosticsError(problems)
  const missing = networkNames(project).some((short) => !observed.networks.some((it) => it.name === networkName(project.name, short)))
  const taken = missing ? await takenSubnets(await networks, project, info) : []
  const compose = (previous: ProjectRecord | null, seen: Observed, used: readonly string[] = taken): ProjectRecord =>
    nextRecord(ctx, project, options, info, images, previous, seen, used, seccomp.profiles)
  if (previous !== null) await requireFinished(runtime, project.name, gatewaysOf(previous.project), gatewaysOf(project), signal)
  if (previous !== null && isRunning(observed, trustedName(project.name, 'gateway'))) {
    await requireIdle(runtime, project.name, previous.project.broker ?? DEFAULT_BROKER, project.broker, note, signal)
  }
  const draft = await plan(ctx, project.name, observed, previous, compose(previous, observed), secrets.values, options)
  if (options.removeOrphans === false) tellOrphans(ctx, project, observed)
  await requireImages(ctx, draft.plan, project, images, places)
  if (isLocal(info)) await requirePorts(draft.plan, draft.desired, observed)
  return {
    plan: draft.plan,
    loosenings: looseningsOf(project),
    apply: async () => {
      if (draft.plan.steps.length === 0) return DONE
      const ours = oursToFind(draft.plan, images, observed)
      if (ours.length > 0) await options.images.ensure(signal, (message) => ctx.emit({ kind: 'note', message }), ours)
      const opened = await firstIn(ctx, project.name, { ...draft, observed }, async (seen) => ({
        ...(await plan(ctx, project.name, seen, null, compose(null, seen), secrets.values, options, draft.store)),
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
            await plan(ctx, project.name, seen, current, record, secrets.values, options, draft.store),
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
  profiles: SeccompProfiles,
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
    cpus: info.cpus,
    ...(Object.keys(profiles).length === 0 ? {} : { seccomp_profiles: profiles }),
    subnets,
  }
}

/** An image that a running container was made from is there; the others are looked for. */
function oursToFind(plan: Plan, ours: ProjectRecord['images'], observed: Observed): readonly string[] {
  const present = new Set(observed.containers.flatMap((container) => (container.status === 'running' ? [container.image] : [])))
  const wanted = new Set(plan.steps.flatMap((step) => (step.operation.op === 'create-container' ? [step.operation.container.image] : [])))
  return [ours.engine, ours.agent].filter((image) => wanted.has(image) && !present.has(image))
}

/** Missing images of users are found before anything is made, and so are those that carry a secret. */
async function requireImages(
  ctx: VerbContext,
  plan: Plan,
  project: Project,
  ours: ProjectRecord['images'],
  places: ReadonlyMap<string, Place>,
): Promise<void> {
  const wanted = new Set(plan.steps.flatMap((step) => (step.operation.op === 'create-container' ? [step.operation.container.image] : [])))
  wanted.delete(ours.engine)
  wanted.delete(ours.agent)
  const facts = new Map<string, ImageFacts>()
  for (const reference of [...wanted].sort()) {
    let image = await ctx.runtime.image(reference, ctx.signal)
    if (image === null) {
      ctx.emit({ kind: 'note', message: `pulling ${reference}` })
      await ctx.runtime.pullImage(reference, ctx.signal)
      image = await ctx.runtime.image(reference, ctx.signal)
    }
    if (image !== null) facts.set(reference, { ...image, history: await ctx.runtime.imageHistory(reference, ctx.signal) })
  }
  const problems = imageSecrets(project, facts, places)
  if (problems.length > 0) throw new DiagnosticsError(problems)
}
