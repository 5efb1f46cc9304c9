import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LeasedTask, MAX_BODY_BYTES } from '../../../spec/protocol.ts'
import { harness, type Harness, http, until } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({
    a: { concurrency: 4 },
    b: { concurrency: 2 },
    c: { concurrency: 2 },
    self: { concurrency: 1, delegates_to: ['self'] },
    selfish: { delegates_to: ['selfish'] },
    lead: { concurrency: 2, delegates_to: ['b'] },
    w: { concurrency: 2 },
    dying: {},
    retry: {},
    curl: {},
    slow: {},
  })
  await h.start()
})
afterAll(() => h.stop())

const one = (agent: string, input: unknown = {}): Promise<string> => h.submit({ agent, type: 'task', tasks: [input as never] })

test('a token that is forged, of nobody, or missing is refused', async () => {
  const call = (authorization?: string) =>
    http(
      {
        host: '127.0.0.1',
        port: h.port(),
        method: 'POST',
        path: '/v1/lease',
        headers: authorization === undefined ? {} : { authorization },
      },
      { want: 1 },
    )
  for (const token of [undefined, 'Bearer a.1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'Bearer x', 'Basic eDp5']) {
    const reply = await call(token)
    expect(reply.status).toBe(401)
    expect(reply.json.error.code).toBe('unauthorized')
  }
})

test('bodies that are no JSON, of wrong types, or too large are refused; unknown fields are not', async () => {
  const a = h.agent('a', 1, null)
  expect((await a.post('/v1/lease', '{')).status).toBe(400)
  expect((await a.post('/v1/lease', '[]')).status).toBe(400)
  expect((await a.post('/v1/lease', { want: '1' })).json.error.message).toBe('"want" must be a whole number from 0 on, got string')
  expect((await a.post('/v1/lease', { want: -1 })).status).toBe(400)
  expect((await a.post('/v1/lease', { want: 0, beat: [1] })).status).toBe(400)
  expect((await a.post('/v1/lease', { want: 0, done: [{}] })).status).toBe(400)
  expect((await a.post('/v1/fail', { lease: 'x', error: {} })).status).toBe(400)
  expect((await a.post('/v1/lease', { want: 0, newer: true })).json).toEqual({ tasks: [], settled: [], cancel: [] })
  expect((await a.call('GET', '/v1/lease')).status).toBe(405)
  expect((await a.post('/v1/nothing', {})).status).toBe(404)
  expect((await a.post('/v1/lease', {}, { 'agentctl-session': 'x y' })).status).toBe(400)
})

test('a body over the limit is 413 without being read', async () => {
  const token = (await import('../../../engine/tokens.ts')).replicaToken('ab'.repeat(32), 'demo', { agent: 'a', replica: 9 })
  const answer = await new Promise<string>((resolve) => {
    let text = ''
    const socket = connect(h.port(), '127.0.0.1', () =>
      socket.write(`POST /v1/lease HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-length: ${MAX_BODY_BYTES + 1}\r\n\r\n`),
    )
    socket.on('data', (chunk) => {
      text += chunk.toString()
    })
    socket.on('close', () => resolve(text))
  })
  expect(answer).toContain('HTTP/1.1 413')
  expect(answer).toContain('payload_too_large')
  expect(answer).toContain(String(MAX_BODY_BYTES))
})

test('a result over 64 KiB is refused by name and the lease lives on', async () => {
  const run = await one('a')
  const a = h.agent('a')
  const {
    tasks: [task],
  } = await a.lease(1)
  const large = { text: 'x'.repeat(65_536) }
  const reply = await a.post('/v1/complete', { lease: task?.lease, result: large })
  expect(reply.status).toBe(413)
  expect(reply.json.error).toMatchObject({ code: 'payload_too_large', message: 'the result has 65547 bytes of JSON; the limit is 65536' })
  const { settled } = await a.lease(0, 0, { done: [{ lease: task?.lease, status: 'completed', result: large }] })
  expect(settled).toEqual([{ lease: task?.lease, ok: false, code: 'payload_too_large' }])
  expect((await a.post('/v1/complete', { lease: task?.lease, result: 'small' })).json).toEqual({ ok: true })
  expect((await h.ended(run)).result).toEqual({ task: ['small'] })
})

test('a lease is worth nothing in other hands, and a settlement that is repeated is known', async () => {
  const run = await one('b', { n: 1 })
  const [mine, other, stranger] = [h.agent('b', 1), h.agent('b', 2), h.agent('c', 1)]
  const {
    tasks: [task],
  } = await mine.lease(1)
  const lease = task?.lease
  for (const thief of [other, stranger]) {
    expect((await thief.post('/v1/complete', { lease, result: 'stolen' })).status).toBe(409)
    expect((await thief.post('/v1/heartbeat', { lease })).status).toBe(409)
    expect((await thief.post('/v1/progress', { lease, message: 'x' })).status).toBe(409)
    expect((await thief.lease(0, 0, { beat: [lease] })).cancel).toEqual([lease])
    expect((await thief.lease(0, 0, { done: [{ lease, status: 'failed', error: { code: 'x', message: 'y' } }] })).settled).toEqual([
      { lease, ok: false, code: 'lease_lost' },
    ])
  }
  expect((await mine.post('/v1/heartbeat', { lease })).json).toEqual({ ok: true, cancel: [] })
  expect((await mine.post('/v1/complete', { lease, result: 'mine' })).status).toBe(200)
  expect((await mine.post('/v1/complete', { lease, result: 'mine again' })).status).toBe(200)
  expect((await mine.lease(0, 0, { done: [{ lease, status: 'completed', result: 'and again' }] })).settled).toEqual([{ lease, ok: true }])
  expect((await other.post('/v1/complete', { lease, result: 'stolen' })).status).toBe(409)
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', result: 'mine', attempts: 1 })
  for (const agent of [mine, other, stranger]) agent.die()
})

test('settlements and tasks go in one request; one that cannot be read does not spoil the others', async () => {
  const run = await h.submit({ agent: 'w', type: 'count', tasks: [1, 2, 3] })
  const w = h.agent('w')
  const first = await w.lease(9)
  expect(first.tasks.map((task) => task.input)).toEqual([1, 2])
  expect(first.tasks[0]).toMatchObject({ run, agent: 'w', type: 'count', attempt: 1, deadline: null })
  const [x, y] = first.tasks.map((task) => task.lease)
  const second = await w.lease(9, 0, {
    done: [
      { lease: x, status: 'completed', result: 10 },
      { lease: y, status: 'odd' },
    ],
  })
  expect(second.settled).toEqual([
    { lease: x, ok: true },
    { lease: y, ok: false, code: 'bad_request' },
  ])
  expect(second.tasks.map((task) => task.input)).toEqual([3])
  await w.lease(0, 0, {
    done: [
      { lease: y, status: 'completed', result: 20 },
      { lease: second.tasks[0]?.lease, status: 'completed', result: 30 },
    ],
  })
  expect((await h.ended(run)).result).toEqual({ task: [10, 20, 30] })
  w.die()
})

test('tasks are dealt out evenly to replicas that wait', async () => {
  const replicas = [1, 2, 3].map((replica) => h.agent('w', replica + 10))
  const waiting = replicas.map((replica) => replica.lease(2, 5_000))
  await sleep(100)
  const run = await h.submit({ agent: 'w', type: 'task', tasks: [1, 2, 3] })
  const replies = await Promise.all(waiting)
  expect(replies.map((reply) => reply.tasks.length)).toEqual([1, 1, 1])
  await Promise.all(
    replies.map(async (reply, index) => replicas[index]?.post('/v1/complete', { lease: reply.tasks[0]?.lease, result: index })),
  )
  expect((await h.ended(run)).status).toBe('completed')
  for (const replica of replicas) replica.die()
})

test('one replica with one slot delegates three levels deep to itself', async () => {
  const agent = h.agent('self')
  agent.run(1, async (task, { client, signal }) => {
    const { depth } = task.input as { depth: number }
    return depth === 0 ? ['leaf'] : [depth, await client.delegate(task, 'down', 'self', { depth: depth - 1 }, signal)]
  })
  const run = await one('self', { depth: 3 })
  expect((await h.ended(run)).result).toEqual({ task: [[3, [2, [1, ['leaf']]]]] })
  expect([...agent.started.values()]).toEqual([1, 1, 1, 1])
  agent.die()
})

test('delegation: only to whom the file names, only so deep, one child per key; a child is seen by its parent alone', async () => {
  const run = await one('lead')
  const [lead, b, other] = [h.agent('lead'), h.agent('b', 5), h.agent('lead', 2)]
  const {
    tasks: [parent],
  } = await lead.lease(1)
  const lease = parent?.lease
  const delegate = (body: object) => lead.post('/v1/delegate', { lease, ...body })
  expect((await delegate({ key: 'k', agent: 'w', input: 1 })).json.error).toMatchObject({
    code: 'not_allowed',
    hint: 'Add it to delegates_to of "lead".',
  })
  expect((await delegate({ key: 'k', agent: 'w', input: 1 })).status).toBe(403)
  expect((await delegate({ key: '', agent: 'b', input: 1 })).status).toBe(400)
  expect((await delegate({ key: 'k', agent: 'b' })).status).toBe(400)
  expect((await delegate({ key: 'k', agent: 'b', input: 'x'.repeat(70_000) })).status).toBe(413)
  const first = await delegate({ key: 'k', agent: 'b', input: { n: 1 }, type: 'sum' })
  expect(first.json.task).toMatch(new RegExp(`^${parent?.id}\\.[0-9a-f]{16}$`))
  expect((await delegate({ key: 'k', agent: 'b', input: { n: 2 } })).json).toEqual(first.json)
  const path = `/v1/tasks/${first.json.task}`
  expect((await lead.call('GET', path)).json).toMatchObject({ id: first.json.task, agent: 'b', type: 'sum', status: 'queued' })
  for (const stranger of [b, other]) expect((await stranger.call('GET', path)).status).toBe(404)
  expect((await lead.call('GET', `/v1/tasks/${parent?.id}`)).status).toBe(404)
  const waiting = lead.call('GET', `${path}?wait_ms=5000`)
  const {
    tasks: [child],
  } = await b.lease(1)
  expect(child?.input).toEqual({ n: 1 })
  await b.post('/v1/complete', { lease: child?.lease, result: 7 })
  expect((await waiting).json).toMatchObject({ status: 'completed', result: 7, attempts: 1 })
  expect((await delegate({ key: 'k', agent: 'b', input: 9 })).json).toEqual(first.json)
  await lead.post('/v1/complete', { lease, result: 'done' })
  expect((await h.ended(run)).result).toEqual({ task: ['done'] })
  expect((await lead.call('GET', path)).status).toBe(404)
  for (const agent of [lead, b, other]) agent.die()
})

test('a task that waits for a child holds no slot', async () => {
  const run = await h.submit({ agent: 'lead', type: 'task', tasks: [1, 2, 3] })
  const lead = h.agent('lead', 7)
  const first = await lead.lease(9)
  expect(first.tasks).toHaveLength(2)
  expect((await lead.lease(9, 0)).tasks).toHaveLength(0)
  await lead.post('/v1/delegate', { lease: first.tasks[0]?.lease, key: 'k', agent: 'b', input: 1 })
  expect((await lead.lease(9, 0)).tasks).toHaveLength(1)
  await h.control('POST', `/v1/runs/${run}/cancel`, {})
  lead.die()
})

test('a failure that may be tried again is, three times in all', async () => {
  const run = await one('retry')
  const agent = h.agent('retry')
  agent.run(1, async () => {
    throw Object.assign(new Error('flaky'), { code: 'flaky', retryable: true })
  })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'failed', attempts: 3, error: { code: 'flaky', message: 'flaky' } })
  agent.die()
})

test('a replica that goes loses its tasks within a second; the third death ends the task', async () => {
  const run = await one('dying')
  const next = async (replica: number) => {
    const agent = h.agent('dying', replica)
    const {
      tasks: [task],
    } = await agent.lease(1, 5_000)
    return { agent, task }
  }
  const first = await next(1)
  expect(first.task?.attempt).toBe(1)
  const went = Date.now()
  first.agent.die()
  const second = await next(2)
  expect(second.task?.attempt).toBe(2)
  expect(Date.now() - went).toBeLessThan(1_000)
  // The zombie's result is refused.
  expect((await h.agent('dying', 1).post('/v1/complete', { lease: first.task?.lease, result: 'late' })).status).toBe(409)
  second.agent.die()
  const third = await next(3)
  third.agent.die()
  const view = await h.ended(run)
  expect(view.status).toBe('failed')
  expect(view.jobs[0]).toMatchObject({ status: 'dead', attempts: 3, error: { code: 'agent_died' } })
})

test('an agent that keeps dying with a child does not take the parked parent along', async () => {
  const run = await one('selfish', 'parent')
  const executions: unknown[] = []
  // Both go back to the head of their queue at a death, in any order.
  for (let replica = 1; replica <= 10; replica++) {
    const agent = h.agent('selfish', replica)
    const take = async (): Promise<LeasedTask> => {
      const [task] = (await agent.lease(1, 5_000)).tasks
      executions.push(task?.input)
      return task as LeasedTask
    }
    const { lease, input } = await take()
    if (input === 'parent') {
      const { json } = await agent.post('/v1/delegate', { lease, key: 'child', agent: 'selfish', input: 'child' })
      const child = (await agent.call('GET', `/v1/tasks/${json.task}`)).json
      if (child.status === 'dead') {
        expect(child.attempts).toBe(3)
        await agent.post('/v1/complete', { lease, result: 'without it' })
        break
      }
      await take()
    }
    agent.die()
  }
  expect((await h.ended(run)).result).toEqual({ task: ['without it'] })
  expect(executions.filter((input) => input === 'child')).toHaveLength(3)
})

test('a new session of the same replica ends the one before', async () => {
  const run = await one('slow')
  const old = h.agent('slow', 1)
  const {
    tasks: [task],
  } = await old.lease(1)
  const fresh = h.agent('slow', 1)
  const {
    tasks: [again],
  } = await fresh.lease(1, 3_000)
  expect(again).toMatchObject({ id: task?.id, attempt: 2 })
  expect((await old.post('/v1/complete', { lease: task?.lease, result: 'old' })).status).toBe(409)
  await fresh.post('/v1/complete', { lease: again?.lease, result: 'new' })
  expect((await h.ended(run)).result).toEqual({ task: ['new'] })
  old.die()
  fresh.die()
})

test('a session that is silent for five seconds is dead, though its sockets are open', async () => {
  const run = await one('slow')
  const frozen = h.agent('slow', 1)
  await frozen.lease(1)
  const from = Date.now()
  const other = h.agent('slow', 2)
  let again: { lease: string; attempt: number } | undefined
  while (again === undefined) again = (await other.lease(1, 1_000)).tasks[0]
  expect(again.attempt).toBe(2)
  expect(Date.now() - from).toBeGreaterThan(4_500)
  expect(Date.now() - from).toBeLessThan(7_000)
  await other.post('/v1/complete', { lease: again.lease, result: 'ok' })
  expect((await h.ended(run)).status).toBe('completed')
  frozen.die()
  other.die()
})

test('an agent without a session works with single requests, whatever connection they come on', async () => {
  const run = await one('curl', { say: 'hi' })
  const curl = h.agent('curl', 1, null)
  const close = { connection: 'close' }
  const leased = (await curl.post('/v1/lease', { want: 1, wait_ms: 1_000 }, close)).json
  await sleep(500)
  const { lease } = leased.tasks[0]
  expect((await curl.post('/v1/heartbeat', { lease }, close)).json).toEqual({ ok: true, cancel: [] })
  expect((await curl.post('/v1/progress', { lease, message: 'half', percent: 50, data: { step: 2 } }, close)).status).toBe(200)
  expect((await curl.post('/v1/progress', { lease, data: 'x'.repeat(2_048) }, close)).status).toBe(400)
  expect((await curl.post('/v1/complete', { lease, result: 'ok' }, close)).json).toEqual({ ok: true })
  expect((await h.ended(run)).result).toEqual({ task: ['ok'] })
  const events = (await h.control('GET', `/v1/runs/${run}/events`)).body
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(events.map((event) => [event.event, event.message, event.percent, event.data].filter((it) => it !== undefined))).toEqual([
    ['queued'],
    ['leased'],
    ['progress', 'half', 50, { step: 2 }],
    ['completed'],
  ])
})

test('too many open requests of one replica are refused', async () => {
  const noisy = h.agent('c', 3)
  const open = Array.from({ length: 256 }, () => noisy.lease(0, 1_500))
  await until('the 257th request is refused', 1_400, async () => (await h.agent('c', 3, null).post('/v1/lease', {})).status === 429)
  await Promise.all(open)
  noisy.die()
})
