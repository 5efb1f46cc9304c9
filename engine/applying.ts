/** What every verb does with a project: look, plan, take the lock, plan again under it, execute. */
import { setTimeout as sleep } from 'node:timers/promises'
import { canonicalJson } from './canonical.ts'
import { type Desired, desired } from './desired.ts'
import { execute } from './execute.ts'
import { requireBroker } from './far-broker.ts'
import type { Loosening } from './loosening.ts'
import { type ProjectLock, takeLock } from './lock.ts'
import { trustedName } from './names.ts'
import { type Observed, observe } from './observe.ts'
import type { Plan, Step } from './plan.ts'
import type { ContainerRuntime, ObservedContainer } from './ports.ts'
import type { Outcome, ProgressEvent } from './progress.ts'
import { readiness } from './readiness.ts'
import { reconcile, type ReconcileOptions } from './reconcile.ts'
import { changeOf } from './record-changes.ts'
import type { ProjectRecord } from './record.ts'
import { SECCOMP } from './seccomp.ts'
import { changesOf } from './secrets/changes.ts'
import { newStore, readDelivered, readStore, type SecretStore, writeSecrets } from './secrets/store.ts'

export interface VerbContext {
  readonly runtime: ContainerRuntime
  readonly signal: AbortSignal
  readonly emit: (event: ProgressEvent) => void
  /** For `secrets: {x: {environment: VAR}}` and AGENTCTL_SUBNETS. */
  readonly environment: { readonly [name: string]: string | undefined }
  /** Is told every value that is read, so that nothing of it is printed. */
  readonly learn?: (values: { readonly [name: string]: string | Buffer }) => void
}

export interface Prepared {
  readonly plan: Plan
  /** What the file takes away from the default posture, whether or not it changes now. */
  readonly loosenings?: readonly Loosening[]
  /** Take the project lock, plan again under it (the world may have moved), write the record, execute, release. */
  apply(): Promise<Outcome>
}

/** How long a verb waits for the controller or another verb. */
export const LOCK_TIMEOUT_MS = 60_000
export const DONE: Outcome = { ok: true, failures: [], skipped: [], interrupted: false }

export const never = (): Promise<never> => Promise.reject(new Error('not part of this plan'))

export interface Draft {
  readonly plan: Plan
  readonly desired: Desired
  /** With all values that are needed, as far as they are known. */
  readonly store: SecretStore
  /** Its values are all of the file's, and replace those that the project has. */
  readonly given: boolean
}

export async function plan(
  ctx: VerbContext,
  name: string,
  observed: Observed,
  previous: ProjectRecord | null,
  next: ProjectRecord,
  /** null: those that the project has; else all of its file's, as they are now. */
  values: SecretStore['values'] | null,
  options: Partial<ReconcileOptions>,
  before: SecretStore | null = null,
): Promise<Draft> {
  const stripped = (record: ProjectRecord): string => canonicalJson({ ...record, revision: 0, written_by: '' })
  const changed = previous === null || stripped(previous) !== stripped(next)
  const revision = changed ? (previous?.revision ?? 0) + 1 : previous.revision
  const want = desired({ ...next, revision }, SECCOMP)
  // `before`: as it was before the holder was made again, whose volume may be empty now.
  const given = values ?? {}
  const hadSecrets = previous !== null && Object.keys(previous.project.secrets).length > 0
  const isCompared = values !== null && (Object.keys(given).length > 0 || hadSecrets) && holderOf(name, observed)?.status === 'running'
  const [kept, delivered] = isCompared
    ? await Promise.all([readStore(ctx.runtime, name, ctx.signal), readDelivered(ctx.runtime, name, ctx.signal)])
    : [null, null]
  const known = kept ?? before
  if (known !== null) tell(ctx, known)
  const store = { ...(known ?? newStore()), values: values ?? known?.values ?? {} }
  const { exchanged, recreated } =
    kept === null || delivered === null ? NO_CHANGES : changesOf({ ...kept, values: given }, delivered, want.containers)
  const stale = kept === null || values === null ? [] : differing(kept.values, values)
  const plan = reconcile(want, observed, {
    ...(options.forceRecreate === undefined ? {} : { forceRecreate: options.forceRecreate }),
    ...(options.removeOrphans === undefined ? {} : { removeOrphans: options.removeOrphans }),
    ...(options.heal === undefined ? {} : { heal: options.heal }),
    changedSecrets: exchanged,
    recreate: recreated,
    ...(stale.length === 0
      ? {}
      : { keepSecrets: `${stale.length === 1 ? 'secret' : 'secrets'} ${stale.join(', ')} changed; no container has it` }),
    writeRecord: changed ? { revision, cause: changeOf(previous, next) } : null,
  })
  return { plan, desired: want, store, given: values !== null }
}

const NO_CHANGES: ReturnType<typeof changesOf> = { exchanged: {}, recreated: {} }

const differing = (a: SecretStore['values'], b: SecretStore['values']): readonly string[] =>
  [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] !== b[name]).sort()

function tell(ctx: VerbContext, store: SecretStore): void {
  ctx.learn?.({ ...bytesOf(store.values), 'project-key': store.project_key, 'broker-password': store.broker_password })
}
const bytesOf = (values: SecretStore['values']): { readonly [name: string]: Buffer } =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Buffer.from(value, 'base64')]))

export async function run(
  ctx: VerbContext,
  draft: Draft,
  observed: Observed,
  record: ProjectRecord,
  lock: Pick<ProjectLock, 'writeRecord'>,
): Promise<Outcome> {
  const { runtime, signal } = ctx
  const replicas = readiness(runtime, draft.plan.project, signal)
  const { project } = draft.plan
  const running = new Set(observed.containers.filter((container) => container.status === 'running').map((container) => container.name))
  // The holder may have been (re)started after the draft: only now is it certain what the volume holds. One after the other, as they share the store.
  let kept: SecretStore | null | undefined
  let last: Promise<unknown> = Promise.resolve()
  const deliver = async (names: readonly string[]): Promise<void> => {
    kept ??= await readStore(runtime, project, signal)
    const store = { ...(kept ?? draft.store), values: { ...(draft.given ? {} : kept?.values), ...draft.store.values } }
    tell(ctx, store)
    const containers = draft.desired.containers.filter((container) => names.includes(container.spec.name))
    await writeSecrets({ runtime, project, signal, kept, store, live: new Set(names.filter((name) => running.has(name))) }, containers)
    kept = store
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
      writeSecrets: (names) => {
        const turn = last.then(() => deliver(names))
        last = turn.catch(() => undefined)
        return turn
      },
      ready: replicas.ready,
      ...((record.project.broker?.url ?? null) === null ? {} : { broker: (limit) => requireBroker(runtime, draft.plan.project, limit) }),
    })
  } finally {
    replicas.close()
  }
}

export const holderOf = (project: string, observed: Observed): ObservedContainer | null =>
  observed.containers.find((container) => container.name === trustedName(project, 'secrets')) ?? null

/** The lock lives in the holder: its part of the plan comes before everything else. */
export async function bootstrap(ctx: VerbContext, name: string, plan: Plan, observed: Observed, want: Desired): Promise<Outcome> {
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
export async function firstIn(
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
export function subset(plan: Plan, choose: (step: Step) => boolean): Plan {
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

export async function locked(
  ctx: VerbContext,
  name: string,
  timeout_ms: number,
  act: (lock: ProjectLock) => Promise<Outcome>,
): Promise<Outcome> {
  const lock = await takeLock(ctx.runtime, name, { timeout_ms, signal: ctx.signal })
  try {
    return await act(lock)
  } finally {
    lock.release()
  }
}
