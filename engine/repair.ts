/** The controller's repair: the verb that nobody asks for. */
import { bootstrap, DONE, type Draft, plan, run, type VerbContext } from './applying.ts'
import { AgentctlError } from './errors.ts'
import { parseRecord, type ProjectLock, takeLock } from './lock.ts'
import { type Observed, observe } from './observe.ts'
import type { Plan } from './plan.ts'
import type { Outcome } from './progress.ts'
import type { ProjectRecord } from './record.ts'

/** Makes the record true again; the caller has read it from the state volume. Stands back (null) while a verb holds the lock. */
export async function repair(ctx: VerbContext, text: string, skip: (container: string) => boolean): Promise<Outcome | null> {
  const { runtime, signal } = ctx
  const name = (JSON.parse(text) as ProjectRecord).project.name
  const record = parseRecord(name, text)
  const heal = async (): Promise<Draft & { observed: Observed }> => {
    const observed = await observe(runtime, name, signal)
    const draft = await plan(ctx, name, observed, record, record, null, { heal: true, removeOrphans: false })
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
