/** Who is next: priorities, limits, rates, turns of keys, delays; over deaths and restarts. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DEFAULT_WORK, type RetryPolicy } from '../../../spec/model.ts'
import type { Explanation, Json, LeasedTask } from '../../../spec/protocol.ts'
import { type Client, harness, type Harness, until, type Work } from './harness.ts'

let world: Harness
beforeEach(async () => {
  world = await harness()
})
afterEach(async () => {
  await world.stop()
})

const RETRY: RetryPolicy = { ...DEFAULT_WORK.retry, attempts: 5, delay_ms: 30, max_delay_ms: 30, jitter: 0 }
const inputs = (count: number, of: (n: number) => Json): Json[] => Array.from({ length: count }, (_, n) => of(n))
const submit = (tasks: readonly Json[], more: object = {}, agent = 'work'): Promise<string> =>
  world.submit({ agent, type: 'task', tasks, ...more })
const explain = async (id: string): Promise<Explanation> => (await world.control('GET', `/v1/tasks/${id}/explain`)).json
const codes = async (id: string): Promise<string[]> => (await explain(id)).reasons.map((it) => it.code)
const nameOf = (task: LeasedTask): string => (task.input as { readonly name: string }).name

/** One slot: each task ends with the request that asks for the next. */
async function oneByOne(client: Client, count: number): Promise<string[]> {
  const order: string[] = []
  let done: object[] = []
  while (order.length < count) {
    const { tasks } = await client.lease(1, 2_000, { done })
    done = tasks.map((task) => ({ lease: task.lease, status: 'completed', result: null }))
    order.push(...tasks.map(nameOf))
  }
  await client.lease(0, 0, { done })
  return order
}

/** How many executions of each group there were at once, at most. */
class Meter {
  readonly most = new Map<string, number>()
  readonly order: string[] = []
  readonly #now = new Map<string, number>()

  work(group: (task: LeasedTask) => string, ms: number, then: (task: LeasedTask) => Json = () => null): Work {
    return async (task, { signal }) => {
      const name = group(task)
      this.order.push(name)
      this.#count(name, 1)
      await sleep(ms, undefined, { signal }).catch(() => {})
      this.#count(name, -1)
      return then(task)
    }
  }

  #count(name: string, change: number): void {
    const now = (this.#now.get(name) ?? 0) + change
    this.#now.set(name, now)
    this.most.set(name, Math.max(this.most.get(name) ?? 0, now))
  }
}

test('a first task with a priority puts 1,000 that wait in order; equal ones stay in order of arrival', async () => {
  world.configure({ work: {} })
  await world.start()
  const plain = inputs(1_000, (n) => ({ name: `p${n}` }))
  const runs = [await submit(plain)]
  const agent = world.agent('work')
  const [first] = (await agent.lease(1)).tasks
  expect(first).toBeDefined()
  runs.push(await submit([{ name: 'low' }], { priority: -3 }), await submit([{ name: 'high' }, { name: 'high2' }], { priority: 3 }))
  runs.push(await submit([{ name: 'late' }]), await submit([{ name: 'top' }], { priority: 9 }))
  const [before] = (await explain(`${runs[1]}.task.0`)).reasons
  expect(before).toMatchObject({ code: 'slots_busy' })
  await agent.post('/v1/lease', { want: 0, done: [{ lease: first?.lease, status: 'completed', result: null }] })
  const order = await oneByOne(agent, 1_004)
  expect(order).toEqual(['top', 'high', 'high2', ...plain.slice(1).map((it) => (it as { readonly name: string }).name), 'late', 'low'])
  for (const run of runs) expect((await world.ended(run)).status).toBe('completed')
  // The queue has run empty: arrival counts again, in the plain line.
  await submit([{ name: 'a' }, { name: 'b' }])
  expect((await world.broker().position({ queue: 'work', id: `${await submit([{ name: 'c' }])}.task.0` })) ?? -1).toBe(2)
  expect(await oneByOne(agent, 3)).toEqual(['a', 'b', 'c'])
})

test('the order of priorities outlives the gateway', async () => {
  world.configure({ work: {} })
  const first = await world.start()
  await submit([{ name: 'p0' }, { name: 'p1' }])
  await submit([{ name: 'high' }], { priority: 1 })
  await first.close()
  await world.start()
  await world.healthy()
  await submit([{ name: 'p2' }])
  await submit([{ name: 'higher' }], { priority: 2 })
  expect(await oneByOne(world.agent('work'), 5)).toEqual(['higher', 'high', 'p0', 'p1', 'p2'])
})

test('`total` holds over all replicas of an agent, and is used to the full', async () => {
  world.configure({ work: { concurrency: 4, work: { total: 3 } } })
  await world.start()
  const meter = new Meter()
  for (const replica of [1, 2])
    world.agent('work', replica).run(
      4,
      meter.work(() => 'all', 10),
    )
  const run = await submit(inputs(150, (n) => n))
  await until('the limit is said', 10_000, async () => {
    const reasons = await Promise.all(inputs(150, (n) => n).map((n) => codes(`${run}.task.${n}`)))
    return reasons.some((it) => it[0] === 'agent_total')
  })
  expect((await world.ended(run)).status).toBe('completed')
  expect(meter.most.get('all')).toBe(3)
})

test('the concurrency of the project holds over agents, and goes round: few tasks do not wait for the end of many', async () => {
  world.configure({ many: { concurrency: 5 }, few: { concurrency: 5 } })
  const path = join(world.directory, 'record.json')
  const record = JSON.parse(readFileSync(path, 'utf8'))
  record.project.broker = { url: null, password: null, ca: null, durability: 'normal', concurrency: 2 }
  writeFileSync(path, JSON.stringify(record))
  await world.start()
  const meter = new Meter()
  const order: string[] = []
  const work: Work = (task, context) => {
    order.push(task.agent)
    return meter.work(() => 'all', 5)(task, context)
  }
  for (const name of ['many', 'few']) world.agent(name).run(5, work)
  const many = await submit(
    inputs(400, (n) => n),
    {},
    'many',
  )
  await until('many have begun', 10_000, () => order.length >= 20)
  const from = order.length
  const few = await submit(
    inputs(5, (n) => n),
    {},
    'few',
  )
  expect((await world.ended(few)).status).toBe('completed')
  expect((await world.ended(many)).status).toBe('completed')
  expect(meter.most.get('all')).toBe(2)
  // Each free place goes to the next queue: 5 of each, and what was on its way.
  expect(order.lastIndexOf('few') - from).toBeLessThan(30)
})

test('a rate: never more than `max` start in a window, also over a restart', async () => {
  world.configure({ work: { concurrency: 20, work: { rate: { max: 8, per_ms: 600 } } } })
  const first = await world.start()
  world.agent('work').run(20, async () => null)
  const run = await submit(inputs(40, (n) => n))
  await until('it is said', 10_000, async () => (await codes(`${run}.task.39`)).includes('rate_limit'))
  await first.close()
  await world.start()
  expect((await world.ended(run)).status).toBe('completed')
  const states = await world.broker().read(inputs(40, (n) => n).map((n) => ({ queue: 'work', id: `${run}.task.${n}` })))
  const starts = states.map((it) => it?.fetched_ms ?? 0).sort((a, b) => a - b)
  // The window is counted by Redis, the start by the gateway, before it asks: a little earlier.
  for (let at = 8; at < starts.length; at += 8) expect((starts[at] ?? 0) - (starts[at - 8] ?? 0)).toBeGreaterThan(600 - 150)
})

test('a key with 5,000 tasks does not keep another with 5 waiting', async () => {
  world.configure({ work: { concurrency: 2, work: { key: ['input', 'tenant'] } } })
  await world.start()
  const meter = new Meter()
  for (let at = 0; at < 5; at++) await submit(inputs(1_000, () => ({ tenant: 'noisy' })))
  world.agent('work').run(
    2,
    meter.work((task) => (task.input as { readonly tenant: string }).tenant, 1),
  )
  await until('the noisy one has begun', 20_000, () => meter.order.length >= 20)
  const from = meter.order.length
  const quiet = await submit(inputs(5, () => ({ tenant: 'quiet' })))
  expect((await world.ended(quiet)).status).toBe('completed')
  // Its turns alternate with those of the other: 5 of each, and the windows that were full when it came.
  expect(meter.order.lastIndexOf('quiet') - from).toBeLessThan(40)
  expect(meter.order.length).toBeLessThan(4_000)
})

test('`per_key` is never exceeded, whoever dies: replicas, the gateway, executions that are tried again', async () => {
  world.configure({ work: { concurrency: 4, replicas: 3, work: { key: ['input', 'tenant'], per_key: 2, retry: RETRY } } })
  let gateway = world.spawn()
  await world.healthy()
  const meter = new Meter()
  const work = meter.work(
    (task) => (task.input as { readonly tenant: string }).tenant,
    8,
    (task) => {
      const { n } = task.input as { readonly n: number }
      if (n % 9 === 0 && task.attempt === 1) throw Object.assign(new Error('again'), { code: 'again', retryable: true })
      return n
    },
  )
  const clients = [1, 2, 3].map((replica) => world.agent('work', replica))
  for (const client of clients) client.run(4, work)
  const runs = [0, 1].map((half) => submit(inputs(300, (n) => ({ n, tenant: `k${(n + half) % 5}` }))))
  const ids = await Promise.all(runs)
  for (let round = 0; round < 3; round++) {
    await until('some more were executed', 20_000, () => meter.order.length >= 60 * (round + 1))
    clients[round]?.die()
    clients[round] = world.agent('work', round + 1)
    clients[round]?.run(4, work)
    await until('and more', 20_000, () => meter.order.length >= 60 * (round + 1) + 30)
    const gone = new Promise((resolve) => gateway.once('exit', resolve))
    gateway.kill('SIGKILL')
    await gone
    gateway = world.spawn()
    await world.healthy()
  }
  for (const run of ids) expect((await world.ended(run, 60_000)).status).toBe('completed')
  expect([...meter.most.keys()].sort()).toEqual(['k0', 'k1', 'k2', 'k3', 'k4'])
  for (const most of meter.most.values()) expect(most).toBeLessThanOrEqual(2)
})

test('self-delegation with `per_key: 1` on one slot, three deep, does not wait for itself', async () => {
  world.configure({ work: { delegates_to: ['work'], work: { key: ['run'], per_key: 1 } } })
  await world.start()
  const agent = world.agent('work')
  const meter = new Meter()
  agent.run(1, async (task, context) => {
    const { depth } = task.input as { readonly depth: number }
    await meter.work(() => 'all', 5)(task, context)
    if (depth === 3) return depth
    const made = await Promise.all(['a', 'b'].map((key) => agent.delegate(task, key, 'work', { depth: depth + 1 }, context.signal)))
    return made.reduce((sum: number, it) => sum + Number(it), 0)
  })
  const runs = [await submit([{ depth: 0 }]), await submit([{ depth: 0 }])]
  for (const run of runs) expect(await world.ended(run)).toMatchObject({ status: 'completed', jobs: [{ result: 24 }] })
  expect(meter.most.get('all')).toBe(1)
})

test('a key waits for its own kind only, and it is said for what', async () => {
  world.configure({ work: { concurrency: 3, work: { key: ['input', 'tenant'], per_key: 1 } } })
  await world.start()
  const run = await submit([{ tenant: 'a' }, { tenant: 'a' }, { tenant: 'a' }, { tenant: 'b' }])
  expect(await codes(`${run}.task.0`)).toEqual(['no_replica'])
  const agent = world.agent('work')
  const { tasks } = await agent.lease(3)
  expect(tasks.map((it) => (it.input as { readonly tenant: string }).tenant).sort()).toEqual(['a', 'b'])
  expect(await codes(`${run}.task.0`)).toEqual(['running'])
  const [reason] = (await explain(`${run}.task.2`)).reasons
  expect(reason).toMatchObject({ code: 'per_key', ref: 'a' })
  expect(reason?.message).toContain('1 of at most 1')
  await agent.lease(0, 0, { done: tasks.map(({ lease }) => ({ lease, status: 'completed', result: null })) })
  expect((await agent.lease(3)).tasks.map((it) => it.id)).toEqual([`${run}.task.1`])
  // A cancelled one makes place too.
  const other = await submit([{ tenant: 'a' }])
  await world.control('POST', `/v1/runs/${run}/cancel`)
  expect(await codes(`${run}.task.2`)).toEqual(['ended'])
  const left = (await agent.lease(0, 0)).cancel
  await agent.lease(0, 0, { done: left.map((lease) => ({ lease, status: 'failed', error: { code: 'cancelled', message: '' } })) })
  expect((await agent.lease(3)).tasks.map((it) => it.id)).toEqual([`${other}.task.0`])
})

test('the pause before a retry is kept, with a key and without, also over a restart of the gateway', async () => {
  const retry = { ...RETRY, delay_ms: 900, max_delay_ms: 900 }
  world.configure({ work: { concurrency: 4, work: { retry } }, keyed: { concurrency: 4, work: { retry, key: ['run'], per_key: 1 } } })
  const first = await world.start()
  const failed = new Map<string, number>()
  const again = new Map<string, number>()
  const work: Work = async (task) => {
    if (task.attempt > 1) {
      again.set(task.id, Date.now())
      return null
    }
    failed.set(task.id, Date.now())
    throw Object.assign(new Error('not yet'), { code: 'busy', retryable: true })
  }
  for (const name of ['work', 'keyed']) world.agent(name).run(4, work)
  const runs = [
    await submit(inputs(3, (n) => n)),
    await submit(
      inputs(3, (n) => n),
      {},
      'keyed',
    ),
  ]
  await until('each has failed once', 10_000, () => failed.size === 6 || (failed.size >= 4 && again.size > 0))
  const waits = await until('it is said', 5_000, async () => {
    const reasons = (await explain(`${runs[0]}.task.0`)).reasons
    return reasons[0]?.code === 'retry_delay' || again.size > 0 ? reasons : null
  })
  expect(waits.length).toBeGreaterThan(0)
  await first.close()
  await world.start()
  for (const run of runs) expect((await world.ended(run)).status).toBe('completed')
  expect(again.size).toBe(6)
  for (const [id, at] of again) expect(at - (failed.get(id) ?? 0)).toBeGreaterThanOrEqual(900)
})

test('a delayed run starts no task before its time', async () => {
  world.configure({ work: {} })
  await world.start()
  const started: number[] = []
  world.agent('work').run(1, async () => started.push(Date.now()))
  const from = Date.now()
  const run = await submit([1, 2], { delay_ms: 700 })
  expect((await world.ended(run)).status).toBe('completed')
  expect(started).toHaveLength(2)
  for (const at of started) expect(at - from).toBeGreaterThanOrEqual(700)
})

test('a task that uses none of this costs the broker its two scripts and nothing else', async () => {
  world.configure({ work: { concurrency: 10 } })
  await world.start()
  const agent = world.agent('work')
  const client = new Redis({ host: world.redis.host, port: world.redis.port, password: world.redis.password })
  const calls = async (): Promise<number> => {
    const stats = await client.info('commandstats')
    const of = (name: string): number => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0)
    return of('evalsha') + of('eval')
  }
  await submit(inputs(20, (n) => ({ name: `${n}` })))
  await oneByOne(agent, 20)
  const before = await calls()
  const run = await submit(inputs(500, (n) => ({ name: `${n}` })))
  await oneByOne(agent, 500)
  expect((await world.ended(run)).status).toBe('completed')
  const after = await calls()
  client.disconnect()
  expect(after - before).toBeGreaterThanOrEqual(1_000)
  // 500 added, 500 ended with the next one fetched; and the fetch of the first.
  expect(after - before).toBeLessThan(1_010)
})
