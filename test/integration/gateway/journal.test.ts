import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { JOURNAL_ENTRIES, type JournalEntry, type LeasedTask } from '../../../spec/protocol.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Client, harness, type Harness, type Reply, until } from './harness.ts'
import { commandStats, raw, take } from './storing.ts'

let h: Harness
let gateway: Gateway
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({ a: { concurrency: 2 }, b: {} })
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
const step = (key: string, value: unknown): JournalEntry => ({ key, kind: 'step', value: value as never })
const write = (client: Client, lease: string, ...entries: JournalEntry[]): Promise<Reply> => client.post('/v1/journal', { lease, entries })
const read = (client: Client, lease: string): Promise<Reply> => client.call('GET', `/v1/journal?lease=${encodeURIComponent(lease)}`)
const again = async (client: Client, task: LeasedTask): Promise<LeasedTask> => {
  await client.post('/v1/fail', { lease: task.lease, error: { code: 'again', message: 'again', retryable: true } })
  return take(client)
}
const journals = (): Promise<readonly string[]> => h.broker().journals()

test('what an execution recorded is there for the next, in order; the first record of a key stays; all goes with the task', async () => {
  const run = await submit('a')
  const a = agent('a')
  const first = await take(a)
  expect(first.journal).toBeUndefined()
  expect((await write(a, first.lease, step('fetch#1', { n: 1 }), step('fetch#2', null))).json).toEqual({ ok: true })
  expect((await write(a, first.lease, step('fetch#1', 'another'), { key: 'tree#1', kind: 'checkpoint', value: 'sha' })).status).toBe(200)
  const second = await again(a, first)
  expect(second).toMatchObject({ id: first.id, attempt: 2, journal: 3 })
  expect((await read(a, second.lease)).json.entries).toEqual([
    step('fetch#1', { n: 1 }),
    step('fetch#2', null),
    { key: 'tree#1', kind: 'checkpoint', value: 'sha' },
  ])
  expect(await journals()).toEqual([first.id])
  await a.post('/v1/complete', { lease: second.lease, result: null })
  await h.ended(run)
  await until('the journal is gone', 5_000, async () => (await journals()).length === 0)
})

test('a dead lease writes nothing, whoever shows it, and a lease of another opens nothing', async () => {
  await submit('a')
  const a = agent('a')
  const first = await take(a)
  await write(a, first.lease, step('x#1', 1))
  const second = await again(a, first)
  expect((await write(a, first.lease, step('late#1', 1))).status).toBe(409)
  expect((await read(a, first.lease)).status).toBe(409)
  for (const thief of [agent('a', 2), agent('b')]) {
    expect((await write(thief, second.lease, step('stolen#1', 1))).status).toBe(409)
    expect((await read(thief, second.lease)).status).toBe(409)
  }
  expect((await read(a, second.lease)).json.entries).toEqual([step('x#1', 1)])
  // The broker itself refuses the earlier execution, though the same session holds the lock of the later one.
  const [active] = await h.broker().active('a')
  const fence = { queue: 'a', id: first.id, token: active?.holder ?? '' }
  const limits = { entries: 10, bytes: 1_000 }
  expect(await h.broker().writeJournal({ ...fence, epoch: 1 }, [['late#1', '{}']], limits)).toBe('lost')
  expect(await h.broker().writeJournal({ ...fence, epoch: 2, token: 'a.9.other' }, [['late#1', '{}']], limits)).toBe('lost')
  expect(await h.broker().writeJournal({ ...fence, epoch: 2 }, [['mine#1', '{}']], limits)).toBe('ok')
  await a.post('/v1/complete', { lease: second.lease, result: null })
})

test('a task that records nothing costs no command of the journal, tried again or not', async () => {
  const count = async (): Promise<number> => {
    const stats = await commandStats(h)
    return Number(/cmdstat_hlen:calls=(\d+)/.exec(stats)?.[1] ?? 0)
  }
  const before = await count()
  await submit('a')
  const a = agent('a')
  const second = await again(a, await take(a))
  expect(second.attempt).toBe(2)
  await a.post('/v1/complete', { lease: second.lease, result: null })
  expect(await count()).toBe(before)
  expect(await journals()).toEqual([])
})

test('limits: of entries, of bytes, of one value; keys and kinds that are none', async () => {
  await submit('a')
  const a = agent('a')
  const task = await take(a)
  for (const wrong of [
    { key: 'x', kind: 'step', value: 1 },
    { key: 'x#0', kind: 'step', value: 1 },
    { key: '#1', kind: 'step', value: 1 },
    { key: `${'n'.repeat(201)}#1`, kind: 'step', value: 1 },
    { key: 'x#1', kind: 'odd', value: 1 },
    { key: 'x#1', kind: 'step' },
    { key: 'x#1', kind: 'step', value: JSON.parse('['.repeat(200) + ']'.repeat(200)) },
  ])
    expect([wrong, (await a.post('/v1/journal', { lease: task.lease, entries: [wrong] })).status]).toEqual([wrong, 400])
  expect((await write(a, task.lease, step('big#1', 'x'.repeat(65_536)))).status).toBe(413)
  const many = Array.from({ length: JOURNAL_ENTRIES + 1 }, (_, index) => step(`n#${index + 1}`, index))
  expect((await write(a, task.lease, ...many)).status).toBe(400)
  expect((await write(a, task.lease, ...many.slice(0, JOURNAL_ENTRIES))).status).toBe(200)
  expect((await write(a, task.lease, step('one-more#1', 1))).status).toBe(413)
  // What is there already is no more.
  expect((await write(a, task.lease, step('n#1', 'again'))).status).toBe(200)
  await a.post('/v1/complete', { lease: task.lease, result: null })

  await submit('a')
  const large = await take(a)
  const statuses: number[] = []
  for (let n = 1; n <= 70; n++) statuses.push((await write(a, large.lease, step(`v#${n}`, 'x'.repeat(65_000)))).status)
  expect(statuses.indexOf(413)).toBe(64)
  expect(statuses.slice(64).every((status) => status === 413)).toBe(true)
  const answer = await raw(h, 'a')('GET', `/v1/journal?lease=${encodeURIComponent(large.lease)}`)
  expect(answer.json.entries.length).toBe(64)
  const ended = await a.post('/v1/complete', { lease: large.lease, result: null })
  expect([ended.status, ended.body]).toEqual([200, '{"ok":true}'])
})

test('a journal outlives a kill of gateway and agent, and none is left behind by a task that ended in between', async () => {
  await gateway.close()
  const first = h.spawn('--child')
  await h.healthy()
  const run = await submit('a')
  const a = agent('a')
  const task = await take(a)
  await write(a, task.lease, step('x#1', 'kept'))
  // One whose task is no more: as after a kill between the end of a task and the end of its journal.
  const ghost = { queue: 'a', id: task.id, epoch: 1, token: (await h.broker().active('a'))[0]?.holder ?? '' }
  first.kill('SIGKILL')
  a.die()
  expect(await h.broker().writeJournal(ghost, [['y#1', JSON.stringify({ kind: 'step', value: 1 })]], { entries: 10, bytes: 1_000 })).toBe(
    'ok',
  )
  h.spawn('--child')
  await h.healthy()
  const b = agent('a', 2)
  const second = await take(b)
  expect(second).toMatchObject({ id: task.id, journal: 2 })
  expect((await read(b, second.lease)).json.entries).toEqual([step('x#1', 'kept'), step('y#1', 1)])
  await b.post('/v1/complete', { lease: second.lease, result: null })
  await h.ended(run)
  await until('the journal is gone', 5_000, async () => (await journals()).length === 0)
})
