/** An agent that goes silent with the task that it was just given: frozen before, or is it the task? */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { harness, type Harness, until } from './harness.ts'
import { take } from './storing.ts'

let h: Harness
let redis: Redis
beforeAll(async () => {
  h = await harness()
  h.configure({ a: {}, b: {} })
  await h.start()
  redis = new Redis({ host: h.redis.host, port: h.redis.port, password: h.redis.password })
})
afterAll(async () => {
  redis.disconnect()
  await h.stop()
})

/** It says nothing after it got the task, and its connection stays open. */
async function silence(name: string, executions: number): Promise<string | null> {
  const run = await h.submit({ agent: name, type: 'task', tasks: [1] })
  const [job = ''] = await until('the job', 5_000, async () => {
    const keys = await redis.keys(`*${run}.task.0`)
    return keys.length === 1 ? keys : null
  })
  // So many executions went before, of which no end is known.
  await redis.hset(job, 'ats', executions)
  const task = await take(h.agent(name))
  expect(task.attempt).toBe(executions + 1)
  expect((await take(h.agent(name, 2))).attempt).toBe(executions + 2)
  return redis.hget(job, 'actl:deaths')
}

test('silence from the delivery on is not counted as a death at first, and is when it goes on and on', async () => {
  expect(await Promise.all([silence('a', 0), silence('b', 10)])).toEqual([null, '1'])
})
