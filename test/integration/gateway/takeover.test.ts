/** A gateway that takes over while the agents, too, are new: what it finds held is theirs no more, and is worked on by them. */
import { Redis } from 'ioredis'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import type { Broker } from '../../../engine/broker/port.ts'
import { queueName, queuePrefix } from '../../../engine/names.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Client, harness, type Harness, PROJECT, until } from './harness.ts'

const RUNS = 40
const DEATHS_BEFORE = 2
let h: Harness
let gateway: Gateway
beforeEach(async () => {
  h = await harness()
  h.configure({ work: { concurrency: 2 * RUNS } })
  gateway = await h.start()
})
afterEach(() => h.stop())

const submitted = async (): Promise<string[]> => {
  const runs: string[] = []
  for (let index = 0; index < RUNS; index++) runs.push(await h.submit({ agent: 'work', type: 'task', tasks: [index, index + 0.5] }))
  return runs
}
const leased = async (agent: Client): Promise<void> => {
  let held = 0
  await until('all tasks are held', 20_000, async () => (held += (await agent.lease(2 * RUNS, 100)).tasks.length) === 2 * RUNS)
}
/** The next gateway hears of the agent's new session before it can read what the old one held. */
const takenOver = async (): Promise<Client> => {
  await gateway.close()
  await h.redis.freeze()
  gateway = await h.start()
  const next = h.agent('work')
  expect((await next.post('/v1/lease', { want: 0, wait_ms: 0 })).status).toBe(503)
  await h.redis.thaw()
  return next
}

test('tasks of a session that has been replaced before the takeover go back, and none is lost', async () => {
  const runs = await submitted()
  const old = h.agent('work')
  await leased(old)
  old.die()
  const next = await takenOver()
  next.run(2 * RUNS, async (task) => task.input)
  for (const [index, run] of runs.entries())
    expect(await h.ended(run)).toMatchObject({ status: 'completed', result: { task: [index, index + 0.5] } })
})

test('a task that dies for good during the takeover ends its run', async () => {
  const runs = await submitted()
  const old = h.agent('work')
  await leased(old)
  // Before it dies: the gateway that sees its death within 100 ms must not put the tasks back uncounted.
  const redis = new Redis(h.redis.url)
  for (const run of runs)
    for (const item of [0, 1])
      await redis.hset(`${queuePrefix(PROJECT)}:${queueName('work')}:${run}.task.${item}`, 'actl:deaths', DEATHS_BEFORE)
  await redis.quit()
  old.die()
  await takenOver()
  for (const run of runs) expect((await h.ended(run)).jobs.map((job) => job.status)).toEqual(['dead', 'dead'])
  expect(await h.broker().openRuns()).toEqual([])
})

test('a task that is gone from the broker is shown as lost, with its run, and is told', async () => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1, 2, 3] })
  const redis = new Redis(h.redis.url)
  const queue = `${queuePrefix(PROJECT)}:${queueName('work')}`
  await until('its inputs are kept once', 10_000, async () => (await redis.hexists(`${queuePrefix(PROJECT)}::run:${run}`, 'tasks')) === 0)
  await gateway.close()
  await redis.lrem(`${queue}:wait`, 0, `${run}.task.1`)
  await redis.del(`${queue}:${run}.task.1`)
  await redis.quit()
  gateway = await h.start()
  h.agent('work').run(1, async (task) => task.input)
  const view = await h.ended(run)
  expect(view).toMatchObject({
    status: 'failed',
    jobs: [{ status: 'completed' }, { status: 'failed', error: { code: 'lost' } }, { status: 'completed' }],
  })
  expect(h.log.map((it) => it.message).join('\n')).toContain(`AG5004: run ${run}`)
  expect((await h.control('GET', `/v1/tasks/${run}.task.1`)).json).toMatchObject({ status: 'failed', error: { code: 'lost' } })
})

test('a task that changes its place while the queue is read is not called lost', async () => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1, 2, 3] })
  const redis = new Redis(h.redis.url)
  await until('its inputs are kept once', 10_000, async () => (await redis.hexists(`${queuePrefix(PROJECT)}::run:${run}`, 'tasks')) === 0)
  await redis.quit()
  await gateway.close()
  const { host, port } = h.redis
  gateway = await h.start({
    connect: (project, password) => {
      const broker = connectBroker({ project, host, port, password })
      const waiting: Broker['waiting'] = async (queue) => (await broker.waiting(queue)).filter(({ id }) => id !== `${run}.task.1`)
      return Object.create(broker, { waiting: { value: waiting } }) as Broker
    },
  })
  h.agent('work').run(1, async (task) => task.input)
  expect(await h.ended(run)).toMatchObject({ status: 'completed', result: { task: [1, 2, 3] } })
})

test('a task that ends while it is being put back keeps no lock', async () => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1, 2] })
  const worker = h.agent('work')
  const [first] = (await worker.lease(1, 5_000)).tasks
  await worker.post('/v1/complete', { lease: first?.lease, result: 1 })
  const redis = new Redis(h.redis.url)
  for (const item of [0, 1]) {
    const id = `${run}.task.${item}`
    expect(await h.broker().requeue('work', id, null)).toBe(false)
    expect(await redis.get(`${queuePrefix(PROJECT)}:${queueName('work')}:${id}:lock`)).toBe(null)
  }
  await redis.quit()
})
