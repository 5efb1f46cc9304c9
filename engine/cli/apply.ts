/** Applies a plan and tells what came of it, for every verb that changes a project. */
import { CODES, type Code } from '../../spec/codes.ts'
import { EXIT } from '../errors.ts'
import { renderLoosenings } from '../loosening.ts'
import { LABEL } from '../names.ts'
import { planView, renderPlan } from '../plan-text.ts'
import type { Outcome, StepFailure } from '../progress.ts'
import type { Prepared } from '../verbs.ts'
import { failureView, interruption, renderFailure } from './failure.ts'
import type { Paint } from './io.ts'
import { seconds } from './progress.ts'
import type { Session } from './session.ts'

export interface ChangeView {
  readonly project: string
  readonly ok: boolean
  /** Steps that the plan had. */
  readonly changes: number
  readonly failures: readonly StepFailure[]
  readonly skipped: readonly string[]
  /** As of every failed command; absent when all went well. */
  readonly error?: { readonly code: string; readonly message: string; readonly hint: string }
}

export interface Applied {
  readonly code: number
  readonly view: ChangeView
}

export async function showPlan(session: Session, { plan, loosenings = [] }: Prepared): Promise<void> {
  const view = { ...planView(plan), ...(loosenings.length === 0 ? {} : { loosenings }) }
  await session.out.print(view, () => [renderPlan(plan), ...renderLoosenings(loosenings)].join('\n'))
}

/** Text: progress and a closing line on stderr; the view is left to the verb. */
export async function apply(session: Session, prepared: Prepared): Promise<Applied> {
  const begin = performance.now()
  const project = prepared.plan.project
  const outcome = await prepared.apply()
  const view = changeView(project, prepared.plan.steps.length, outcome)
  const code = outcome.ok ? EXIT.done : outcome.interrupted ? EXIT.interrupted : await failedOrPartial(session, project, outcome)
  if (view.error !== undefined && !session.out.json) await session.out.problem(view, renderFailures)
  session.progress.note(closing(view, performance.now() - begin))
  return { code, view }
}

function changeView(project: string, changes: number, outcome: Outcome): ChangeView {
  const [first] = outcome.failures
  const base = { project, ok: outcome.ok, changes, failures: outcome.failures, skipped: outcome.skipped }
  if (outcome.interrupted) return { ...base, ...failureView(interruption()) }
  if (outcome.ok || first === undefined) return base
  return { ...base, error: { code: first.code, message: first.message, hint: first.hint } }
}

/** 3: something of the user's runs all the same. */
async function failedOrPartial(session: Session, project: string, outcome: Outcome): Promise<number> {
  if (outcome.failures.some((it) => it.op === 'wait' && it.code !== 'AG4009')) return EXIT.partial
  const containers = await (await session.runtime()).containers(project, session.signal)
  const runs = containers.some((it) => it.status === 'running' && ['agent', 'service'].includes(it.labels[LABEL.kind] ?? ''))
  return runs ? EXIT.partial : EXIT.failed
}

function renderFailures({ failures, skipped, error }: ChangeView, paint: Paint): string {
  const shown = failures.length > 0 ? failures : error === undefined ? [] : [error]
  const blocks = shown.map(({ code, message, hint }) =>
    renderFailure({ error: { code: code as Code, message, hint: hint === '' ? (CODES[code as Code]?.fix ?? '') : hint } }, paint),
  )
  const count = skipped.length === 0 ? '' : `  skipped: ${skipped.length} ${skipped.length === 1 ? 'step' : 'steps'} waiting on that\n`
  return [...new Set(blocks), count].join('')
}

function closing({ project, ok, changes, failures }: ChangeView, ms: number): string {
  if (ok)
    return changes === 0 ? `${project}: no changes` : `${project}: ${changes} ${changes === 1 ? 'step' : 'steps'} done in ${seconds(ms)}`
  return failures.length === 0
    ? `${project}: interrupted after ${seconds(ms)}`
    : `${project}: ${failures.length} of ${changes} steps failed`
}
