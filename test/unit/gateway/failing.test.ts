import { expect, test } from 'vitest'
import { noteLog, parseAttempts, TAIL_BYTES, tailOf } from '../../../engine/gateway/attempts.ts'
import { Audit } from '../../../engine/gateway/audit.ts'
import { deadlineOf, expiryOf, limitsOf } from '../../../engine/gateway/deadlines.ts'
import { isRetried, MAX_AFTER_MS, nextDelay } from '../../../engine/gateway/retry.ts'
import { notePercent, noteStep } from '../../../engine/gateway/stall.ts'
import type { Lease, Task } from '../../../engine/gateway/work.ts'
import { DEFAULT_WORK, type RetryPolicy, type StallPolicy, type Timeouts } from '../../../spec/model.ts'

const policy = (more: Partial<RetryPolicy> = {}): RetryPolicy => ({ ...DEFAULT_WORK.retry, attempts: 10, jitter: 0, ...more })
const none: Timeouts = DEFAULT_WORK.timeouts
const stalls = (more: Partial<StallPolicy> = {}): StallPolicy => ({ repeats: null, steps: null, tokens: null, ...more })

function leased(more: Partial<Lease> = {}, task: Partial<Task> = {}): Lease {
  const of: Task = {
    id: 'r.task.0',
    agent: 'a',
    run: 'r',
    job: 'task',
    parent: null,
    depth: 0,
    type: 't',
    sent: '',
    created: 1_000,
    children: 0,
    lease: null,
    ...task,
  }
  const lease = { task: of, epoch: 1, since: 2_000, sign: 2_000, tail: '', motion: null, cancel: null, ...more } as Lease
  of.lease = lease
  return lease
}

test('a delay doubles up to its maximum, or stays as it is', () => {
  const delays = (of: RetryPolicy) => Array.from({ length: 9 }, (_, index) => nextDelay(of, index + 1, undefined, 0.5))
  expect(delays(policy({ delay_ms: 1_000, max_delay_ms: 20_000 }))).toEqual([
    1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000, 20_000,
  ])
  expect(delays(policy({ backoff: 'fixed', delay_ms: 300 }))).toEqual(Array.from({ length: 9 }, () => 300))
  expect(nextDelay(policy({ attempts: 2_000 }), 1_999, undefined, 0)).toBe(60_000)
})

test('jitter takes off a random share; after the last attempt there is none', () => {
  const of = policy({ jitter: 0.5, attempts: 3 })
  expect([0, 0.5, 1].map((random) => nextDelay(of, 1, undefined, random))).toEqual([1_000, 750, 500])
  expect([1, 2, 3, 4].map((failures) => nextDelay(of, failures, undefined, 0) === null)).toEqual([false, false, true, true])
  expect(nextDelay(policy({ attempts: 1 }), 1, 5_000, 0)).toBeNull()
})

test("an agent's after_ms is a lower bound, up to a day", () => {
  expect(nextDelay(policy(), 1, 5_000, 0)).toBe(5_000)
  expect(nextDelay(policy(), 4, 5_000, 0)).toBe(8_000)
  expect(nextDelay(policy(), 1, -1, 0)).toBe(1_000)
  expect(nextDelay(policy(), 1, 1e15, 0)).toBe(MAX_AFTER_MS)
})

test('without a list the agent says what is tried again; with one, the list', () => {
  const error = (code: string, retryable?: boolean) => ({ code, message: '', ...(retryable === undefined ? {} : { retryable }) })
  expect([error('x', true), error('x', false), error('x'), error('timeout')].map((it) => isRetried(policy(), it))).toEqual([
    true,
    false,
    false,
    false,
  ])
  const listed = policy({ on: ['rate_limit', 'timeout'] })
  expect([error('rate_limit'), error('timeout', true), error('x', true)].map((it) => isRetried(listed, it))).toEqual([true, true, false])
  expect(isRetried(policy({ on: ['*'] }), error('x', false))).toBe(true)
  expect(isRetried(policy({ on: [] }), error('x', true))).toBe(false)
})

test("the run's deadlines win over the agent's, one by one; without any there is nothing to watch", () => {
  expect(limitsOf(none, {})).toBeNull()
  expect(limitsOf(undefined, {})).toBeNull()
  expect(limitsOf({ ...none, start_to_close_ms: 5, heartbeat_ms: 6 }, { timeouts: { heartbeat_ms: 7, schedule_to_close_ms: 8 } })).toEqual({
    schedule_to_start_ms: null,
    start_to_close_ms: 5,
    schedule_to_close_ms: 8,
    heartbeat_ms: 7,
  })
})

test('the nearest deadline counts, and which ones run depends on where the task is', () => {
  const all: Timeouts = { schedule_to_start_ms: 100, start_to_close_ms: 200, schedule_to_close_ms: 5_000, heartbeat_ms: 50 }
  const lease = leased()
  expect(deadlineOf(lease, all)).toBe(2_200)
  expect(deadlineOf(lease, null)).toBeNull()
  expect(expiryOf(lease.task, all, 2_049)).toBeNull()
  expect(expiryOf(lease.task, all, 2_050)).toMatchObject({
    kind: 'heartbeat',
    final: false,
    error: { code: 'heartbeat_timeout', retryable: true },
  })
  lease.sign = 2_190
  expect(expiryOf(lease.task, all, 2_200)).toMatchObject({ kind: 'start_to_close', final: false, error: { code: 'timeout' } })
  lease.task.children = 1
  lease.sign = 0
  expect(expiryOf(lease.task, { ...all, start_to_close_ms: null }, 5_999)).toBeNull()
  expect(expiryOf(lease.task, all, 6_000)?.kind).toBe('start_to_close')
  lease.cancel = { at: 1, told: false, why: null }
  expect(expiryOf(lease.task, all, 9_999)).toBeNull()
  lease.task.lease = null
  expect(expiryOf(lease.task, all, 1_100)).toMatchObject({
    kind: 'schedule_to_start',
    final: true,
    error: { code: 'deadline', retryable: false },
  })
  lease.task.epoch = 1
  expect(expiryOf(lease.task, all, 5_999)).toBeNull()
  expect(expiryOf(lease.task, all, 6_000)).toMatchObject({ kind: 'schedule_to_close', final: true })
})

test('the same step with the same arguments in a row is a stall, a bare name or other arguments are not', () => {
  const of = stalls({ repeats: 3 })
  const lease = leased()
  const step = (args_hash: string) => noteStep(lease, { name: 'search', tool: 'web', args_hash }, of)
  expect([step('a'), step('a'), step('b'), step('a'), step('a')]).toEqual([null, null, null, null, null])
  expect(step('a')).toBe('the same step "search" (web) with the same arguments 3 times in a row')
  const bare = leased()
  for (let index = 0; index < 5_000; index++) expect(noteStep(bare, { name: 'page' }, of)).toBeNull()
})

test('steps and tokens count until percent or milestone changes', () => {
  const lease = leased()
  const of = stalls({ steps: 4, tokens: 100, repeats: 3 })
  let n = 0
  const step = (more: object = {}) => noteStep(lease, { name: `s${n++}`, args_hash: String(n), tokens: 20, ...more }, of)
  for (let index = 0; index < 1_000; index++) {
    expect([step({ milestone: `m${index}` }), step(), step()]).toEqual([null, null, null])
    notePercent(lease, index)
  }
  expect([step(), step(), step()]).toEqual([null, null, null])
  notePercent(lease, 999)
  expect(step()).toBe('4 steps without a change of percent or milestone')
  expect(noteStep(leased(), { name: 'x', tokens: 100 }, of)).toBe('100 tokens without a change of percent or milestone')
  expect(noteStep(leased(), { name: 'x', tokens: Number.NaN }, of)).toBeNull()
})

test('of a log its last 4 KiB are kept, in whole characters', () => {
  const lease = leased()
  for (let index = 0; index < 10_000; index++) noteLog(lease, `line ${index}`)
  noteLog(lease, 'ü'.repeat(3_000))
  expect(lease.tail.length).toBeLessThan(5 * TAIL_BYTES)
  const tail = tailOf(lease.tail)
  expect(Buffer.byteLength(tail)).toBeLessThanOrEqual(TAIL_BYTES)
  expect(tail).toMatch(/^ü+\n$/)
  expect(tailOf('line 1\n')).toBe('line 1\n')
  expect(parseAttempts(['{"attempt":2}', 'nonsense', '{"attempt":1}']).map((it) => it.attempt)).toEqual([1, 2])
})

test('refusals are said ten times a second for each replica, the rest once as a number', () => {
  const lines: unknown[] = []
  const audit = new Audit((_, fields) => lines.push(fields))
  const refusal = { replica: 'a.1', action: 'settle', kind: 'forged', task: null, attempt: null } as const
  for (let index = 0; index < 1_000; index++) audit.refused(refusal, 5_000)
  audit.refused({ ...refusal, replica: 'a.2' }, 5_000)
  expect(lines).toHaveLength(11)
  expect(lines[0]).toEqual({ audit: true, ...refusal })
  audit.look(6_000)
  expect(lines.slice(11)).toEqual([{ audit: true, replica: 'a.1', more: 990 }])
  audit.look(9_000)
  expect(lines).toHaveLength(12)
})
