import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { LOG_BYTES_PER_S, type RunEvent } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, type Reply } from './harness.ts'
import { take } from './storing.ts'

let h: Harness
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({ a: { concurrency: 2 }, b: {} })
  await h.start()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.die()
})
afterAll(() => h.stop())

const agent = (name: string, replica?: number): Client => {
  const client = h.agent(name, replica)
  clients.push(client)
  return client
}
const submit = (name: string): Promise<string> => h.submit({ agent: name, type: 'task', tasks: [{}] })
const log = (client: Client, lease: string, ...texts: string[]): Promise<Reply> =>
  client.post('/v1/logs', { lease, lines: texts.map((text) => ({ stream: 'stdout', text })) })
const logged = async (run: string): Promise<readonly RunEvent[]> => (await told(run)).filter((it) => it.event === 'log')
const told = async (run: string): Promise<readonly RunEvent[]> => {
  const { body } = await h.control('GET', `/v1/runs/${run}/events?follow=0`)
  return body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as RunEvent)
}

test('lines of a task are events of its run, with their stream, and the tail of an execution that fails', async () => {
  const run = await submit('a')
  const a = agent('a')
  const task = await take(a)
  const lines = [
    { stream: 'stdout', text: 'one' },
    { stream: 'stderr', text: 'two' },
    { stream: 'log', text: 'three' },
  ]
  expect((await a.post('/v1/logs', { lease: task.lease, lines })).json).toEqual({ ok: true })
  await a.post('/v1/fail', { lease: task.lease, error: { code: 'x', message: 'y', retryable: true } })
  expect((await logged(run)).map((it) => [it.task, it.message, it.data])).toEqual([
    [task.id, 'one', { stream: 'stdout' }],
    [task.id, 'two', { stream: 'stderr' }],
    [task.id, 'three', { stream: 'log' }],
  ])
  const [first = ''] = await h.broker().readAttempts({ queue: 'a', id: task.id })
  expect(JSON.parse(first).log).toBe('one\ntwo\nthree\n')
  const again = await take(a)
  await a.post('/v1/complete', { lease: again.lease, result: null })
})

test('a flood is cut, said so once, and leaves room for what comes later and for the other replica', async () => {
  const run = await submit('a')
  const [a, other] = [agent('a'), agent('a', 2)]
  const task = await take(a)
  const second = await submit('a')
  const beside = await take(other)
  const text = 'x'.repeat(1_000)
  let sent = 0
  for (let n = 0; n < 60; n++) {
    expect((await log(a, task.lease, ...Array.from({ length: 50 }, () => text))).status).toBe(200)
    sent += 50
  }
  expect((await log(other, beside.lease, 'mine')).status).toBe(200)
  const events = await logged(run)
  const cuts = events.filter((it) => (it.data as { cut?: boolean }).cut === true)
  // One each ten seconds: the whole flood takes less, on any machine that can run this.
  expect(cuts.length).toBeGreaterThanOrEqual(1)
  expect(cuts.length).toBeLessThanOrEqual(4)
  expect(cuts[0]?.message).toContain(`a.1 writes more than ${LOG_BYTES_PER_S} bytes of log a second`)
  expect(events.length).toBeLessThan(sent / 2)
  expect((await logged(second)).map((it) => it.message)).toEqual(['mine'])
  await a.post('/v1/complete', { lease: task.lease, result: null })
  await other.post('/v1/complete', { lease: beside.lease, result: null })
})

test('progress counts as log does: a flood of it is answered, left out, and said so once', async () => {
  const run = await submit('a')
  // A replica of its own: its bucket is full.
  const a = agent('a', 3)
  const task = await take(a)
  const message = 'm'.repeat(1_000)
  const data = 'd'.repeat(1_000)
  const sent = 600
  const lane = async (): Promise<void> => {
    for (let n = 0; n < sent / 20; n++)
      expect((await a.post('/v1/progress', { lease: task.lease, message, data, percent: 1 })).json).toEqual({ ok: true })
  }
  const begun = Date.now()
  await Promise.all(Array.from({ length: 20 }, lane))
  const allowed = ((Date.now() - begun) / 1_000 + 4) * LOG_BYTES_PER_S
  const events = await told(run)
  const progress = events.filter((it) => it.event === 'progress')
  expect(progress.length).toBeGreaterThan(0)
  expect(progress.length).toBeLessThanOrEqual(allowed / 2_000)
  const cuts = events.filter((it) => it.event === 'log')
  expect(cuts.length).toBeGreaterThanOrEqual(1)
  expect(cuts[0]?.message).toMatch(/^agentctl: a\.3 writes more than .*progress, left out \d+ times/)
  expect(cuts[0]?.data).toEqual({ stream: 'log', cut: true })
  await a.post('/v1/complete', { lease: task.lease, result: null })
})

test('foreign leases, ten thousand lines, too many bytes and what is no line are refused', async () => {
  await submit('a')
  const a = agent('a')
  const task = await take(a)
  for (const thief of [agent('a', 2), agent('b')]) expect((await log(thief, task.lease, 'forged')).status).toBe(409)
  expect((await log(a, task.lease, ...Array.from({ length: 10_000 }, () => ''))).status).toBe(400)
  expect((await log(a, task.lease, 'x'.repeat(LOG_BYTES_PER_S + 1))).status).toBe(413)
  expect((await log(a, task.lease, 'x'.repeat(9 * LOG_BYTES_PER_S))).status).toBe(413)
  for (const lines of ['x', [7], [{ stream: 'odd', text: 'x' }], [{ stream: 'stdout' }], null])
    expect([lines, (await a.post('/v1/logs', { lease: task.lease, lines })).status]).toEqual([lines, 400])
  expect((await a.post('/v1/complete', { lease: task.lease, result: null })).status).toBe(200)
  expect((await log(a, task.lease, 'late')).status).toBe(409)
})
