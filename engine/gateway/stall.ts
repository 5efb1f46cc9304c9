/** Motion without progress, told from the steps that an execution reports (docs/protocol.md "Stalled"). Time plays no part in it. */
import type { StallPolicy } from '../../spec/model.ts'
import type { StepBeat } from '../../spec/protocol.ts'
import type { Lease } from './work.ts'

/** What is known of the motion of one execution. */
export interface Motion {
  /** Of the last step; '': it cannot be told from others. */
  last: string
  /** How often in a row. */
  repeats: number
  /** Since `percent` or `milestone` last changed. */
  steps: number
  tokens: number
  percent: number | null
  milestone: string | null
}

const MAX_PART = 256
const cut = (text: string | undefined): string => (text ?? '').slice(0, MAX_PART)

const motionOf = (lease: Lease): Motion => (lease.motion ??= { last: '', repeats: 0, steps: 0, tokens: 0, percent: null, milestone: null })

function further(motion: Motion): void {
  motion.steps = 0
  motion.tokens = 0
  motion.repeats = 0
}

/** The execution says how far it is. Only a change is progress. */
export function notePercent(lease: Lease, percent: number): void {
  lease.sign = Date.now()
  const motion = motionOf(lease)
  if (motion.percent === percent) return
  motion.percent = percent
  further(motion)
}

/**
 * The execution has done a step. Returns why it is stalled, or null.
 * A repetition is only what names its arguments: the same bare name ten times may be ten pages of a book.
 */
export function noteStep(lease: Lease, step: StepBeat, policy: StallPolicy): string | null {
  lease.sign = Date.now()
  const motion = motionOf(lease)
  const milestone = step.milestone === undefined ? motion.milestone : cut(step.milestone)
  if (milestone !== motion.milestone) {
    motion.milestone = milestone
    further(motion)
  }
  const key = step.args_hash === undefined ? '' : [step.name, step.tool, step.args_hash].map(cut).join('\0')
  motion.repeats = key !== '' && key === motion.last ? motion.repeats + 1 : 1
  motion.last = key
  motion.steps += 1
  motion.tokens += Number.isFinite(step.tokens) ? Math.max(0, step.tokens ?? 0) : 0
  if (policy.repeats !== null && key !== '' && motion.repeats >= policy.repeats)
    return `the same step "${cut(step.name)}"${step.tool === undefined ? '' : ` (${cut(step.tool)})`} with the same arguments ${motion.repeats} times in a row`
  if (policy.steps !== null && motion.steps >= policy.steps) return `${motion.steps} steps without a change of percent or milestone`
  if (policy.tokens !== null && motion.tokens >= policy.tokens) return `${motion.tokens} tokens without a change of percent or milestone`
  return null
}
