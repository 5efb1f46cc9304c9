/** Locks that expire while the broker cannot be reached: what was locked is still its holder's, as nobody else takes it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DEFAULT_WORK } from '../../../spec/model.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { harness, type Harness, until } from './harness.ts'
import { take } from './storing.ts'

let h: Harness
let gateway: Gateway
let redis: Redis
beforeAll(async () => {
  h = await harness()
  const retry = { ...DEFAULT_WORK.retry, attempts: 2, delay_ms: 6_000, jitter: 0 }
  h.configure({ a: {}, b: {}, c: {}, d: { work: { retry } } })
  gateway = await h.start()
  redis = new Redis({ host: h.redis.host, port: h.redis.port, password: h.redis.password })
})
afterAll(async () => {
  redis.disconnect()
  await h.stop()
})
const expire = async (task: string): Promise<void> => {
  const locks = await redis.keys(`*${task}:lock`)
  expect(locks).toHaveLength(1)
  await redis.del(...locks)
}

test('a result whose lock has expired is taken', async () => {
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const a = h.agent('a')
  const task = await take(a)
  await expire(task.id)
  expect((await a.post('/v1/complete', { lease: task.lease, result: 'once' })).json).toEqual({ ok: true })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', result: 'once', attempts: 1 })
})

test('a failure whose lock has expired is tried again after its pause, not before', async () => {
  await h.submit({ agent: 'd', type: 'task', tasks: [1] })
  const d = h.agent('d')
  const task = await take(d)
  await expire(task.id)
  const failed = Date.now()
  const error = { code: 'busy', message: 'busy', retryable: true }
  expect((await d.post('/v1/fail', { lease: task.lease, error })).json).toEqual({ ok: true })
  expect((await h.broker().delayed('d')).map(({ id }) => id)).toEqual([task.id])
  expect(await take(d)).toMatchObject({ id: task.id, attempt: 2 })
  expect(Date.now() - failed).toBeGreaterThanOrEqual(5_900)
})

test('a cancelled task whose agent and lock are gone has ended in the broker, too', async () => {
  const run = await h.submit({ agent: 'b', type: 'task', tasks: [1] })
  const b = h.agent('b')
  const task = await take(b)
  await expire(task.id)
  await h.control('POST', `/v1/runs/${run}/cancel`)
  b.die()
  // Sooner than by the looks at what has no holder, which pass over what ended lately.
  const state = await until('its job has ended', 10_000, async () => {
    const [found] = await h.broker().read([{ queue: 'b', id: task.id }])
    return found?.finished === true ? found : null
  })
  expect(JSON.parse(state.failure ?? '{}')).toMatchObject({ status: 'cancelled' })
})

test('what was begun before the gateway and its lock were gone is not told that it did not start in time', async () => {
  const run = await h.submit({ agent: 'c', type: 'task', tasks: [1], timeouts: { schedule_to_start_ms: 1_500 } })
  const c = h.agent('c')
  const task = await take(c)
  await gateway.close()
  c.die()
  await expire(task.id)
  const begun = Date.now()
  gateway = await h.start()
  // The time to start, and the time that a new gateway spares.
  await sleep(Math.max(0, begun + 6_000 - Date.now()))
  const again = await take(h.agent('c', 2))
  expect(again).toMatchObject({ id: task.id, attempt: 2 })
  expect(await h.control('POST', `/v1/runs/${run}/cancel`)).toMatchObject({ status: 200 })
})
