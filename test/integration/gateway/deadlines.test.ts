import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DEFAULT_WORK } from '../../../spec/model.ts'
import type { LeasedTask, RunEvent } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until } from './harness.ts'

const NONE = DEFAULT_WORK.timeouts
const RETRY = { attempts: 2, delay_ms: 50, max_delay_ms: 50, backoff: 'fixed', jitter: 0, on: null } as const

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({
    short: { work: { retry: RETRY, timeouts: { ...NONE, start_to_close_ms: 600 } } },
    quiet: { concurrency: 2, delegates_to: ['child'], work: { retry: RETRY, timeouts: { ...NONE, heartbeat_ms: 700 } } },
    child: {},
    queued: { work: { timeouts: { ...NONE, schedule_to_start_ms: 500 } } },
    keyed: { work: { key: ['run'], per_key: 1, timeouts: { ...NONE, schedule_to_start_ms: 700 } } },
    whole: { work: { retry: { ...RETRY, attempts: 100 }, timeouts: { ...NONE, schedule_to_close_ms: 900 } } },
    plain: {},
  })
  await h.start()
})
afterAll(() => h.stop())

const submit = (agent: string, count = 1, more: object = {}): Promise<string> =>
  h.submit({ agent, type: 'task', tasks: Array.from({ length: count }, (_, index) => index), ...more })
async function next(client: Client, within: Harness = h): Promise<LeasedTask> {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const [task] = (await client.lease(1, 1_000)).tasks
    if (task !== undefined) return task
  }
  throw new Error(`no task for 20 s, ${within.port()}`)
}
/** As a runtime: says what it holds until it is told to stop, and settles then. */
async function workUntilTold(client: Client, task: LeasedTask, settle: object): Promise<void> {
  await until('told to stop', 10_000, async () => (await client.lease(0, 300, { beat: [task.lease] })).cancel.includes(task.lease))
  await client.lease(0, 0, { done: [{ lease: task.lease, ...settle }] })
}
const events = async (run: string): Promise<readonly RunEvent[]> =>
  (await h.control('GET', `/v1/runs/${run}/events?follow=0`)).body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

test('an execution that takes too long is stopped, and tried again as its policy says; its late result counts for nothing', async () => {
  const run = await submit('short')
  const client = h.agent('short')
  for (let attempt = 1; attempt <= 2; attempt++) {
    const from = Date.now()
    const task = await next(client)
    expect(task.attempt).toBe(attempt)
    expect(task.deadline).toBeGreaterThanOrEqual(from + 600)
    expect(task.deadline).toBeLessThanOrEqual(Date.now() + 600)
    await workUntilTold(client, task, { status: 'completed', result: 'late' })
  }
  expect((await h.ended(run)).jobs[0]).toMatchObject({
    status: 'failed',
    attempts: 2,
    error: { code: 'timeout', message: 'the execution took longer than 0.6 s (start_to_close)' },
  })
  client.die()
})

test('an agent that stops by itself at the deadline that it was told is not taken at its word that it failed', async () => {
  const run = await submit('short')
  const client = h.agent('short')
  const task = await next(client)
  await sleep((task.deadline ?? 0) - Date.now())
  await client.post('/v1/fail', { lease: task.lease, error: { code: 'timeout', message: 'over', retryable: false } })
  const again = await next(client)
  expect(again.attempt).toBe(2)
  await client.post('/v1/complete', { lease: again.lease, result: 'in time' })
  expect((await h.ended(run)).result).toEqual({ task: ['in time'] })
  client.die()
})

test('silence of the work is found though its session is well; a sign, or a child, breaks it', async () => {
  const run = await submit('quiet')
  const client = h.agent('quiet')
  const first = await next(client)
  expect(first.deadline).toBeNull()
  for (let sign = 0; sign < 4; sign++) {
    await sleep(400)
    expect((await client.post('/v1/progress', { lease: first.lease, percent: sign })).status).toBe(200)
  }
  const { json } = await client.post('/v1/delegate', { lease: first.lease, key: 'k', agent: 'child', input: 1 })
  const worker = h.agent('child')
  const child = await next(worker)
  expect(child.id).toBe(json.task)
  await sleep(1_500)
  await worker.post('/v1/complete', { lease: child.lease, result: 1 })
  expect((await client.post('/v1/heartbeat', { lease: first.lease })).json).toEqual({ ok: true, cancel: [] })
  await workUntilTold(client, first, { status: 'failed', error: { code: 'cancelled', message: 'stopped' } })
  const second = await next(client)
  expect(second.attempt).toBe(2)
  await client.post('/v1/complete', { lease: second.lease, result: 'ok' })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', attempts: 2 })
  const seen = await events(run)
  expect(seen.find((it) => it.event === 'stalled')?.message).toBe('no progress, step, log or child for 0.7 s (heartbeat)')
  expect(seen.find((it) => it.event === 'requeued')?.message).toContain('heartbeat_timeout')
  for (const it of [client, worker]) it.die()
})

test('what is not started in time fails without being started, wherever it waits', async () => {
  const busy = h.agent('keyed')
  const keyed = await submit('keyed', 2)
  const task = await next(busy)
  const line = await submit('queued', 3)
  const view = await h.ended(line)
  expect(view.jobs.map((job) => [job.status, job.error?.code, job.attempts])).toEqual(
    Array.from({ length: 3 }, () => ['failed', 'deadline', 0]),
  )
  expect(view.jobs[0]?.error?.message).toBe('not started within 0.5 s (schedule_to_start)')
  // The second of the key waits outside the line.
  await until('the second failed', 5_000, async () => (await h.control('GET', `/v1/runs/${keyed}`)).json.jobs[1].status === 'failed')
  await busy.post('/v1/complete', { lease: task.lease, result: 1 })
  expect((await h.ended(keyed)).jobs.map((job) => job.status)).toEqual(['completed', 'failed'])
  // The queues are as before: what comes now is worked on.
  const client = h.agent('queued')
  const run = await submit('queued')
  await client.post('/v1/complete', { lease: (await next(client)).lease, result: 'ok' })
  expect((await h.ended(run)).status).toBe('completed')
  for (const it of [busy, client]) it.die()
})

test('the whole time counts tries and pauses: the task ends there for good', async () => {
  const client = h.agent('whole')
  const tried = await submit('whole')
  let tries = 0
  client.run(1, async (task) => {
    tries += 1
    throw Object.assign(new Error(`try ${task.attempt}`), { code: 'x', retryable: true })
  })
  expect((await h.ended(tried)).jobs[0]).toMatchObject({
    status: 'failed',
    error: { code: 'deadline', message: 'not ended within 0.9 s of its submit (schedule_to_close)' },
  })
  expect(tries).toBeGreaterThan(2)
  client.die()
  await until('the dead one asks for nothing more', 10_000, async () =>
    (await h.control('GET', '/v1/replicas')).json.replicas.every((it: { agent: string }) => it.agent !== 'whole'),
  )
  const held = h.agent('whole', 2)
  const run = await submit('whole')
  await workUntilTold(held, await next(held), { status: 'completed', result: 'late' })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'failed', attempts: 1, error: { code: 'deadline' } })
  held.die()
})

test('deadlines survive the gateway: of what runs, and of what waits', async () => {
  const own = await harness()
  try {
    own.configure({
      run: { work: { retry: { ...RETRY, attempts: 1 }, timeouts: { ...NONE, start_to_close_ms: 6_000 } } },
      wait: { work: { timeouts: { ...NONE, schedule_to_start_ms: 3_000 } } },
      once: { work: { retry: { ...RETRY, attempts: 5, delay_ms: 10 }, timeouts: { ...NONE, schedule_to_start_ms: 3_000 } } },
    })
    const first = own.spawn('--child')
    await own.healthy()
    const [running, waiting, started] = await Promise.all(
      ['run', 'wait', 'once'].map((agent) => own.submit({ agent, type: 'task', tasks: [1] })),
    )
    const session = 'session-that-stays'
    const task = await next(own.agent('run', 1, session), own)
    const once = own.agent('once')
    const retried = await next(once, own)
    await once.post('/v1/fail', { lease: retried.lease, error: { code: 'x', message: 'x', retryable: true } })
    once.die()
    const from = Date.now()
    first.kill('SIGKILL')
    await new Promise((resolve) => first.once('exit', resolve))
    own.spawn('--child')
    await own.healthy()
    const client = own.agent('run', 1, session)
    const told = workUntilTold(client, task, { status: 'completed', result: 'late' })
    expect((await own.ended(waiting as string)).jobs[0]).toMatchObject({ status: 'failed', attempts: 0, error: { code: 'deadline' } })
    await told
    expect(Date.now() - from).toBeLessThan(11_000)
    expect((await own.ended(running as string)).jobs[0]).toMatchObject({ status: 'failed', error: { code: 'timeout' } })
    // It was started before: the deadline of its start is met for ever.
    const later = own.agent('once', 2)
    const again = await next(later, own)
    await later.post('/v1/complete', { lease: again.lease, result: again.attempt })
    expect((await own.ended(started as string)).result).toEqual({ task: [2] })
  } finally {
    await own.stop()
  }
}, 60_000)

test('a run brings its own deadlines', async () => {
  const run = await submit('plain', 1, { timeouts: { start_to_close_ms: 400 } })
  const client = h.agent('plain')
  await workUntilTold(client, await next(client), { status: 'completed', result: 1 })
  await workUntilTold(client, await next(client), { status: 'completed', result: 1 })
  await workUntilTold(client, await next(client), { status: 'completed', result: 1 })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'failed', attempts: 3, error: { code: 'timeout' } })
  client.die()
})
