import { expect, test } from 'vitest'
import { fsyncRefusal, refusalOf } from '../../../engine/broker/demands.ts'
import { targetOf } from '../../../engine/egress/relay.ts'
import { renderPlan } from '../../../engine/plan-text.ts'
import { reconcile } from '../../../engine/reconcile.ts'
import { changeOf } from '../../../engine/record-changes.ts'
import type { Project } from '../../../spec/model.ts'
import { DEFAULT_BROKER, DEFAULT_WORK } from '../../../spec/model.ts'
import { agent, project, record, running, want } from '../../support/project.ts'

const URL = 'rediss://me@redis.example.com:6380/2'
const base = (broker: Partial<Project['broker']> = {}, agents = [agent('coder')]): Project => ({
  ...project({ agents }),
  secrets: { pw: { name: 'pw', kind: 'file', path: '/pw' }, root: { name: 'root', kind: 'file', path: '/root' } },
  broker: { ...DEFAULT_BROKER, ...broker },
})
const far = base({ url: URL, password: 'pw', ca: 'root' })
const steps = (plan: string): readonly string[] => plan.split('\n').map((line) => line.replace(/^(\[[\d, ]+\] -> )?#\d+ /, ''))

test('a policy that changes restarts no container: only the record is written', () => {
  const work = { ...DEFAULT_WORK, total: 3, max_queue: 5 }
  const before = base()
  const after = base({ concurrency: 7 }, [agent('coder', { work })])
  const hashes = (of: Project) => want(of).containers.map((it) => [it.spec.name, it.hash])
  expect(hashes({ ...after, artifacts: { ...after.artifacts, max_size: 5 } })).toEqual(hashes(before))
  const writeRecord = { revision: 2, cause: changeOf(record(before), record(after)) }
  expect(steps(renderPlan(reconcile(want(after), running(want(before)), { writeRecord })))).toEqual([
    'write-record record:p (revision 2): policy of coder, settings of the broker changed',
  ])
})

test('what else changed is not told as a policy', () => {
  const before = record(base())
  expect(changeOf(null, before)).toBe('does not exist')
  expect(changeOf(before, record(base({}, [agent('coder', { replicas: 2, work: { ...DEFAULT_WORK, total: 1 } })])))).toBe(
    'the project changed',
  )
  expect(changeOf(before, { ...before, scale: { coder: 3 } })).toBe('the project changed')
  const many = (total: number | null) =>
    record(
      base(
        {},
        ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => agent(name, { work: { ...DEFAULT_WORK, total } })),
      ),
    )
  expect(changeOf(many(null), many(2))).toBe('policy of a, policy of b, policy of c, policy of d and 2 more changed')
  // A record of a version without the keys.
  const { broker: _, ...old } = before.project
  expect(changeOf({ ...before, project: old as Project }, record(base({ concurrency: 2 })))).toBe('settings of the broker changed')
})

test('durability makes the broker anew, and nothing else; its volume stays', () => {
  const plan = steps(renderPlan(reconcile(want(base({ durability: 'strict' })), running(want(base())), { writeRecord: null })))
  expect(plan.filter((line) => line.includes('container:')).every((line) => line.includes('p-agentctl-broker-1'))).toBe(true)
  expect(plan).toContain('remove-container container:p-agentctl-broker-1: configuration changed')
  expect(plan.filter((line) => /volume:p_agentctl-broker/.test(line))).toEqual([])
})

test('a broker of the project’s own: none of ours, the way out for the gateway alone, its secrets as files', () => {
  const all = want(far)
  const spec = (kind: string) => all.containers.find((it) => it.spec.kind === kind)
  expect(spec('broker')).toBeUndefined()
  expect(all.volumes.map((volume) => volume.name)).toEqual(['p_agentctl-state', 'p_agentctl-secrets'])
  expect(spec('gateway')?.secrets).toEqual([
    { source: 'pw', target: 'broker-password' },
    { source: 'root', target: 'broker-ca' },
  ])
  const address = (kind: string) => spec(kind)?.spec.endpoints[0]?.address
  expect(spec('egress')?.spec.environment['AGENTCTL_RELAY']).toBe(`${address('egress')},${address('gateway')}`)
  // The gateway itself still has no network with a way out.
  expect(spec('gateway')?.spec.endpoints.some((endpoint) => endpoint.network === 'p_outside')).toBe(false)
  expect(JSON.stringify(spec('gateway')?.spec.environment)).toContain(URL)
  // Without `url` nothing listens.
  expect(want(base()).containers.find((it) => it.spec.kind === 'egress')?.spec.environment['AGENTCTL_RELAY']).toBeUndefined()
})

test('going to a broker of one’s own removes the container of ours and leaves its volume', () => {
  const plan = steps(renderPlan(reconcile(want(far), running(want(base())), { writeRecord: null, removeOrphans: false })))
  expect(plan).toContain('remove-container container:p-agentctl-broker-1: the project has a broker of its own')
  expect(plan.filter((line) => line.startsWith('remove-volume'))).toEqual([])
  const back = steps(renderPlan(reconcile(want(base()), running(want(far)), { writeRecord: null })))
  expect(back).toContain('create-container container:p-agentctl-broker-1 (engine:1): does not exist')
  expect(back).toContain('create-container container:p-agentctl-gateway-1 (engine:1): configuration changed')
})

const info = {
  redis_version: '7.2.4',
  redis_mode: 'standalone',
  role: 'master',
  maxmemory: '536870912',
  maxmemory_policy: 'noeviction',
  aof_enabled: '1',
  aof_last_write_status: 'ok',
}

test('a Redis that would lose work is refused with the reason', () => {
  expect(refusalOf(info, 'normal')).toBeNull()
  expect(refusalOf({ ...info, maxmemory: '0', maxmemory_policy: 'allkeys-lru' }, 'strict')).toBeNull()
  expect(refusalOf({ ...info, redis_version: '6.2.0' }, 'normal')).toBeNull()
  const cases: readonly (readonly [object, string])[] = [
    [{ maxmemory_policy: 'allkeys-lru' }, 'maxmemory-policy is allkeys-lru'],
    [{ aof_enabled: '0' }, 'appendonly is off'],
    [{ aof_last_write_status: 'err' }, 'cannot write its append-only file'],
  ]
  for (const [change, why] of cases) {
    expect(refusalOf({ ...info, ...change }, 'normal'), why).toContain(why)
    expect(refusalOf({ ...info, ...change }, 'none'), why).toBeNull()
  }
  // No setting makes these right.
  const never: readonly (readonly [object, string])[] = [
    [{ redis_version: '6.0.16' }, 'it is Redis 6.0.16: expected 6.2 or newer'],
    [{ redis_version: '5.0.7' }, 'it is Redis 5.0.7'],
    [{ redis_mode: 'cluster' }, 'it runs as cluster'],
    [{ redis_mode: 'sentinel' }, 'it runs as sentinel'],
    [{ role: 'slave' }, 'it is a replica'],
    [{ redis_version: undefined }, 'may not call INFO'],
  ]
  for (const [change, why] of never) expect(refusalOf({ ...info, ...change }, 'none'), why).toContain(why)
  expect(fsyncRefusal('always')).toBeNull()
  expect(fsyncRefusal('everysec')).toContain('appendfsync is everysec')
  expect(fsyncRefusal(null)).toContain('may not call CONFIG GET')
})

test('the relay goes where a record that it knows says, and else nowhere', () => {
  const told = (url: unknown, version: unknown = 1) => JSON.stringify({ version, project: { broker: { url } } })
  expect(targetOf(told(URL))).toMatchObject({ host: 'redis.example.com', port: 6380 })
  for (const text of [told(null), told(URL, 99), told(URL, 'x'), told('http://x'), told(7), '{}', '{"version":1}'])
    expect(targetOf(text), text).toBeNull()
})
