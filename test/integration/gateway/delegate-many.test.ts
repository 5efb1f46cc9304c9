import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { MAX_CHILDREN } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until } from './harness.ts'
import { commandStats, take } from './storing.ts'

let h: Harness
let gateway: Gateway
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({
    lead: { delegates_to: ['work', 'tight'] },
    work: { concurrency: 10 },
    tight: { work: { max_queue: 5 } },
    other: {},
  })
  gateway = await h.start()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.die()
})
afterAll(() => h.stop())

const agent = (name: string, replica?: number, session?: string): Client => {
  const client = h.agent(name, replica, session)
  clients.push(client)
  return client
}
const submit = (): Promise<string> => h.submit({ agent: 'lead', type: 'task', tasks: [{}] })
const many = (from: number, to: number, name: string = 'work') =>
  Array.from({ length: to - from }, (_, index) => ({ key: `${name}${from + index}`, agent: name, input: from + index }))
const waiting = async (): Promise<number> => (await h.broker().lengths(['work']))[0]?.waiting ?? 0
/** Redis commands so far. */
const commands = async (): Promise<number> => {
  const info = await commandStats(h)
  return Number(/cmdstat_hmget:calls=(\d+)/.exec(info)?.[1] ?? 0)
}

test('many children in one request; the same request again is the same children; await tells of all of them', async () => {
  const run = await submit()
  const [lead, work] = [agent('lead'), agent('work')]
  const task = await take(lead)
  const made = await lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, 10) })
  expect(made.json.tasks).toHaveLength(10)
  expect(new Set(made.json.tasks).size).toBe(10)
  const again = await lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, 12) })
  expect(again.json.tasks.slice(0, 10)).toEqual(made.json.tasks)
  const ids = again.json.tasks as string[]
  expect(await waiting()).toBe(12)
  // Not all have ended: told so when the time is over.
  const early = await lead.post('/v1/await', { lease: task.lease, tasks: ids, wait_ms: 10 })
  expect(early.json.done).toBe(false)
  expect(early.json.tasks.map((it: { status: string }) => it.status)).toEqual(ids.map(() => 'queued'))
  const all = lead.post('/v1/await', { lease: task.lease, tasks: ids, wait_ms: 30_000 })
  work.run(10, async ({ input }) => ({ n: input }))
  const { done, tasks } = (await all).json
  expect(done).toBe(true)
  expect(tasks.map((it: { id: string; result: { n: number } }) => [it.id, it.result.n])).toEqual(ids.map((id, index) => [id, index]))
  // A retry of the parent gets the same, which have ended.
  await lead.post('/v1/fail', { lease: task.lease, error: { code: 'x', message: 'x', retryable: true } })
  const second = await take(lead)
  expect((await lead.post('/v1/delegate', { lease: second.lease, tasks: many(0, 12) })).json.tasks).toEqual(ids)
  expect((await lead.post('/v1/await', { lease: second.lease, tasks: ids })).json.done).toBe(true)
  await lead.post('/v1/complete', { lease: second.lease, result: null })
  await h.ended(run)
})

test('while it waits nothing is asked of Redis', async () => {
  await submit()
  const lead = agent('lead')
  const task = await take(lead)
  const { tasks } = (await lead.post('/v1/delegate', { lease: task.lease, tasks: many(100, 105) })).json
  const wait = lead.post('/v1/await', { lease: task.lease, tasks, wait_ms: 3_000 })
  await new Promise((resolve) => setTimeout(resolve, 500))
  const before = await commands()
  await new Promise((resolve) => setTimeout(resolve, 2_000))
  expect(await commands()).toBe(before)
  expect((await wait).json.done).toBe(false)
  await lead.post('/v1/complete', { lease: task.lease, result: null })
})

test('what is told of many ended ones costs one reading of each, and one of the record for fifty', async () => {
  await submit()
  const [lead, work] = [agent('lead'), agent('work')]
  const task = await take(lead)
  const { tasks } = (await lead.post('/v1/delegate', { lease: task.lease, tasks: many(300, 400) })).json
  work.run(10, async ({ input }) => input)
  await until('all have ended', 20_000, async () => (await lead.post('/v1/await', { lease: task.lease, tasks, wait_ms: 5_000 })).json.done)
  work.die()
  const before = await commands()
  const reply = await lead.post('/v1/await', { lease: task.lease, tasks })
  expect(reply.json.tasks.map((it: { status: string; result: number }) => [it.status, it.result])).toEqual(
    Array.from({ length: 100 }, (_, index) => ['completed', 300 + index]),
  )
  expect((await commands()) - before).toBeLessThan(150)
  await lead.post('/v1/complete', { lease: task.lease, result: null })
})

test('one that is not allowed, too large, twice or of a key that is taken: none is made', async () => {
  await submit()
  const lead = agent('lead')
  const task = await take(lead)
  await until('the queue is empty', 20_000, async () => (await waiting()) === 0)
  const delegate = (tasks: unknown, lease: string = task.lease) => lead.post('/v1/delegate', { lease, tasks })
  await delegate([{ key: 'taken', agent: 'tight', input: 1 }])
  for (const [status, bad] of [
    [403, { key: 'x', agent: 'other', input: 1 }],
    [403, { key: 'x', agent: 'nobody', input: 1 }],
    [413, { key: 'x', agent: 'work', input: 'x'.repeat(65_536) }],
    [400, { key: 'work201', agent: 'work', input: 1 }],
    [400, { key: 'taken', agent: 'work', input: 1 }],
    [400, { key: 'x', agent: 'work' }],
    [400, { key: '', agent: 'work', input: 1 }],
    [400, 'x'],
  ] as const)
    expect([bad, (await delegate([...many(200, 205), bad])).status]).toEqual([bad, status])
  for (const tasks of [[], 'x', null, many(0, MAX_CHILDREN + 1)]) expect((await delegate(tasks)).status).toBe(400)
  expect(await waiting()).toBe(0)
  for (const thief of [agent('lead', 2), agent('work')])
    expect((await thief.post('/v1/delegate', { lease: task.lease, tasks: many(300, 302) })).status).toBe(409)
  // Over the bound of the other agent's queue: refused whole; what is there already is not in its way.
  const over = await delegate([{ key: 'taken', agent: 'tight', input: 1 }, ...many(0, 5, 'tight')])
  expect([over.status, over.json.error.code]).toEqual([429, 'AG6008'])
  expect((await delegate([{ key: 'taken', agent: 'tight', input: 1 }, ...many(0, 4, 'tight')])).status).toBe(200)
  expect((await delegate([{ key: 'taken', agent: 'tight', input: 1 }])).status).toBe(200)
  expect(await waiting()).toBe(0)
  await lead.post('/v1/complete', { lease: task.lease, result: null })
})

test('a thousand children at once, and not one more; await sees only one’s own', async () => {
  await submit()
  const [lead, second] = [agent('lead'), agent('lead', 2)]
  const task = await take(lead)
  const made = await lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, MAX_CHILDREN) })
  expect(made.status).toBe(200)
  const over = await lead.post('/v1/delegate', { lease: task.lease, tasks: many(MAX_CHILDREN - 1, MAX_CHILDREN + 1) })
  expect([over.status, over.json.error.code]).toEqual([429, 'too_many_children'])
  expect((await lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, MAX_CHILDREN) })).json.tasks).toEqual(made.json.tasks)
  const ids = made.json.tasks as string[]
  const all = await lead.post('/v1/await', { lease: task.lease, tasks: ids })
  expect(all.json.tasks).toHaveLength(MAX_CHILDREN)
  await submit()
  const other = await take(second)
  expect((await second.post('/v1/await', { lease: other.lease, tasks: [ids[0]] })).status).toBe(404)
  expect((await second.post('/v1/await', { lease: task.lease, tasks: [ids[0]] })).status).toBe(409)
  expect((await lead.post('/v1/await', { lease: task.lease, tasks: [`${task.id}.0000000000000000`] })).status).toBe(404)
  expect((await lead.post('/v1/await', { lease: task.lease, tasks: [task.id] })).status).toBe(404)
  expect((await lead.post('/v1/await', { lease: task.lease, tasks: [...ids, ids[0], 'x'] })).status).toBe(400)
  for (const [client, lease] of [
    [lead, task.lease],
    [second, other.lease],
  ] as const)
    await client.post('/v1/complete', { lease, result: null })
})

test('a kill in the middle of a large delegation, sent again, makes each child once', async () => {
  await gateway.close()
  const first = h.spawn('--child')
  await h.healthy()
  const run = await submit()
  const session = 'session-of-lead'
  const lead = agent('lead', 1, session)
  const task = await take(lead)
  const sent = lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, 500) }).catch(() => null)
  await until('it has begun', 10_000, async () =>
    [...((await h.broker().readRun(run)) ?? [])].some(([field]) => field.startsWith('child:')),
  )
  first.kill('SIGKILL')
  await sent
  h.spawn('--child')
  await h.healthy()
  const made = await until('it is made', 20_000, async () => {
    const reply = await lead.post('/v1/delegate', { lease: task.lease, tasks: many(0, 500) }).catch(() => null)
    return reply?.status === 200 ? reply : null
  })
  const work = agent('work')
  const seen: unknown[] = []
  work.run(10, async ({ input }) => {
    seen.push(input)
    return input
  })
  const all = await until('all have ended', 30_000, async () => {
    const reply = await lead.post('/v1/await', { lease: task.lease, tasks: made.json.tasks, wait_ms: 5_000 })
    return reply.json.done === true ? reply : null
  })
  expect(all.json.tasks.map((it: { result: number }) => it.result)).toEqual(Array.from({ length: 500 }, (_, index) => index))
  expect(new Set(seen).size).toBe(seen.length)
  await lead.post('/v1/complete', { lease: task.lease, result: null })
  await h.ended(run)
})
