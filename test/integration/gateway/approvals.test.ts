import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Client, harness, type Harness, type Reply, until } from './harness.ts'
import { take } from './storing.ts'

let h: Harness
let gateway: Gateway
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({ a: { concurrency: 1 }, b: { concurrency: 1 } })
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
const submit = (name: string, input: unknown = {}): Promise<string> => h.submit({ agent: name, type: 'task', tasks: [input as never] })
const ask = (client: Client, lease: string, key: string, more: object = {}): Promise<Reply> =>
  client.post('/v1/approvals', { lease, key, message: `may I ${key}?`, ...more })
const pending = async (): Promise<readonly { id: string }[]> => (await h.control('GET', '/v1/approvals')).json.approvals
const decide = (id: string, decision: 'approve' | 'reject', comment?: string): Promise<Reply> =>
  h.control('POST', `/v1/approvals/${id}`, { decision, ...(comment === undefined ? {} : { comment }) })

test('a question parks its task, is waited for without asking again, and is decided once', async () => {
  await submit('a', 1)
  await submit('a', 2)
  const a = agent('a')
  const task = await take(a)
  expect((await a.lease(1, 0)).tasks).toEqual([])
  const asked = await ask(a, task.lease, 'deploy', { data: { to: 'production' } })
  expect(asked.json).toMatchObject({
    task: task.id,
    agent: 'a',
    key: 'deploy',
    status: 'pending',
    data: { to: 'production' },
    decided_at: null,
  })
  // The same key is the same question.
  expect((await ask(a, task.lease, 'deploy', { message: 'another text' })).json).toEqual(asked.json)
  // The one slot is free for the other task.
  const other = await take(a)
  expect(other.input).toBe(2)
  expect(await pending()).toMatchObject([{ id: asked.json.id, message: 'may I deploy?' }])
  const waiting = a.call('GET', `/v1/approvals/${asked.json.id}?wait_ms=20000`)
  expect((await decide(asked.json.id, 'approve', 'fine')).json).toMatchObject({ status: 'approved', comment: 'fine' })
  expect((await waiting).json).toMatchObject({ status: 'approved', comment: 'fine', decided_at: expect.any(String) })
  const second = await decide(asked.json.id, 'reject')
  expect([second.status, second.json.error.code]).toEqual([409, 'AG6012'])
  expect((await ask(a, task.lease, 'deploy')).json.status).toBe('approved')
  for (const { lease } of [task, other]) await a.post('/v1/complete', { lease, result: null })
  // It ends with its task.
  expect(await pending()).toEqual([])
  expect((await decide(asked.json.id, 'approve')).status).toBe(404)
})

test('only the replica that holds the task sees its questions; what is wrong or too much is refused', async () => {
  await submit('a')
  const [a, other, stranger] = [agent('a'), agent('a', 2), agent('b')]
  const task = await take(a)
  const asked = await ask(a, task.lease, 'x')
  for (const thief of [other, stranger]) {
    expect((await ask(thief, task.lease, 'y')).status).toBe(409)
    expect((await thief.call('GET', `/v1/approvals/${asked.json.id}`)).status).toBe(404)
  }
  expect((await a.call('GET', `/v1/approvals/${task.id}.0000000000000000`)).status).toBe(404)
  for (const wrong of [
    { key: '' },
    { key: 'k'.repeat(257) },
    { message: '' },
    { message: 'é'.repeat(2_049) },
    { message: 7 },
    { data: JSON.parse('['.repeat(200) + ']'.repeat(200)) },
  ])
    expect([wrong, (await ask(a, task.lease, 'z', wrong)).status]).toEqual([wrong, 400])
  expect((await ask(a, task.lease, 'z', { data: 'x'.repeat(65_536) })).status).toBe(413)
  // A hundred at once, and not one more, also when they come together.
  const replies = await Promise.all(Array.from({ length: 150 }, (_, index) => ask(a, task.lease, `q${index}`)))
  expect(replies.filter((it) => it.status === 200).length).toBe(99)
  expect(replies.filter((it) => it.status === 429 && it.json.error.code === 'too_many_approvals').length).toBe(51)
  await a.post('/v1/complete', { lease: task.lease, result: null })
  expect(await pending()).toEqual([])
})

test('a cancelled run takes its questions along, and whoever waits for one is told', async () => {
  const run = await submit('a')
  const a = agent('a')
  const task = await take(a)
  const asked = await ask(a, task.lease, 'x')
  const waiting = a.call('GET', `/v1/approvals/${asked.json.id}?wait_ms=20000`)
  await h.control('POST', `/v1/runs/${run}/cancel`)
  await a.lease(0, 0, { beat: [task.lease], done: [{ lease: task.lease, status: 'completed', result: 1 }] })
  expect((await waiting).status).toBe(404)
  expect(await pending()).toEqual([])
  expect((await decide(asked.json.id, 'approve')).status).toBe(404)
})

test('a question outlives a kill of the gateway and of the agent that asked, and its task stays parked', async () => {
  await gateway.close()
  const first = h.spawn('--child')
  await h.healthy()
  const run = await submit('a', 1)
  const session = 'session-of-a-1'
  const a = agent('a', 1, session)
  const task = await take(a)
  const asked = await ask(a, task.lease, 'x', { data: [1] })
  first.kill('SIGKILL')
  h.spawn('--child')
  await h.healthy()
  await until('the lease is held', 15_000, async () => {
    const reply = await a.post('/v1/heartbeat', { lease: task.lease }).catch(() => null)
    return reply?.status === 200
  })
  expect(await pending()).toEqual([asked.json])
  // Parked: its slot is free for another.
  await submit('a', 2)
  const other = await take(a)
  expect(other.input).toBe(2)
  a.die()
  // Its agent is gone; the next execution asks the same question and waits for the same answer.
  let b = agent('a', 2)
  let again = await take(b)
  if (again.id !== task.id) {
    // The other task came first, and holds the one slot.
    b = agent('a', 3)
    again = await take(b)
  }
  expect(again.id).toBe(task.id)
  expect(again.attempt).toBe(2)
  expect((await ask(b, again.lease, 'x')).json).toEqual(asked.json)
  const waiting = b.call('GET', `/v1/approvals/${asked.json.id}?wait_ms=20000`)
  expect((await decide(asked.json.id, 'reject', 'no')).status).toBe(200)
  expect((await waiting).json).toMatchObject({ status: 'rejected', comment: 'no' })
  await b.post('/v1/complete', { lease: again.lease, result: 'stopped' })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', result: 'stopped' })
})
