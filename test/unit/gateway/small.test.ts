import { expect, test } from 'vitest'
import { parseHolder } from '../../../engine/gateway/replicas.ts'
import { ownTraces } from '../../../engine/gateway/traces.ts'
import { newRunId, RUN_ID, ulid } from '../../../engine/ulid.ts'
import { delegateCall, leaseCall } from '../../../engine/gateway/validate.ts'
import { decodeTask, encodeTask, inputOf, parseFailure } from '../../../engine/gateway/work.ts'
import { leaseToken, verifyLease } from '../../../engine/tokens.ts'

test('ULIDs rise, also within one millisecond and when the clock is set back', () => {
  const now = Date.now()
  const all = [ulid(now), ulid(now), ulid(now - 5_000), ulid(now + 1), ulid(now)]
  expect([...all].sort()).toEqual(all)
  expect(new Set(all).size).toBe(5)
  expect(newRunId()).toMatch(RUN_ID)
  expect('run_01M7Z3J2NZ561Q4YDSDS44A1YU').not.toMatch(RUN_ID)
})

test('a lease is of one holder, one task and one execution', () => {
  const lease = leaseToken('key', 'a.1.s', { id: 'run_x.task.0', epoch: 3 })
  expect(lease).toMatch(/^run_x\.task\.0~3~[\w-]{32}$/)
  expect(verifyLease('key', 'a.1.s', lease)).toEqual({ id: 'run_x.task.0', epoch: 3 })
  for (const [key, holder, text] of [
    ['key', 'a.1.t', lease],
    ['key', 'a.2.s', lease],
    ['other', 'a.1.s', lease],
    ['key', 'a.1.s', lease.replace('~3~', '~4~')],
    ['key', 'a.1.s', `${lease}~`],
    ['key', 'a.1.s', ''],
  ] as const) {
    expect(verifyLease(key, holder, text)).toBeNull()
  }
})

test('a task comes out of its job as it went in, its input untouched', () => {
  const head = { run: 'run_x', job: 'scan "it",\\"input\\":1', parent: null, depth: 2, type: 'a,"input":b', sent: '00-1-2-01', created: 7 }
  const input = '{"input":{"a":[1,"}"]},"x":"é\\u0000"}'
  const data = encodeTask(head, input)
  expect(JSON.parse(data)).toEqual({ ...head, input: JSON.parse(input) })
  expect(inputOf(data)).toBe(input)
  expect(decodeTask('id', 'agent', data)).toEqual({ id: 'id', agent: 'agent', ...head, children: 0, lease: null })
  for (const bad of ['', '{}', 'nonsense', '{"run":1,"input":1}']) expect(decodeTask('id', 'agent', bad)).toBeNull()
})

test('a holder is a role, a replica and a session; anything else is nobody', () => {
  expect(parseHolder('a.12.s-1')).toEqual({ identity: { agent: 'a', replica: 12 }, session: 's-1' })
  expect(parseHolder('a.12.')).toEqual({ identity: { agent: 'a', replica: 12 }, session: '' })
  for (const bad of [null, '', 'a', 'a.x.s', 'a.1.s.t', '0']) expect(parseHolder(bad)).toBeNull()
})

test('failures that are not ours stay readable', () => {
  expect(parseFailure('{"status":"dead","error":{"code":"x","message":"y"}}')).toEqual({
    status: 'dead',
    error: { code: 'x', message: 'y' },
  })
  expect(parseFailure('job stalled more than allowable limit')).toEqual({
    status: 'failed',
    error: { code: 'broker', message: 'job stalled more than allowable limit' },
  })
})

test('requests: clamped, cut, tolerated and refused', () => {
  expect(leaseCall({})).toEqual({ want: 0, wait_ms: 0, beat: null, done: [] })
  expect(
    leaseCall({
      want: 5_000,
      wait_ms: 9_999_999,
      beat: [],
      done: [
        { lease: 'l', status: 'completed' },
        { lease: 'm', status: 'failed', error: { code: 1 } },
      ],
    }),
  ).toEqual({
    want: 1_000,
    wait_ms: 300_000,
    beat: [],
    done: [
      { lease: 'l', settlement: { lease: 'l', status: 'completed', result: null } },
      { lease: 'm', settlement: null },
    ],
  })
  expect(
    leaseCall({ done: [{ lease: 'l', status: 'failed', error: { code: 'c'.repeat(100), message: 'm'.repeat(9_000) } }] }).done[0]
      ?.settlement,
  ).toEqual({
    lease: 'l',
    status: 'failed',
    error: { code: 'c'.repeat(64), message: 'm'.repeat(4_096), retryable: false },
  })
  expect(() => leaseCall({ want: 1.5 })).toThrow('"want" must be a whole number from 0 on, got number')
  expect(() => leaseCall({ beat: 'x' })).toThrow('"beat" must be a list')
  expect(() => delegateCall({ lease: 'l', key: 'k', agent: 'a' })).toThrow('"input" must be a JSON value, got nothing')
  expect(delegateCall({ lease: 'l', key: 'k', agent: 'a', input: null })).toEqual({
    lease: 'l',
    key: 'k',
    agent: 'a',
    type: 'task',
    input: null,
  })
})

test('an agent cannot give itself another name in its traces', () => {
  const given = {
    resourceSpans: [
      { resource: { attributes: [{ key: 'service.name', value: { stringValue: 'gateway' } }, { key: 1 }, null] }, scopeSpans: [1] },
      {},
    ],
  }
  const { resourceSpans } = JSON.parse(ownTraces(Buffer.from(JSON.stringify(given)), { agent: 'a', replica: 2 }, 'p').toString())
  const own = [
    ['service.name', 'a'],
    ['service.instance.id', '2'],
    ['service.namespace', 'p'],
    ['agentctl.project', 'p'],
  ].map(([key, stringValue]) => ({ key, value: { stringValue } }))
  expect(resourceSpans).toEqual([{ resource: { attributes: own }, scopeSpans: [1] }, { resource: { attributes: own } }])
  expect(() => ownTraces(Buffer.from('x'), { agent: 'a', replica: 2 }, 'p')).toThrow('the body is not OTLP/HTTP JSON')
})
