import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ReplicaView } from '../../../spec/protocol.ts'
import { harness, type Harness, until } from './harness.ts'

/** A gateway that gives work to those alone whose posture the controller has proved. */
let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({ work: { replicas: 2, concurrency: 2 }, curl: {} })
  await h.start({ guarded: true })
})
afterAll(() => h.stop())

const submit = (agent: string, count = 1): Promise<string> =>
  h.submit({ agent, type: 'task', tasks: Array.from({ length: count }, (_, index) => index) })
const prove = async (agent: string, replica: number, proved: boolean): Promise<void> => {
  const reply = await h.control('POST', '/v1/replicas/proofs', { proofs: [{ agent, replica, proved }] })
  expect(reply.status, reply.body).toBe(200)
}
const view = async (agent: string, replica = 1): Promise<ReplicaView | undefined> =>
  (await h.control('GET', '/v1/replicas')).json.replicas.find((it: ReplicaView) => it.agent === agent && it.replica === replica)

test('no work before the proof; a request that is held gets it with the proof; none after it is taken back', async () => {
  const run = await submit('work', 3)
  const client = h.agent('work', 1)
  expect((await client.lease(1, 200)).tasks).toEqual([])
  expect(await view('work')).toEqual({ agent: 'work', replica: 1, connected: true, tasks: 0, unproved: true })
  const unproved = async (): Promise<number> => (await h.control('GET', '/v1/replicas?unproved=1')).json.replicas.length
  expect(await unproved()).toBe(1)
  const explained = await h.control('GET', `/v1/tasks/${run}.task.0/explain`)
  expect(explained.body).toContain('no replica of \\"work\\" has been proved to be as it was declared')
  const begin = performance.now()
  const held = client.lease(1, 10_000)
  await prove('work', 1, true)
  const [task] = (await held).tasks
  expect(task?.agent).toBe('work')
  expect(performance.now() - begin).toBeLessThan(2_000)
  expect(await view('work')).toEqual({ agent: 'work', replica: 1, connected: true, tasks: 1 })
  expect(await unproved()).toBe(0)
  await prove('work', 1, false)
  // What it has it may end; it gets no more.
  expect((await client.lease(1, 200)).tasks).toEqual([])
  expect((await client.post('/v1/complete', { lease: task?.lease, result: 1 })).status).toBe(200)
  expect((await client.lease(1, 200)).tasks).toEqual([])
  await prove('work', 1, true)
  expect((await client.lease(2, 2_000)).tasks).toHaveLength(2)
  client.die()
})

test('the proof ends with the session: what comes next may be another container', async () => {
  const first = h.agent('work', 2)
  await prove('work', 2, true)
  await first.lease(0)
  expect(await view('work', 2)).toMatchObject({ connected: true })
  expect((await view('work', 2))?.unproved).toBeUndefined()
  first.die()
  await until('the session is over', 10_000, async () => (await view('work', 2)) === undefined || null)
  const second = h.agent('work', 2)
  await submit('work')
  expect((await second.lease(1, 200)).tasks).toEqual([])
  expect((await view('work', 2))?.unproved).toBe(true)
  // A replica is proved by the controller while it starts, too: the proof may be there before the session.
  second.die()
  await until('the session is over', 10_000, async () => (await view('work', 2)) === undefined || null)
  await prove('work', 2, true)
  expect((await h.agent('work', 2).lease(1, 2_000)).tasks).toHaveLength(1)
})

test('one without a session is proved as well', async () => {
  await submit('curl')
  const curl = h.agent('curl', 1, null)
  expect((await curl.lease(1, 200)).tasks).toEqual([])
  await prove('curl', 1, true)
  expect((await curl.lease(1, 2_000)).tasks).toHaveLength(1)
})

test('a malformed proof is refused', async () => {
  expect((await h.control('POST', '/v1/replicas/proofs', { proofs: [{ agent: 'work', replica: 0, proved: true }] })).status).toBe(400)
  expect((await h.control('POST', '/v1/replicas/proofs', {})).status).toBe(400)
})
