import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { LeasedTask } from '../../../spec/protocol.ts'
import { type AnyJson, type Client, harness, type Harness, until, type Work } from './harness.ts'

let h: Harness
const ref = (...path: string[]) => ({ $ref: path })
beforeEach(async () => {
  h = await harness()
  h.configure(
    { plan: {}, work: { concurrency: 2, delegates_to: ['helper'] }, helper: { concurrency: 3 }, report: {} },
    {
      audit: {
        inputs: { count: { type: 'number', required: true } },
        jobs: {
          plan: { agent: 'plan', with: { count: ref('inputs', 'count') } },
          scan: {
            agent: 'work',
            needs: ['plan'],
            with: { part: ref('part') },
            foreach: { in: ref('needs', 'plan', 'result'), as: 'part' },
          },
          report: { agent: 'report', needs: ['scan'], with: { scanned: ref('needs', 'scan', 'result') } },
        },
      },
    },
  )
})
afterEach(() => h.stop())

const pause = (ms: number, signal: AbortSignal): Promise<void> => sleep(ms, undefined, { signal }).catch(() => {})

/** plan → foreach scan, each of which delegates two helpers → report. Every part takes long enough to be hit. */
function fleet(): readonly Client[] {
  const started: Client[] = []
  const add = (name: string, replica: number, slots: number, work: Work): void => {
    const client = h.agent(name, replica)
    client.run(slots, work)
    started.push(client)
  }
  add('plan', 1, 1, async (task, { signal }) => {
    await pause(30, signal)
    return Array.from({ length: (task.input as { count: number }).count }, (_, index) => index + 1)
  })
  const scan: Work = async (task, { client, signal }) => {
    const { part } = task.input as { part: number }
    await pause(20, signal)
    const children = await Promise.all(
      [1, 2].map((factor) => client.delegate(task, `times-${factor}`, 'helper', { value: part * factor }, signal)),
    )
    return (children as number[]).reduce((sum, it) => sum + it, 0)
  }
  for (const replica of [1, 2, 3]) add('work', replica, 2, scan)
  for (const replica of [1, 2]) {
    add('helper', replica, 3, async (task, { signal }) => {
      await pause(40, signal)
      return (task.input as { value: number }).value * 10
    })
  }
  add('report', 1, 1, async (task) => (task.input as { scanned: number[] }).scanned)
  return started
}
const expected = (count: number): number[] => Array.from({ length: count }, (_, index) => (index + 1) * 30)

function executions(clients: readonly Client[]): Map<string, number> {
  const all = new Map<string, number>()
  for (const { started } of clients) for (const [id, times] of started) all.set(id, (all.get(id) ?? 0) + times)
  return all
}

test('a gateway that is killed again and again loses nothing and runs nothing twice', async () => {
  let gateway = h.spawn('--child')
  await h.healthy()
  const clients = fleet()
  const count = 40
  const run = await h.submit({ pipeline: 'audit', inputs: { count } })
  let kills = 0
  let over = false
  const ending = h.ended(run, 50_000).finally(() => {
    over = true
  })
  for (let wait = 0; !over && kills < 8; wait = 50 + Math.random() * 350) {
    await sleep(wait)
    if (over) break
    const gone = new Promise((resolve) => gateway.once('exit', resolve))
    gateway.kill('SIGKILL')
    await gone
    kills += 1
    gateway = h.spawn('--child')
    await h.healthy()
  }
  const view = await ending
  expect(kills).toBeGreaterThan(3)
  expect(view.status).toBe('completed')
  expect(view.result).toEqual({ report: expected(count) })
  const all = executions(clients)
  expect(all.size).toBe(2 + count * 3)
  expect([...all.entries()].filter(([, times]) => times !== 1)).toEqual([])
  expect(view.jobs.map((job) => job.attempts)).toEqual([1, 1, 1])
}, 90_000)

test('a broker that is killed and comes back: work goes on within five seconds, nothing is lost or run twice', async () => {
  h.spawn('--child')
  await h.healthy()
  const clients = fleet()
  const count = 60
  const run = await h.submit({ pipeline: 'audit', inputs: { count } })
  for (const away of [300, 2_500]) {
    await sleep(400)
    await h.redis.kill()
    await sleep(away)
    const before = executions(clients).size
    const back = Date.now()
    await h.redis.restart()
    await until('work goes on', 5_000, () => executions(clients).size > before)
    expect(Date.now() - back).toBeLessThan(5_000)
  }
  const view = await h.ended(run, 40_000)
  expect(view.result).toEqual({ report: expected(count) })
  expect([...executions(clients).entries()].filter(([, times]) => times !== 1)).toEqual([])
}, 90_000)

test('a broker that is away for longer than agents wait punishes nobody', async () => {
  h.spawn('--child')
  await h.healthy()
  const work = h.agent('work')
  work.run(2, async (_, { signal }) => {
    await pause(800, signal)
    return 'ok'
  })
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [1, 2] })
  await until('both run', 5_000, () => work.started.size === 2)
  await h.redis.kill()
  await sleep(9_000)
  await h.redis.restart()
  const view = await h.ended(run)
  expect(view).toMatchObject({ status: 'completed', result: { task: ['ok', 'ok'] } })
  expect(view.jobs.map((job) => job.attempts)).toEqual([1, 1])
  expect([...work.started.values()]).toEqual([1, 1])
}, 60_000)

test('a broker that freezes with its connections open: they are made anew, and what it then does twice is seen once', async () => {
  h.spawn('--child')
  await h.healthy()
  const clients = fleet()
  const count = 40
  const run = await h.submit({ pipeline: 'audit', inputs: { count } })
  await sleep(400)
  await h.redis.freeze()
  await sleep(12_000)
  await h.redis.thaw()
  expect((await h.ended(run, 30_000)).result).toEqual({ report: expected(count) })
  expect([...executions(clients).entries()].filter(([, times]) => times !== 1)).toEqual([])
}, 60_000)

test('agents that die in the middle: the result is the same, each task ends once', async () => {
  await h.start()
  const clients = [...fleet()]
  const count = 30
  const run = await h.submit({ pipeline: 'audit', inputs: { count } })
  for (let replica = 1; replica <= 3; replica++) {
    await sleep(250)
    const victim = clients[replica] as Client
    victim.die()
    const again = h.agent('work', replica)
    again.run(2, async (task, { client, signal }) => {
      const { part } = task.input as { part: number }
      const children = await Promise.all(
        [1, 2].map((factor) => client.delegate(task, `times-${factor}`, 'helper', { value: part * factor }, signal)),
      )
      return (children as number[]).reduce((sum, it) => sum + it, 0)
    })
  }
  const view = await h.ended(run, 30_000)
  expect(view.result).toEqual({ report: expected(count) })
  // Children are made under keys: no retry of a parent runs them twice.
  const helpers = executions(clients.slice(4, 6))
  expect(helpers.size).toBe(2 * count)
  expect([...helpers.values()].every((times) => times === 1)).toBe(true)
}, 60_000)

test('a replica that does not come back to a new gateway loses its tasks after the grace; that is not its death', async () => {
  const first = h.spawn('--child')
  await h.healthy()
  const work = h.agent('work')
  const run = await h.submit({ agent: 'work', type: 'task', tasks: ['x'] })
  const {
    tasks: [held],
  } = await work.lease(1)
  first.kill('SIGKILL')
  work.die()
  await sleep(200)
  h.spawn('--child')
  await h.healthy()
  const back = Date.now()
  const other = h.agent('work', 2)
  let task: LeasedTask | undefined
  while (task === undefined) task = (await other.lease(1, 1_000)).tasks[0]
  expect(task).toMatchObject({ id: held?.id, attempt: 2 })
  expect(Date.now() - back).toBeGreaterThan(8_000)
  expect(Date.now() - back).toBeLessThan(13_000)
  await other.post('/v1/complete', { lease: task.lease, result: 'done' })
  expect((await h.ended(run)).result).toEqual({ task: ['done'] })
}, 60_000)

test('a session whose answer was lost with its gateway gets the task again, as the same execution', async () => {
  const first = h.spawn('--child')
  await h.healthy()
  const session = 'session-that-stays'
  const run = await h.submit({ agent: 'work', type: 'task', tasks: ['x'] })
  const {
    tasks: [lost],
  } = await h.agent('work', 1, session).lease(1)
  first.kill('SIGKILL')
  await sleep(200)
  h.spawn('--child')
  await h.healthy()
  // It never read the answer: its beats do not name the lease.
  const work = h.agent('work', 1, session)
  let task: LeasedTask | undefined
  while (task === undefined) {
    task = (await work.lease(1, 0, { beat: [] })).tasks[0]
    await sleep(500)
  }
  expect(task).toEqual(lost)
  await work.post('/v1/complete', { lease: task.lease, result: 'done' })
  expect((await h.ended(run)).jobs[0]).toMatchObject({ status: 'completed', attempts: 1 })
}, 60_000)

test('the supervisor starts the gateway again, and ends with it at a SIGTERM within two seconds', async () => {
  const supervisor = h.spawn()
  await h.healthy()
  const child = Number(readFileSync(`/proc/${supervisor.pid}/task/${supervisor.pid}/children`, 'utf8').trim())
  const work = h.agent('work')
  const waiting = work.lease(1, 20_000).catch(() => null)
  process.kill(child, 'SIGKILL')
  await waiting
  await until('it is back', 5_000, async () => (await h.control('GET', '/v1/health').catch(() => null))?.status === 200)
  const answered = h.agent('work', 2).lease(1, 20_000)
  await sleep(200)
  const from = Date.now()
  const gone = new Promise<number | null>((resolve) => supervisor.once('exit', resolve))
  supervisor.kill('SIGTERM')
  expect(await answered).toEqual({ tasks: [], settled: [], cancel: [] })
  expect(await gone).toBe(0)
  expect(Date.now() - from).toBeLessThan(2_000)
}, 60_000)

test('a gateway that starts before its broker, its record and its secrets waits for them', async () => {
  await h.redis.kill()
  h.spawn('--child')
  await h.healthy()
  const early = await h.agent('work').post('/v1/lease', { want: 1, wait_ms: 0 })
  expect(early.status).toBe(503)
  expect(early.json.error.code).toBe('unavailable')
  await h.redis.restart()
  const work = h.agent('work', 2)
  work.run(1, async () => 'ok')
  expect((await h.ended(await h.submit({ agent: 'work', type: 'task', tasks: [1] }))).status).toBe('completed')
}, 60_000)

test("agents' spans go out under the name that the token gives, and a dead receiver delays nothing", async () => {
  const received: AnyJson[] = []
  const receiver = createServer((request, response) => {
    let text = ''
    request.on('data', (chunk) => {
      text += chunk
    })
    request.on('end', () => {
      received.push(JSON.parse(text))
      response.end('{}')
    })
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => receiver.once('listening', resolve))
  const { port } = receiver.address() as { port: number }
  h.configure({ work: {} }, {}, 'http://receiver:4318')
  await h.start({ traces: `http://127.0.0.1:${port}/v1/traces` })
  const work = h.agent('work', 3)
  const span = { name: 'x', traceId: '1'.repeat(32), spanId: '2'.repeat(16) }
  const attributes = [
    { key: 'service.name', value: { stringValue: 'gateway' } },
    { key: 'agentctl.project', value: { stringValue: 'other' } },
    { key: 'mine', value: { stringValue: 'kept' } },
  ]
  expect((await work.post('/v1/traces', { resourceSpans: [{ resource: { attributes }, scopeSpans: [{ spans: [span] }] }] })).status).toBe(
    200,
  )
  expect((await work.post('/v1/traces', { resourceSpans: 1 })).status).toBe(400)
  await until('it arrives', 3_000, () => received.length === 1)
  const [{ resource, scopeSpans }] = received[0].resourceSpans
  expect(scopeSpans[0].spans).toEqual([span])
  const values = Object.fromEntries(resource.attributes.map((it: AnyJson) => [it.key, it.value.stringValue]))
  expect(values).toEqual({
    mine: 'kept',
    'service.name': 'work',
    'service.instance.id': '3',
    'service.namespace': 'demo',
    'agentctl.project': 'demo',
  })
  receiver.closeAllConnections()
  await new Promise((resolve) => receiver.close(resolve))
  for (let index = 0; index < 20; index++) {
    const from = Date.now()
    expect((await work.post('/v1/traces', { resourceSpans: [] })).status).toBe(200)
    expect(Date.now() - from).toBeLessThan(500)
  }
})
