/** A hostile replica that sends too much: each flood is refused by name, and the gateway works on. */
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MAX_BODY_BYTES, MAX_CHILDREN } from '../../../spec/protocol.ts'
import { replicaToken } from '../../../engine/tokens.ts'
import { harness, type Harness, http, until } from './harness.ts'

let h: Harness
const sockets: Socket[] = []
beforeAll(async () => {
  h = await harness()
  h.configure({ a: {}, deep: { concurrency: 2 }, lead: { delegates_to: ['b'] }, b: {} })
  await h.start()
})
afterAll(() => {
  for (const socket of sockets) socket.destroy()
  return h.stop()
})

const token = (agent: string, replica: number): string => replicaToken('ab'.repeat(32), 'demo', { agent, replica })
const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)

interface Raw {
  readonly socket: Socket
  text: string
  closed: boolean
}
function raw(first: string): Raw {
  const socket = connect(h.port(), '127.0.0.1', () => socket.write(first))
  const made: Raw = { socket, text: '', closed: false }
  sockets.push(socket)
  socket.on('data', (chunk) => {
    made.text += chunk.toString()
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    made.closed = true
  })
  return made
}
const post = (replica: number, length: string): string =>
  `POST /v1/lease HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token('a', replica)}\r\n${length}\r\n\r\n`

test('bodies over the budget of a replica are 429, declared or chunked, and their room comes back', async () => {
  const other = h.agent('a', 2, null)
  const mine = h.agent('a', 1, null)
  const full = Array.from({ length: 4 }, () => raw(post(1, `content-length: ${MAX_BODY_BYTES}`)))
  await until('the budget is taken', 2_000, async () => (await mine.post('/v1/lease', { want: 0 })).status === 429)
  expect((await mine.post('/v1/lease', { want: 0 })).json.error).toMatchObject({ code: 'too_many_requests' })
  const chunked = raw(`${post(1, 'transfer-encoding: chunked')}2\r\n{}\r\n`)
  await until('the chunked one is refused', 2_000, () => chunked.text.includes('too_many_requests'))
  expect((await other.post('/v1/lease', { want: 0 })).status).toBe(200)
  for (const { socket } of full) socket.destroy()
  await until('the room is back', 2_000, async () => (await mine.post('/v1/lease', { want: 0 })).status === 200)
})

test('what all replicas may send at once is limited too', async () => {
  const all = Array.from({ length: 32 }, (_, index) => raw(post(10 + (index >> 2), `content-length: ${MAX_BODY_BYTES}`)))
  const late = h.agent('a', 3, null)
  await until('the budget is taken', 2_000, async () => (await late.post('/v1/lease', { want: 0 })).status === 429)
  for (const { socket } of all) socket.destroy()
  await until('the room is back', 2_000, async () => (await late.post('/v1/lease', { want: 0 })).status === 200)
})

test('a result or an input that is nested too deep is refused, at any depth', async () => {
  const run = await h.submit({ agent: 'deep', type: 'task', tasks: [1, 2] })
  const deep = h.agent('deep')
  const [first, second] = (await deep.lease(2)).tasks.map((task) => task.lease)
  for (const levels of [129, 30_000, 2_000_000]) {
    const reply = await deep.post('/v1/complete', `{"lease":"${first}","result":${nested(levels)}}`)
    expect([levels, reply.status, reply.json.error.code]).toEqual([levels, 400, 'bad_request'])
  }
  const input = await deep.post('/v1/delegate', `{"lease":"${first}","key":"k","agent":"b","input":${nested(30_000)}}`)
  expect(input.json.error.message).toBe('"input" is nested more than 128 levels deep')
  expect((await deep.post('/v1/traces', `{"resourceSpans":${nested(30_000)}}`)).status).toBe(400)
  const both = `{"want":0,"done":[{"lease":"${first}","status":"completed","result":${nested(30_000)}},{"lease":"${second}","status":"completed","result":${nested(128)}}]}`
  expect((await deep.post('/v1/lease', both)).json.settled).toEqual([
    { lease: first, ok: false, code: 'bad_request' },
    { lease: second, ok: true },
  ])
  expect((await deep.post('/v1/complete', { lease: first, result: [] })).status).toBe(200)
  expect((await h.ended(run)).status).toBe('completed')
})

test('a task has so many unfinished children and no more', async () => {
  await h.submit({ agent: 'lead', type: 'task', tasks: [1] })
  const lead = h.agent('lead')
  const lease = (await lead.lease(1)).tasks[0]?.lease
  const ask = (key: string) => lead.post('/v1/delegate', { lease, key, agent: 'b', input: {} })
  let made = 0
  const statuses: number[] = []
  const lane = async (): Promise<void> => {
    while (made < MAX_CHILDREN + 20) statuses.push((await ask(`k${made++}`)).status)
  }
  await Promise.all(Array.from({ length: 20 }, lane))
  expect(statuses.filter((it) => it === 200)).toHaveLength(MAX_CHILDREN)
  const refused = await ask('another')
  expect(refused.status).toBe(429)
  expect(refused.json.error.code).toBe('too_many_children')
  expect((await ask('k0')).status).toBe(200)
  const b = h.agent('b')
  const [child] = (await b.lease(1)).tasks
  expect((await b.post('/v1/complete', { lease: child?.lease, result: 1 })).status).toBe(200)
  await until('there is room for another', 2_000, async () => (await ask('another')).status === 200)
})

test('a path that is none is a bad request, on both servers', async () => {
  const a = h.agent('a', 4, null)
  for (const path of ['/v1/tasks/%zz', '//']) expect((await a.call('GET', path)).json.error.code).toBe('bad_request')
  expect((await h.control('GET', '/v1/tasks/%zz')).json.error.code).toBe('bad_request')
})

test('a stranger is closed after 10 s, also one that only asks for the health; one that is known stays', { timeout: 20_000 }, async () => {
  const silent = raw('')
  const health = raw('GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n')
  const known = raw(`${post(5, 'content-length: 2')}{}`)
  await until('both are answered', 2_000, () => health.text.includes('200 OK') && known.text.includes('200 OK'))
  await until('the strangers are closed', 12_000, () => silent.closed && health.closed)
  expect(known.closed).toBe(false)
})

test('the 301st connection of one address is closed, and a place comes back', async () => {
  const many = Array.from({ length: 300 }, () => raw(''))
  await until('the rest is closed', 2_000, () => many.some((it) => it.closed))
  const health = () => http({ host: '127.0.0.1', port: h.port(), path: '/v1/health', agent: false }).catch(() => null)
  expect(await health()).toBeNull()
  for (const { socket } of many) socket.destroy()
  await until('there is a place', 2_000, async () => (await health())?.status === 200)
})
