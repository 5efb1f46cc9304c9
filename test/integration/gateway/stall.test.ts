import { afterAll, beforeAll, expect, test } from 'vitest'
import { DEFAULT_WORK } from '../../../spec/model.ts'
import type { LeasedTask, ReplicaView, RunEvent } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until } from './harness.ts'

const STALL = { repeats: 5, steps: 20, tokens: 1_000 } as const

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({
    loop: { concurrency: 2, work: { stall: STALL } },
    drift: { work: { stall: STALL } },
    spend: { work: { stall: STALL } },
    poison: { work: { stall: STALL } },
    good: { work: { stall: STALL } },
    curl: { work: { stall: STALL } },
    stuck: { work: { timeouts: { ...DEFAULT_WORK.timeouts, heartbeat_ms: 500 } } },
  })
  await h.start()
})
afterAll(() => h.stop())

const submit = (agent: string, count = 1): Promise<string> =>
  h.submit({ agent, type: 'task', tasks: Array.from({ length: count }, (_, index) => index) })
async function next(client: Client): Promise<LeasedTask> {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const [task] = (await client.lease(1, 1_000)).tasks
    if (task !== undefined) return task
  }
  throw new Error('no task for 20 s')
}
const step = (client: Client, task: LeasedTask, beat: object) =>
  client.post('/v1/progress', { lease: task.lease, step: { name: 's', ...beat } })
const replicas = async (agent: string): Promise<readonly ReplicaView[]> =>
  (await h.control('GET', '/v1/replicas')).json.replicas.filter((it: ReplicaView) => it.agent === agent)
const events = async (run: string): Promise<readonly RunEvent[]> =>
  (await h.control('GET', `/v1/runs/${run}/events?follow=0`)).body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

test('an agent that goes round in a circle loses its work; its replica gets no more until it is another', async () => {
  const run = await submit('loop', 3)
  const client = h.agent('loop', 1)
  const [first, second] = (await client.lease(2)).tasks as [LeasedTask, LeasedTask]
  for (let count = 1; count <= 5; count++)
    expect((await step(client, first, { name: 'search', tool: 'web', args_hash: 'same' })).status).toBe(200)
  // Its own lease is fenced, and its other task goes too.
  for (const task of [first, second]) expect((await client.post('/v1/complete', { lease: task.lease, result: 'x' })).status).toBe(409)
  const why = 'the same step "search" (web) with the same arguments 5 times in a row'
  expect(await replicas('loop')).toEqual([{ agent: 'loop', replica: 1, connected: true, tasks: 0, stalled: why }])
  const reply = await client.lease(2, 300, { beat: [first.lease, second.lease] })
  expect(reply.tasks).toEqual([])
  expect([...reply.cancel].sort()).toEqual([first.lease, second.lease].sort())
  const seen = await events(run)
  expect(seen.find((it) => it.event === 'stalled')).toMatchObject({ task: first.id, message: why })
  // As the controller: the container is started anew, with another session.
  client.die()
  const again = h.agent('loop', 1)
  const attempts: number[] = []
  again.run(2, async (task) => {
    attempts.push(task.attempt)
    return task.input
  })
  expect((await h.ended(run)).result).toEqual({ task: [0, 1, 2] })
  expect(attempts.toSorted((a, b) => a - b)).toEqual([1, 2, 2])
  expect(await replicas('loop')).toEqual([{ agent: 'loop', replica: 1, connected: true, tasks: 0 }])
  again.die()
})

test('steps and tokens without progress are a stall', async () => {
  const run = await submit('drift')
  const client = h.agent('drift')
  const task = await next(client)
  await client.post('/v1/progress', { lease: task.lease, percent: 10 })
  for (let count = 0; count < 20; count++) {
    expect((await step(client, task, { args_hash: String(count) })).status).toBe(200)
    await client.post('/v1/progress', { lease: task.lease, percent: 10 })
  }
  expect((await replicas('drift'))[0]?.stalled).toBe('20 steps without a change of percent or milestone')
  const spender = h.agent('spend')
  const spent = await submit('spend')
  const costly = await next(spender)
  for (let count = 0; count < 3; count++) await step(spender, costly, { tokens: 400 })
  expect((await replicas('spend'))[0]?.stalled).toBe('1200 tokens without a change of percent or milestone')
  for (const it of [run, spent]) await h.control('POST', `/v1/runs/${it}/cancel`)
  for (const it of [client, spender]) it.die()
})

test('a task that stalls every agent is dead in the end, and says why', async () => {
  const run = await submit('poison')
  for (let replica = 1; replica <= 3; replica++) {
    const client = h.agent('poison', replica)
    const task = await next(client)
    for (let count = 0; count < 5; count++) await step(client, task, { args_hash: 'same' })
    client.die()
  }
  const [job] = (await h.ended(run)).jobs
  expect(job).toMatchObject({ status: 'dead', attempts: 3, error: { code: 'agent_stalled' } })
  expect(job?.error?.message).toContain('with the same arguments 5 times in a row')
})

test('a long good job is left alone: thousands of steps, each its own, with a milestone now and then', async () => {
  const run = await submit('good')
  const client = h.agent('good')
  const task = await next(client)
  for (let count = 0; count < 2_000; count++) {
    const milestone = `chapter ${Math.floor(count / 10)}`
    const reply = await step(client, task, { name: `page ${count}`, args_hash: String(count), tokens: 90, milestone })
    expect(reply.status).toBe(200)
  }
  expect((await client.post('/v1/complete', { lease: task.lease, result: 'a book' })).status).toBe(200)
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', attempts: 1, result: 'a book' })
  expect((await replicas('good'))[0]?.stalled).toBeUndefined()
  client.die()
}, 60_000)

test('without a session only the lease is taken', async () => {
  const run = await submit('curl')
  const client = h.agent('curl', 1, null)
  const task = await next(client)
  for (let count = 0; count < 5; count++) await step(client, task, { args_hash: 'same' })
  expect((await client.post('/v1/heartbeat', { lease: task.lease })).status).toBe(409)
  const again = await next(client)
  expect(again).toMatchObject({ id: task.id, attempt: 2 })
  await client.post('/v1/complete', { lease: again.lease, result: 1 })
  expect((await h.ended(run)).status).toBe('completed')
})

test('an agent that is silent and does not heed the word to stop is to be replaced', async () => {
  const run = await submit('stuck')
  const client = h.agent('stuck')
  const task = await next(client)
  // It beats as a runtime whose work hangs, and never settles.
  await until('the replica is named', 20_000, async () => {
    await client.lease(1, 300, { beat: [task.lease] })
    return (await replicas('stuck'))[0]?.stalled !== undefined
  })
  expect((await replicas('stuck'))[0]?.stalled).toBe('no progress, step, log or child for 0.5 s (heartbeat)')
  const other = h.agent('stuck', 2)
  const again = await next(other)
  expect(again).toMatchObject({ id: task.id, attempt: 2 })
  await other.post('/v1/complete', { lease: again.lease, result: 1 })
  expect((await h.ended(run)).status).toBe('completed')
  for (const it of [client, other]) it.die()
}, 60_000)
