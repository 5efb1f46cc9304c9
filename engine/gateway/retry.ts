/** Whether and when an execution that failed is tried again. Pure: the count of failures is the broker's, the policy the agent's. */
import type { RetryPolicy } from '../../spec/model.ts'
import type { WorkError } from '../../spec/protocol.ts'

/** Longest `after_ms` of an agent that is honoured: a provider that says more is better asked by a new run. */
export const MAX_AFTER_MS = 86_400_000

/** May this error be tried again at all? `on` of the policy wins over what the agent says. */
export function isRetried(policy: RetryPolicy, { code, retryable }: WorkError): boolean {
  if (policy.on === null) return retryable === true
  return policy.on.includes('*') || policy.on.includes(code)
}

/**
 * Ms until the next execution, after `failures` of them (this one counts); null: there is none left.
 * `random` is from 0 to 1: it takes off up to `jitter` of the delay, so that what failed together is not tried together.
 */
export function nextDelay(policy: RetryPolicy, failures: number, after_ms: number | undefined, random: number): number | null {
  if (failures >= policy.attempts) return null
  const factor = policy.backoff === 'exponential' ? 2 ** Math.max(0, failures - 1) : 1
  const base = Math.min(policy.max_delay_ms, policy.delay_ms * factor)
  const after = Math.min(MAX_AFTER_MS, Math.max(0, after_ms ?? 0))
  return Math.round(Math.max(base * (1 - policy.jitter * random), after))
}
