import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LeasedTask, type RunEvent, TERMINAL } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({ a: { concurrency: 2 }, race: { concurrency: 4 }, later: { work: { retry: slow } }, curl: {} })
  await h.start()
})
afterAll(() => h.stop())

const slow = { attempts: 3, delay_ms: 60_000, max_delay_ms: 60_000, backoff: 'fixed', jitter: 0, on: null } as const

const submit = (agent: string, count = 1): Promise<string> =>
  h.submit({ agent, type: 'task', tasks: Array.from({ length: count }, (_, index) => index) })
const cancel = (run: string) => h.control('POST', `/v1/runs/${run}/cancel`)
async function next(client: Client): Promise<LeasedTask> {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const [task] = (await client.lease(1, 1_000)).tasks
    if (task !== undefined) return task
  }
  throw new Error('no task for 20 s')
}
const events = async (run: string): Promise<readonly RunEvent[]> =>
  (await h.control('GET', `/v1/runs/${run}/events?follow=0`)).body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

test('the open request of a full session is answered with the cancel at once', async () => {
  const run = await submit('a', 2)
  const client = h.agent('a')
  const { tasks } = await client.lease(2)
  const leases = tasks.map((task) => task.lease)
  expect(leases).toHaveLength(2)
  // Were it not woken, it would be held for twenty seconds.
  const open = client.lease(0, 20_000, { beat: leases })
  await sleep(100)
  const from = Date.now()
  await cancel(run)
  expect([...(await open).cancel].sort()).toEqual([...leases].sort())
  expect(Date.now() - from).toBeLessThan(5_000)
  await client.lease(0, 0, { done: leases.map((lease) => ({ lease, status: 'failed', error: { code: 'cancelled', message: 'x' } })) })
  expect((await h.ended(run)).jobs.map((job) => job.status)).toEqual(['cancelled', 'cancelled'])
  client.die()
})

test('an agent without a session is told with its next beat', async () => {
  const run = await submit('curl')
  const client = h.agent('curl', 1, null)
  const { lease } = await next(client)
  await cancel(run)
  expect((await client.post('/v1/heartbeat', { lease })).json).toEqual({ ok: true, cancel: [lease] })
  expect((await client.post('/v1/fail', { lease, error: { code: 'cancelled', message: 'x' } })).status).toBe(200)
  expect((await h.ended(run)).jobs[0]?.status).toBe('cancelled')
})

test('a task that waits for its next try is cancelled where it is', async () => {
  const run = await submit('later')
  const client = h.agent('later')
  const task = await next(client)
  await client.post('/v1/fail', { lease: task.lease, error: { code: 'x', message: 'x', retryable: true } })
  await cancel(run)
  expect((await h.ended(run)).jobs[0]?.status).toBe('cancelled')
  const other = await submit('later')
  expect((await next(client)).run).toBe(other)
  client.die()
})

test('of a cancel and a completion at the same time one wins, and everyone sees the same end', async () => {
  const client = h.agent('race')
  const runs: string[] = []
  const acknowledged = new Map<string, boolean>()
  for (let round = 0; round < 40; round++) {
    const run = await submit('race')
    runs.push(run)
    const task = await next(client)
    const complete = async (): Promise<void> => {
      await sleep(Math.random() * 3)
      const { settled } = await client.lease(0, 0, { done: [{ lease: task.lease, status: 'completed', result: round }] })
      acknowledged.set(run, settled[0]?.ok === true)
    }
    const stop = async (): Promise<void> => {
      await sleep(Math.random() * 3)
      await cancel(run)
    }
    await Promise.all([complete(), stop()])
  }
  const view = async (run: string) => (await h.control('GET', `/v1/runs/${run}`)).json
  const ends = new Map<string, string>()
  for (const run of runs) {
    const { status, jobs } = await h.ended(run)
    await until('its task has ended', 5_000, async () => TERMINAL.has((await view(run)).jobs[0].status))
    const [job] = (await view(run)).jobs
    ends.set(run, `${status} ${job.status} ${JSON.stringify(job.result)}`)
    if (status === 'completed') expect(job.status).toBe('completed')
    expect(jobs).toHaveLength(1)
    const terminal = (await events(run)).filter((it) => it.task === job.id && TERMINAL.has(it.event as never))
    expect(terminal.map((it) => it.event)).toEqual([job.status])
  }
  expect(new Set([...ends.values()].map((end) => end.split(' ')[0])).size).toBeGreaterThan(1)
  expect([...acknowledged.values()].every(Boolean)).toBe(true)
  // It stays what it was.
  await sleep(300)
  for (const run of runs) {
    const { status, jobs } = await view(run)
    expect(`${status} ${jobs[0].status} ${JSON.stringify(jobs[0].result)}`).toBe(ends.get(run))
  }
  client.die()
}, 60_000)
