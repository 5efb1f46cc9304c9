/** Back-pressure: a full queue, a full broker and a full disk refuse new work by name; work that is in goes on and ends. */
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import type { Json } from '../../../spec/protocol.ts'
import { harness, type Harness, until } from './harness.ts'
import { beating } from './storing.ts'

let h: Harness
const mounts: string[] = []
afterEach(async () => {
  for (const path of mounts.splice(0)) execFileSync('umount', ['--lazy', path])
  await h.stop()
})

const post = (body: object) => h.control('POST', '/v1/runs', body)
const tasks = (count: number, input: Json = 1) => ({ agent: 'work', type: 'task', tasks: Array.from({ length: count }, () => input) })
const ref = (...path: string[]) => ({ $ref: path })

test('an agent has at most max_queue unfinished tasks; a submit beyond it is refused, with the numbers', async () => {
  h = await harness()
  h.configure({ work: { concurrency: 2, work: { max_queue: 5 } }, other: {} })
  await h.start()
  const first = await post(tasks(3))
  expect(first.status).toBe(200)
  const refused = await post(tasks(3))
  expect(refused.status).toBe(429)
  expect(refused.json.error.code).toBe('AG6008')
  expect(refused.json.error.message).toContain('agent "work" has 3 unfinished tasks; 3 more are over its max_queue of 5')
  expect((await h.broker().listRuns()).length).toBe(1)
  // Many at once: no more than there is room for.
  const many = await Promise.all(Array.from({ length: 20 }, () => post(tasks(1))))
  expect(many.filter((it) => it.status === 200)).toHaveLength(2)
  expect(many.filter((it) => it.status === 429 && it.json.error.code === 'AG6008')).toHaveLength(18)
  expect((await post({ agent: 'other', type: 'task', tasks: [1, 2, 3] })).status).toBe(200)
  h.agent('work').run(2, async (task) => task.input)
  await h.ended(first.json.run)
  await until('there is room again', 10_000, async () => (await post(tasks(3))).status === 200)
})

test('a delayed run counts from its submit on, over a restart', async () => {
  h = await harness()
  h.configure({ work: { concurrency: 2, work: { max_queue: 5 } } })
  const gateway = await h.start()
  const delayed = (await post({ ...tasks(4), delay_ms: 60_000 })).json.run
  expect((await post(tasks(2))).json.error.code).toBe('AG6008')
  await gateway.close()
  await h.start()
  expect((await post(tasks(2))).json.error.code).toBe('AG6008')
  await h.control('POST', `/v1/runs/${delayed}/cancel`, {})
  expect((await post(tasks(5))).status).toBe(200)
})

test('a foreach waits for room, and fails by name when there never can be', async () => {
  h = await harness()
  const all = { agent: 'work', needs: ['plan'], with: ref('it'), foreach: { in: ref('needs', 'plan', 'result'), as: 'it' } }
  h.configure(
    { plan: {}, work: { concurrency: 2, work: { max_queue: 5 } } },
    {
      wide: { inputs: { n: { type: 'number', required: true } }, jobs: { plan: { agent: 'plan', with: ref('inputs', 'n') }, all } },
    },
  )
  await h.start()
  h.agent('plan').run(1, async (task) => Array.from({ length: Number(task.input) }, (_, index) => index))
  const never = await h.ended(await h.submit({ pipeline: 'wide', inputs: { n: 6 } }))
  expect(never.jobs[1]).toMatchObject({ status: 'failed', error: { code: 'queue_full' } })
  expect(never.jobs[1]?.error?.message).toContain('6 tasks')
  const before = await h.submit(tasks(3))
  const run = await h.submit({ pipeline: 'wide', inputs: { n: 4 } })
  await until('the plan is made', 10_000, async () => (await h.control('GET', `/v1/runs/${run}`)).json.jobs[0].status === 'completed')
  expect((await h.broker().lengths(['work']))[0]?.waiting).toBe(3)
  h.agent('work').run(2, async (task) => task.input)
  expect((await h.ended(before)).status).toBe('completed')
  const ended = await h.ended(run)
  expect(ended.jobs[1]).toMatchObject({ status: 'completed', result: [0, 1, 2, 3] })
})

test('a delegation beyond max_queue is refused with 429; a child that is there is not', async () => {
  h = await harness()
  h.configure({ lead: { delegates_to: ['work'] }, work: { work: { max_queue: 2 } } })
  await h.start()
  const lead = h.agent('lead')
  await h.submit({ agent: 'lead', type: 'task', tasks: [1] })
  const {
    tasks: [task],
  } = await lead.lease(1)
  const delegate = (key: string) => lead.post('/v1/delegate', { lease: task?.lease, key, agent: 'work', input: 1 })
  const first = await delegate('a')
  expect([first.status, (await delegate('b')).status]).toEqual([200, 200])
  const refused = await delegate('c')
  expect(refused.status).toBe(429)
  expect(refused.json.error.code).toBe('AG6008')
  expect((await delegate('a')).json).toEqual(first.json)
})

test('a broker that is nearly full takes no more work; all that it took completes, and then it takes more', {
  timeout: 120_000,
}, async () => {
  h = await harness({ flags: ['--maxmemory', '16mb'] })
  h.configure({ work: { concurrency: 8 }, lead: { delegates_to: ['work'] } })
  await h.start()
  const lead = h.agent('lead')
  const parent = await h.submit({ agent: 'lead', type: 'task', tasks: [1] })
  const {
    tasks: [held],
  } = await lead.lease(1)
  // Its holder is silent for as long as all this takes, which may be more than the 5 s of a session.
  using _ = beating(lead, held?.lease ?? '')
  // What can never fit is refused before anything of it is written.
  const huge = await post(tasks(600, 'x'.repeat(20_000)))
  expect(huge.status).toBe(503)
  expect(huge.json.error.code).toBe('AG6009')
  expect(huge.json.error.message).toContain('of 16.0 MiB')
  expect(await h.broker().listRuns()).toEqual([parent])

  const accepted: string[] = []
  const refused = await until('it is full', 60_000, async () => {
    const reply = await post(tasks(20, 'x'.repeat(8_000)))
    if (reply.status === 200) accepted.push(reply.json.run)
    return reply.status === 200 ? null : reply
  })
  expect([refused.status, refused.json.error.code]).toEqual([503, 'AG6009'])
  expect(accepted.length).toBeGreaterThan(10)
  // A smaller one may fit yet; in the end delegations are refused too.
  let key = 0
  const delegated = await until('delegations are refused', 60_000, async () => {
    const reply = await lead.post('/v1/delegate', { lease: held?.lease, key: `${key++}`, agent: 'work', input: 'y'.repeat(60_000) })
    return reply.status === 200 ? null : reply
  })
  expect([delegated.status, delegated.json.error.code]).toEqual([503, 'AG6009'])
  const full = await h.broker().memory()
  expect(full.used).toBeGreaterThan(0.6 * full.max)
  expect(full.used).toBeLessThan(0.82 * full.max)

  // Beats, retries, results go on.
  expect((await lead.post('/v1/heartbeat', { lease: held?.lease })).status).toBe(200)
  const failed = new Set<string>()
  h.agent('work').run(8, async (task) => {
    if (task.id.endsWith('.0') && !failed.has(task.id)) {
      failed.add(task.id)
      throw Object.assign(new Error('once more'), { code: 'busy', retryable: true })
    }
    return 'r'.repeat(1_000)
  })
  for (const run of accepted) {
    const view = await h.ended(run, 60_000)
    expect(view.status).toBe('completed')
    expect(view.jobs).toHaveLength(20)
    expect(view.jobs.every((job) => job.result === 'r'.repeat(1_000))).toBe(true)
  }
  expect(failed.size).toBe(accepted.length)
  expect((await lead.post('/v1/complete', { lease: held?.lease, result: 1 })).status).toBe(200)
  const again = await until('it takes work again', 30_000, async () => {
    const reply = await post(tasks(20, 'x'.repeat(8_000)))
    return reply.status === 200 ? (reply.json.run as string) : null
  })
  expect((await h.ended(again)).status).toBe('completed')
})

test('a disk below the floor: new work is refused, what is under way ends', async () => {
  h = await harness()
  h.configure({ work: {} })
  const gateway = await h.start()
  const run = await h.submit(tasks(1) as never)
  await gateway.close()
  await h.start({ limits: { minFreeBytes: Number.MAX_SAFE_INTEGER } })
  const refused = await post(tasks(1))
  expect([refused.status, refused.json.error.code]).toEqual([503, 'AG6009'])
  expect(refused.json.error.message).toContain('disk')
  h.agent('work').run(1, async () => 'well')
  expect((await h.ended(run)).result).toEqual({ task: ['well'] })
})

/** A disk of its own for what the gateway keeps; null: why there is none. */
function smallDisk(path: string, bytes: number): string | null {
  if (process.getuid?.() !== 0) return 'to mount a small disk needs root'
  mkdirSync(path)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path], { stdio: 'pipe' })
    mounts.push(path)
    return null
  } catch (error) {
    return `no small disk can be mounted here: ${String((error as { stderr?: Buffer }).stderr ?? error)}`
  }
}

/** Until the disk has no block left. */
function fill(file: string): void {
  const block = Buffer.alloc(65_536, 120)
  for (let size = block.length; size >= 4_096; ) {
    try {
      appendFileSync(file, block.subarray(0, size))
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC')
      size /= 2
    }
  }
}

test('a disk that is full: new work is refused, what is under way goes on and ends, and when it is freed nothing is missing', async (context) => {
  h = await harness()
  const state = join(h.directory, 'state')
  const reason = smallDisk(state, 16_777_216)
  if (reason !== null) return context.skip(reason)
  h.configure({ work: { concurrency: 2, delegates_to: ['other'] }, other: {} })
  const limits = { minFreeBytes: 4_194_304 }
  let gateway = await h.start({ limits })
  const work = h.agent('work')
  const runs = [await h.submit(tasks(1) as never), await h.submit(tasks(2) as never)]
  const [held] = (await work.lease(1)).tasks
  fill(join(state, 'full'))
  const refused = await until('it is refused', 5_000, async () => {
    const reply = await post(tasks(1))
    if (reply.status === 200) runs.push(reply.json.run)
    return reply.status === 200 ? null : reply
  })
  expect([refused.status, refused.json.error.code]).toEqual([503, 'AG6009'])
  expect(refused.json.error.message).toContain('the disk of the state volume has 0.0 MiB free; work is taken from 4.0 MiB on')
  const delegated = await work.post('/v1/delegate', { lease: held?.lease, key: 'a', agent: 'other', input: 1 })
  expect([delegated.status, delegated.json.error.code]).toEqual([503, 'AG6009'])

  // What it holds ends, and so does what waits, over a start of the gateway too.
  expect((await work.post('/v1/heartbeat', { lease: held?.lease })).status).toBe(200)
  expect((await work.post('/v1/complete', { lease: held?.lease, result: 'held' })).status).toBe(200)
  await gateway.close()
  gateway = await h.start({ limits })
  expect((await post(tasks(1))).json.error.code).toBe('AG6009')
  work.run(2, async () => 'well')
  for (const run of runs) expect((await h.ended(run)).status).toBe('completed')
  expect(readdirSync(join(state, 'archive')).filter((name) => name.endsWith('.gz'))).toEqual([])

  rmSync(join(state, 'full'))
  const more = await until('work is taken again', 10_000, async () => {
    const reply = await post(tasks(1))
    return reply.status === 200 ? (reply.json.run as string) : null
  })
  expect((await h.ended(more)).status).toBe('completed')
  // What could not be written then is.
  await until('all are in the archive', 40_000, () => {
    const names = readdirSync(join(state, 'archive'))
    return [...runs, more].every((run) => names.includes(`${run}.json.gz`))
  })
  expect((await h.control('GET', '/v1/health')).json).toMatchObject({ ok: true, broker_loss: null })
  await gateway.close()
  await h.start({ limits })
  expect((await h.control('GET', '/v1/health')).json.broker_loss).toBeNull()
  for (const run of [...runs, more]) expect((await h.control('GET', `/v1/runs/${run}`)).json.status).toBe('completed')
})
