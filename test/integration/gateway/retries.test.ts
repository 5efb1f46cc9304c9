import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseAttempts } from '../../../engine/gateway/attempts.ts'
import type { AttemptView, LeasedTask } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until } from './harness.ts'

const FIXED = { attempts: 3, delay_ms: 400, max_delay_ms: 400, backoff: 'fixed', jitter: 0, on: null } as const

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({
    fixed: { concurrency: 2, work: { retry: FIXED } },
    once: { work: { retry: { ...FIXED, attempts: 1 } } },
    listed: { work: { retry: { ...FIXED, delay_ms: 50, on: ['rate_limit'] } } },
    slow: { work: { retry: { ...FIXED, delay_ms: 5_000, max_delay_ms: 5_000 } } },
    keyed: { concurrency: 2, work: { key: ['input', 'tenant'], retry: { ...FIXED, delay_ms: 100 } } },
    dying: {},
  })
  await h.start()
})
afterAll(() => h.stop())

const one = (agent: string, input: unknown = {}): Promise<string> => h.submit({ agent, type: 'task', tasks: [input as never] })
async function next(client: Client): Promise<LeasedTask> {
  for (;;) {
    const [task] = (await client.lease(1, 2_000)).tasks
    if (task !== undefined) return task
  }
}
const fail = (client: Client, task: LeasedTask, error: object) =>
  client.post('/v1/fail', { lease: task.lease, error: { message: 'no', ...error } })
const attempts = async (agent: string, run: string): Promise<readonly AttemptView[]> =>
  parseAttempts(await h.broker().readAttempts({ queue: agent, id: `${run}.task.0` }))

test('a failure is tried again after its pause, and what was is kept: who, when, why and the end of the log', async () => {
  const run = await one('fixed')
  const client = h.agent('fixed')
  const first = await next(client)
  await client.post('/v1/progress', { lease: first.lease, message: 'reading the page' })
  const failed = Date.now()
  await fail(client, first, { code: 'rate_limit', retryable: true })
  const second = await next(client)
  expect(second).toMatchObject({ id: first.id, attempt: 2 })
  expect(Date.now() - failed).toBeGreaterThanOrEqual(395)
  expect((await client.post('/v1/complete', { lease: second.lease, result: 'ok' })).status).toBe(200)
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', attempts: 2, result: 'ok' })
  expect(await attempts('fixed', run)).toEqual([
    {
      attempt: 1,
      replica: 'fixed.1',
      started_at: expect.any(String),
      ended_at: expect.any(String),
      error: { code: 'rate_limit', message: 'no', retryable: true },
      log: 'reading the page\n',
    },
  ])
  client.die()
})

test('while one task waits for its next try, the others go on', async () => {
  const run = await h.submit({ agent: 'slow', type: 'task', tasks: [1, 2, 3] })
  const client = h.agent('slow')
  const first = await next(client)
  await fail(client, first, { code: 'x', retryable: true })
  for (const input of [2, 3]) {
    const task = await next(client)
    expect(task.input).toBe(input)
    await client.post('/v1/complete', { lease: task.lease, result: input })
  }
  await h.control('POST', `/v1/runs/${run}/cancel`)
  expect((await h.ended(run)).jobs.map((job) => job.status)).toEqual(['cancelled', 'completed', 'completed'])
  client.die()
})

test('after the last try the task has failed, and all of its executions are known', async () => {
  const run = await one('fixed')
  const client = h.agent('fixed')
  for (let attempt = 1; attempt <= 3; attempt++) {
    const task = await next(client)
    expect(task.attempt).toBe(attempt)
    await fail(client, task, { code: `e${attempt}`, retryable: true })
  }
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'failed', attempts: 3, error: { code: 'e3', message: 'no' } })
  expect((await attempts('fixed', run)).map((it) => it.error.code)).toEqual(['e1', 'e2', 'e3'])
  client.die()
})

test('one attempt is one; a list of codes decides instead of the agent', async () => {
  const once = h.agent('once')
  const alone = await one('once')
  await fail(once, await next(once), { code: 'x', retryable: true })
  expect((await h.ended(alone)).jobs[0]).toMatchObject({ status: 'failed', attempts: 1 })
  const listed = h.agent('listed')
  const run = await one('listed')
  await fail(listed, await next(listed), { code: 'rate_limit' })
  await fail(listed, await next(listed), { code: 'other', retryable: true })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'failed', attempts: 2, error: { code: 'other' } })
  once.die()
  listed.die()
})

test("an agent's after_ms makes the pause longer; an orderly stop makes none and counts for nothing", async () => {
  const run = await one('fixed')
  const client = h.agent('fixed')
  const first = await next(client)
  const failed = Date.now()
  await fail(client, first, { code: 'x', retryable: true, after_ms: 1_200 })
  let task = await next(client)
  expect(Date.now() - failed).toBeGreaterThanOrEqual(1_195)
  for (let stop = 0; stop < 5; stop++) {
    await fail(client, task, { code: 'agent_stopped', retryable: true })
    task = await next(client)
    expect(task.attempt).toBe(stop + 3)
  }
  await fail(client, task, { code: 'x', retryable: true })
  await client.post('/v1/complete', { lease: (await next(client)).lease, result: 1 })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', attempts: 8 })
  client.die()
})

test('a task with a key comes back after its pause too', async () => {
  const run = await h.submit({ agent: 'keyed', type: 'task', tasks: [{ tenant: 'a' }, { tenant: 'a' }, { tenant: 'b' }] })
  const client = h.agent('keyed')
  const seen = new Map<string, number>()
  client.run(2, async (task) => {
    seen.set(task.id, (seen.get(task.id) ?? 0) + 1)
    if (task.attempt === 1) throw Object.assign(new Error('once more'), { code: 'x', retryable: true })
    return task.attempt
  })
  expect((await h.ended(run)).result).toEqual({ task: [2, 2, 2] })
  expect([...seen.values()]).toEqual([2, 2, 2])
  client.die()
})

test('a task that waits for its next try survives the gateway', async () => {
  const own = await harness()
  try {
    own.configure({ slow: { work: { retry: { ...FIXED, delay_ms: 2_000, max_delay_ms: 2_000 } } } })
    const first = own.spawn('--child')
    await own.healthy()
    const run = await own.submit({ agent: 'slow', type: 'task', tasks: [1] })
    const client = own.agent('slow')
    const task = await next(client)
    const failed = Date.now()
    await fail(client, task, { code: 'x', retryable: true })
    first.kill('SIGKILL')
    await new Promise((resolve) => first.once('exit', resolve))
    own.spawn('--child')
    await own.healthy()
    const again = own.agent('slow', 2)
    const second = await next(again)
    expect(second).toMatchObject({ id: task.id, attempt: 2 })
    expect(Date.now() - failed).toBeGreaterThanOrEqual(1_990)
    await again.post('/v1/complete', { lease: second.lease, result: 'ok' })
    expect((await own.ended(run)).status).toBe('completed')
  } finally {
    await own.stop()
  }
}, 60_000)

test('the deaths of agents are kept too, and the next replica has the task at once', async () => {
  const run = await one('dying')
  for (let death = 1; death <= 3; death++) {
    const client = h.agent('dying', death)
    const other = death < 3 ? h.agent('dying', 10 + death) : null
    const task = await next(client)
    expect(task.attempt).toBe(death * 2 - 1)
    client.die()
    if (other === null) break
    // Not a death: it is given back.
    const back = await next(other)
    await fail(other, back, { code: 'agent_stopped', retryable: true })
    other.die()
  }
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'dead', error: { code: 'agent_died' } })
  expect((await attempts('dying', run)).map((it) => it.error.code)).toEqual([
    'agent_died',
    'agent_stopped',
    'agent_died',
    'agent_stopped',
    'agent_died',
  ])
  expect((await attempts('dying', run))[0]).toMatchObject({ attempt: 1, replica: 'dying.1' })
})

test('a replica that is stopped or scaled away does not die of its work', async () => {
  const own = await harness()
  try {
    own.configure({ a: { replicas: 1 } })
    await own.start()
    const run = await own.submit({ agent: 'a', type: 'task', tasks: [1] })
    // Beyond the wanted number: killed without a word, as a container of an image that does not heed SIGTERM.
    for (let kill = 1; kill <= 4; kill++) {
      const extra = own.agent('a', 1 + kill)
      await next(extra)
      extra.die()
      await sleep(20)
    }
    const wanted = own.agent('a')
    const task = await next(wanted)
    await wanted.post('/v1/complete', { lease: task.lease, result: task.attempt })
    expect((await own.ended(run)).result).toEqual({ task: [5] })
    const kept = parseAttempts(await own.broker().readAttempts({ queue: 'a', id: task.id }))
    expect(kept.map((it) => it.error.code)).toEqual(Array.from({ length: 4 }, () => 'agent_stopped'))
    await until('nobody is left', 5_000, async () => (await own.control('GET', '/v1/replicas')).json.replicas.length === 1)
  } finally {
    await own.stop()
  }
}, 60_000)
