/** The verbs beside `up`, over the ports: what the CLI and tests call. Each prepares a plan (pure, printable) that can then be applied. */
import { bootstrap, holderOf, LOCK_TIMEOUT_MS, locked, never, plan, type Prepared, run, subset, type VerbContext } from './applying.ts'
import { desired } from './desired.ts'
import { AgentctlError } from './errors.ts'
import { execute } from './execute.ts'
import { readRecord as fetchRecord } from './lock.ts'
import { trustedName } from './names.ts'
import { groupOf, kindOf, type Observed, observe, replicaOf } from './observe.ts'
import type { Plan } from './plan.ts'
import type { ObservedContainer } from './ports.ts'
import type { Outcome } from './progress.ts'
import { reconcile, type ReconcileOptions } from './reconcile.ts'
import { overrides, type ProjectRecord } from './record.ts'
import { SECCOMP } from './seccomp.ts'
import { tearDown } from './tear-down.ts'

export type { Prepared, VerbContext } from './applying.ts'

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
  const draft = await plan(ctx, name, observed, current, change(current), null, options)
  return {
    plan: draft.plan,
    apply: async () => {
      const opened = await bootstrap(ctx, name, draft.plan, observed, draft.desired)
      if (!opened.ok) return opened
      return await locked(ctx, name, LOCK_TIMEOUT_MS, async (lock) => {
        const seen = await observe(runtime, name, signal)
        const now = await requireRecord(ctx, name)
        const next = change(now)
        return await run(ctx, await plan(ctx, name, seen, now, next, null, options, draft.store), seen, next, lock)
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
