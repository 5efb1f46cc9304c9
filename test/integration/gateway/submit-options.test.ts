/** What a submit may say besides its work: when it starts, how important it is, that it is the same as another, how long it may take. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Gateway } from '../../../engine/gateway/start.ts'
import type { Json } from '../../../spec/protocol.ts'
import { newRunId } from '../../../engine/ulid.ts'
import { harness, type Harness, until } from './harness.ts'

let h: Harness
let gateway: Gateway
beforeAll(async () => {
  h = await harness()
  h.configure(
    { work: { concurrency: 4 }, slow: { concurrency: 1 }, lead: { concurrency: 2, delegates_to: ['slow'] } },
    { two: { jobs: { one: { agent: 'work', with: 1 }, two: { agent: 'work', needs: ['one'], with: 2 } } } },
  )
  gateway = await h.start()
  h.agent('work').run(4, async (task) => ({ done: task.input, at: Date.now() }))
})
afterAll(() => h.stop())

const post = (body: object) => h.control('POST', '/v1/runs', body)
const show = async (run: string) => (await h.control('GET', `/v1/runs/${run}`)).json
const restart = async (): Promise<void> => {
  await gateway.close()
  gateway = await h.start()
}

test('a delayed run waits as queued, and starts when it is due, over a restart of the gateway', async () => {
  const made = Date.now()
  const plain = await h.submit({ agent: 'work', type: 'task', tasks: ['a', 'b'], delay_ms: 4_000 })
  const piped = await h.submit({ pipeline: 'two', inputs: {}, delay_ms: 4_000 })
  const view = await show(plain)
  expect(view.status).toBe('queued')
  expect(Date.parse(view.start_at)).toBeGreaterThanOrEqual(made + 4_000)
  expect(view.jobs.map((job: { status: string }) => job.status)).toEqual(['queued', 'queued'])
  expect((await h.control('GET', '/v1/runs')).json.runs.find((it: { run: string }) => it.run === piped).status).toBe('queued')
  // Nothing of it is in a queue yet.
  expect(await h.broker().read([{ queue: 'work', id: `${plain}.task.0` }])).toEqual([null])
  await restart()
  expect((await show(plain)).status).toBe('queued')
  for (const run of [plain, piped]) {
    const ended = await h.ended(run)
    expect(ended.status).toBe('completed')
    const results = ended.jobs.map((job) => job.result as { at: number })
    for (const { at } of results) expect(at).toBeGreaterThanOrEqual(made + 4_000)
  }
})

test('a run whose time comes while the gateway is away starts with the gateway', async () => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1], delay_ms: 300 })
  await gateway.close()
  await sleep(400)
  gateway = await h.start()
  expect((await h.ended(run)).status).toBe('completed')
})

test('a delayed run can be cancelled before its start, and never starts', async () => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1], delay_ms: 400 })
  expect((await h.control('POST', `/v1/runs/${run}/cancel`, {})).json).toEqual({ run, status: 'cancelled' })
  await sleep(700)
  const view = await show(run)
  expect(view.status).toBe('cancelled')
  expect(view.jobs).toMatchObject([{ status: 'cancelled', attempts: 0 }])
  expect(await h.broker().read([{ queue: 'work', id: `${run}.task.0` }])).toEqual([null])
})

test('of what waits, the higher priority runs first; children have that of their parent', async () => {
  const order: Json[] = []
  const slow = h.agent('slow')
  const submit = (input: string, priority?: number) =>
    h.submit({ agent: 'slow', type: 'task', tasks: [input], ...(priority === undefined ? {} : { priority }) })
  const runs = [await submit('low', -9), await submit('default'), await submit('high', 9), await submit('default too')]
  h.agent('lead').run(2, (task, { client, signal }) => client.delegate(task, 'child', 'slow', 'child of 5', signal))
  runs.push(await h.submit({ agent: 'lead', type: 'task', tasks: [1], priority: 5 }))
  await until('the child waits', 10_000, async () => (await h.control('GET', `/v1/runs/${runs.at(-1)}`)).json.children === 1)
  await sleep(200)
  slow.run(1, async (task) => {
    order.push(task.input)
    return null
  })
  for (const run of runs) await h.ended(run)
  expect(order).toEqual(['high', 'child of 5', 'default', 'default too', 'low'])
  slow.die()
})

test('a hundred submits with one key at the same time make one run', async () => {
  const replies = await Promise.all(Array.from({ length: 100 }, () => post({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'same' })))
  const runs = new Set(replies.map((it) => it.json.run))
  expect(runs.size).toBe(1)
  expect(replies.filter((it) => it.json.existing !== true)).toHaveLength(1)
  const [run] = runs
  // Also for a gateway that knows of it from the broker only.
  await restart()
  expect((await post({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'same' })).json).toMatchObject({ run, existing: true })
  expect((await post({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'another' })).json.run).not.toBe(run)
  await h.control('POST', `/v1/runs/${run}/cancel`, {})
  // It has ended, and no time was given: a key is for open runs.
  const next = (await post({ agent: 'work', type: 'task', tasks: [1], dedup_key: 'same' })).json
  expect(next.run).not.toBe(run)
  await h.ended(next.run)
})

test('with dedup_ttl_ms a key names its run after the end, until the time is over', async () => {
  const body = { agent: 'work', type: 'task', tasks: [1], dedup_key: 'for a while', dedup_ttl_ms: 2_000 }
  const { run } = (await post(body)).json
  await h.ended(run)
  expect((await post(body)).json).toMatchObject({ run, existing: true })
  const next = await until('the key is free', 10_000, async () => {
    const reply = (await post(body)).json
    return reply.run === run ? null : (reply.run as string)
  })
  const [first, second] = [await show(run), await show(next)]
  expect(Date.parse(second.created_at)).toBeGreaterThanOrEqual(Date.parse(first.created_at) + 2_000)
})

test('a hundred submits with one id at the same time make one run', async () => {
  const id = newRunId()
  const replies = await Promise.all(Array.from({ length: 100 }, () => post({ id, agent: 'work', type: 'task', tasks: [1, 2] })))
  expect(replies.every((it) => it.status === 200 && it.json.run === id)).toBe(true)
  expect(replies.filter((it) => it.json.existing !== true)).toHaveLength(1)
  expect((await h.ended(id)).jobs).toHaveLength(2)
})

test('timeouts of a run stand in the heads of its tasks, and are kept', async () => {
  const run = await h.submit({ agent: 'slow', type: 'task', tasks: [1], timeouts: { schedule_to_start_ms: 700 } })
  const [state] = await h.broker().read([{ queue: 'slow', id: `${run}.task.0` }])
  expect(JSON.parse(state?.data ?? '{}').timeouts).toEqual({ schedule_to_start_ms: 700 })
  const ended = await h.ended(run)
  expect(ended).toMatchObject({ status: 'failed', jobs: [{ error: { code: 'deadline' } }] })
})

test('options out of range are refused by name', async () => {
  const bad = async (more: object) => (await post({ agent: 'work', type: 'task', tasks: [1], ...more })).json.error
  expect(await bad({ priority: 10 })).toMatchObject({ code: 'AG6006', message: expect.stringContaining('priority') })
  expect(await bad({ delay_ms: -1 })).toMatchObject({ code: 'AG6006', message: expect.stringContaining('delay_ms') })
  expect(await bad({ dedup_ttl_ms: 5 })).toMatchObject({ code: 'AG6006', message: expect.stringContaining('dedup_key') })
})
