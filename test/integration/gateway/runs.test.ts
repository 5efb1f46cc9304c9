import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { newRunId } from '../../../engine/ulid.ts'
import { harness, type Harness, until } from './harness.ts'

let h: Harness
const ref = (...path: string[]) => ({ $ref: path })
beforeAll(async () => {
  h = await harness()
  h.configure(
    { plan: {}, work: { concurrency: 4 }, report: {}, idle: { concurrency: 2 } },
    {
      audit: {
        inputs: { count: { type: 'number', required: true }, tag: { type: 'string', required: false, default: 'x' } },
        jobs: {
          plan: { agent: 'plan', with: { count: ref('inputs', 'count') } },
          scan: {
            agent: 'work',
            needs: ['plan'],
            with: { part: ref('part'), tag: ref('inputs', 'tag') },
            foreach: { in: ref('needs', 'plan', 'result', 'parts'), as: 'part' },
          },
          report: {
            agent: 'report',
            needs: ['plan', 'scan'],
            with: { scanned: ref('needs', 'scan', 'result'), total: ref('needs', 'plan', 'result', 'parts') },
          },
        },
      },
      wide: {
        inputs: { n: { type: 'number', required: true } },
        jobs: {
          plan: { agent: 'plan', with: { count: ref('inputs', 'n') } },
          all: { agent: 'work', needs: ['plan'], with: ref('it'), foreach: { in: ref('needs', 'plan', 'result', 'parts'), as: 'it' } },
        },
      },
      blind: {
        jobs: {
          plan: { agent: 'plan', with: { count: 1 } },
          next: { agent: 'work', needs: ['plan'], with: { x: ref('needs', 'plan', 'result', 'nothing') } },
        },
      },
      big: {
        jobs: {
          plan: { agent: 'plan', with: { bytes: 60_000 } },
          next: { agent: 'work', needs: ['plan'], with: { a: ref('needs', 'plan', 'result'), b: ref('needs', 'plan', 'result') } },
        },
      },
      never: { jobs: { one: { agent: 'idle', with: 1 }, two: { agent: 'idle', needs: ['one'], with: 2 } } },
      fails: {
        jobs: {
          bad: { agent: 'work', with: { fail: true } },
          long: { agent: 'idle', with: {} },
          after: { agent: 'report', needs: ['bad'], with: {} },
        },
      },
    },
  )
  await h.start()
  h.agent('plan').run(1, async (task) => {
    const { count, bytes } = task.input as { count?: number; bytes?: number }
    return bytes === undefined
      ? { parts: Array.from({ length: count ?? 0 }, (_, index) => (count === 10_001 ? 0 : `p${index}`)) }
      : 'x'.repeat(bytes)
  })
  h.agent('work').run(4, async (task) => {
    if ((task.input as { fail?: boolean })?.fail === true) {
      await sleep(200)
      throw Object.assign(new Error('no luck'), { code: 'bad_luck' })
    }
    return { done: task.input }
  })
  h.agent('report').run(1, async (task) => ({ input: task.input, attempt: task.attempt }))
})
afterAll(() => h.stop())

test('a pipeline with foreach runs job by job; its result is that of the jobs nobody needs', async () => {
  const run = await h.submit({ pipeline: 'audit', inputs: { count: 3 } })
  const view = await h.ended(run)
  expect(view).toMatchObject({
    run,
    pipeline: 'audit',
    status: 'completed',
    inputs: { count: 3, tag: 'x' },
    jobs: [
      { id: 'plan', agent: 'plan', status: 'completed', attempts: 1 },
      { id: 'scan', status: 'completed' },
      { id: 'report', status: 'completed' },
    ],
  })
  const scanned = ['p0', 'p1', 'p2'].map((part) => ({ done: { part, tag: 'x' } }))
  expect(view.jobs[1]?.result).toEqual(scanned)
  expect(view.result).toEqual({ report: { input: { scanned, total: ['p0', 'p1', 'p2'] }, attempt: 1 } })
  expect(view.trace_id).toMatch(/^[0-9a-f]{32}$/)
  const listed = (await h.control('GET', '/v1/runs')).json.runs.find((it: { run: string }) => it.run === run)
  expect(listed).toMatchObject({ pipeline: 'audit', status: 'completed' })
  expect(Date.parse(listed.ended_at)).toBeGreaterThanOrEqual(Date.parse(listed.created_at))
  expect((await h.control('GET', `/v1/tasks/${run}.scan.2`)).json).toMatchObject({
    id: `${run}.scan.2`,
    agent: 'work',
    type: 'task',
    status: 'completed',
    attempts: 1,
    result: scanned[2],
    error: null,
    trace_id: view.trace_id,
  })
})

test('foreach over nothing gives an empty list, and the run goes on', async () => {
  const view = await h.ended(await h.submit({ pipeline: 'audit', inputs: { count: 0 } }))
  expect(view.status).toBe('completed')
  expect(view.result).toEqual({ report: { input: { scanned: [], total: [] }, attempt: 1 } })
})

test('foreach over too many elements is refused by number', async () => {
  const view = await h.ended(await h.submit({ pipeline: 'wide', inputs: { n: 10_001 } }))
  expect(view.status).toBe('failed')
  expect(view.jobs[1]).toMatchObject({
    id: 'all',
    status: 'failed',
    error: { code: 'too_many_tasks', message: 'job "all": foreach over 10001 elements; the limit is 10000' },
  })
})

test('a reference to nothing and an input over the limit fail their job by name', async () => {
  const blind = await h.ended(await h.submit({ pipeline: 'blind', inputs: {} }))
  expect(blind.jobs[1]).toMatchObject({
    status: 'failed',
    error: { code: 'bad_reference', message: '${{ needs.plan.result.nothing }}: there is no "nothing" in needs.plan.result (object)' },
  })
  const big = await h.ended(await h.submit({ pipeline: 'big', inputs: {} }))
  expect(big.jobs[1]).toMatchObject({ status: 'failed', error: { code: 'payload_too_large' } })
  expect(big.jobs[1]?.error?.message).toContain('the limit is 65536')
})

test('a failed job fails the run and stops what else runs', async () => {
  const idle = h.agent('idle')
  let stopped = false
  idle.run(
    2,
    (_task, { signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          stopped = true
          reject(new Error('stopped'))
        }),
      ),
  )
  const view = await h.ended(await h.submit({ pipeline: 'fails', inputs: {} }))
  expect(view.status).toBe('failed')
  expect(view.result).toBeNull()
  expect(view.jobs.map((job) => [job.id, job.status, job.error?.code])).toEqual([
    ['bad', 'failed', 'bad_luck'],
    ['long', 'cancelled', undefined],
    ['after', 'cancelled', undefined],
  ])
  await until('the other task is told to stop', 1_000, () => stopped)
  idle.die()
})

test('a cancelled run: waiting tasks are gone, the running one is told within 200 ms, on the request that waits', async () => {
  const idle = h.agent('idle', 2)
  const run = await h.submit({ agent: 'idle', type: 'task', tasks: [1, 2, 3, 4] })
  const { tasks } = await idle.lease(2)
  expect(tasks).toHaveLength(2)
  const waiting = idle.lease(0, 10_000)
  await sleep(50)
  const from = Date.now()
  const cancelled = h.control('POST', `/v1/runs/${run}/cancel`, {})
  expect(new Set((await waiting).cancel)).toEqual(new Set(tasks.map((task) => task.lease)))
  expect(Date.now() - from).toBeLessThan(200)
  expect((await cancelled).json).toEqual({ run, status: 'cancelled' })
  expect(
    (await idle.lease(0, 0, { done: tasks.map((task) => ({ lease: task.lease, status: 'completed', result: 'too late' })) })).settled.every(
      (it) => it.ok,
    ),
  ).toBe(true)
  expect((await idle.lease(2, 100)).tasks).toEqual([])
  const view = await h.ended(run)
  expect(view).toMatchObject({ status: 'cancelled', result: null })
  expect(view.jobs.map((job) => job.status)).toEqual(['cancelled', 'cancelled', 'cancelled', 'cancelled'])
  expect((await h.control('GET', `/v1/tasks/${run}.task.3`)).json.status).toBe('cancelled')
  expect((await h.control('POST', `/v1/runs/${run}/cancel`, {})).json).toEqual({ run, status: 'cancelled' })
  idle.die()
})

test('a cancelled pipeline starts nothing more', async () => {
  const idle = h.agent('idle', 3)
  const run = await h.submit({ pipeline: 'never', inputs: {} })
  const {
    tasks: [task],
  } = await idle.lease(1)
  await h.control('POST', `/v1/runs/${run}/cancel`, {})
  await idle.post('/v1/complete', { lease: task?.lease, result: 1 })
  expect((await idle.lease(1, 200)).tasks).toEqual([])
  expect((await h.ended(run)).jobs.map((job) => job.status)).toEqual(['cancelled', 'cancelled'])
  idle.die()
})

test('the same submit again makes no second run', async () => {
  const id = newRunId()
  const body = { id, agent: 'work', type: 'task', tasks: [1] }
  const runs = await Promise.all([1, 2, 3].map(() => h.submit(body)))
  expect(runs).toEqual([id, id, id])
  const view = await h.ended(id)
  expect(await h.submit(body)).toBe(id)
  expect(await h.ended(id)).toEqual(view)
  expect((await h.control('GET', '/v1/runs')).json.runs.filter((it: { run: string }) => it.run === id)).toHaveLength(1)
})

test('what cannot be submitted is refused with a code and a way out', async () => {
  const post = async (body: object) => {
    const reply = await h.control('POST', '/v1/runs', body)
    return [reply.status, reply.json.error.code, reply.json.error.message]
  }
  expect(await post({ pipeline: 'nope', inputs: {} })).toEqual([404, 'AG6003', 'there is no pipeline "nope"'])
  expect(await post({ agent: 'nope', type: 't', tasks: [1] })).toEqual([404, 'AG6002', 'there is no agent "nope"'])
  expect((await post({ agent: 'work', type: 't', tasks: [] })).slice(0, 2)).toEqual([400, 'AG6006'])
  expect(await post({ agent: 'work', type: 't', tasks: ['x'.repeat(65_536)] })).toEqual([
    413,
    'AG6005',
    'input 0 has 65538 bytes of JSON; the limit is 65536',
  ])
  expect(await post({ pipeline: 'audit', inputs: { count: 'three', more: 1 } })).toEqual([
    400,
    'AG6006',
    'the inputs do not fit pipeline "audit": "more" is not an input; "count" must be a number, got string',
  ])
  expect(await post({ pipeline: 'audit', inputs: {} })).toEqual([
    400,
    'AG6006',
    'the inputs do not fit pipeline "audit": "count" is required',
  ])
  expect((await post({ id: 'mine', agent: 'work', type: 't', tasks: [1] })).slice(0, 2)).toEqual([400, 'AG6006'])
  expect((await post({})).slice(0, 2)).toEqual([400, 'AG6006'])
  expect((await h.control('GET', `/v1/runs/${newRunId()}`)).json.error.code).toBe('AG6001')
  expect((await h.control('GET', '/v1/tasks/run_x.y.0')).status).toBe(404)
  expect((await h.control('POST', `/v1/runs/${newRunId()}/cancel`, {})).status).toBe(404)
})

test('events come live until the run has ended', async () => {
  const idle = h.agent('idle', 4)
  const run = await h.submit({ agent: 'idle', type: 'task', tasks: [1] })
  const stream = h.control('GET', `/v1/runs/${run}/events?follow=1`)
  const {
    tasks: [task],
  } = await idle.lease(1)
  await idle.post('/v1/progress', { lease: task?.lease, message: 'working' })
  await sleep(300)
  await idle.post('/v1/complete', { lease: task?.lease, result: 1 })
  const events = (await stream).body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
  expect(events.map((event) => event.event)).toEqual(['queued', 'leased', 'progress', 'completed'])
  expect(events[2]).toMatchObject({ task: `${run}.task.0`, agent: 'idle', message: 'working' })
  idle.die()
})

test('who is connected can be waited for', async () => {
  const from = Date.now()
  const waiting = h.control('GET', '/v1/replicas?wait_ms=10000&connected=idle:41,idle:42')
  const [one, two] = [h.agent('idle', 41), h.agent('idle', 42)]
  await one.lease(0, 0)
  await sleep(200)
  await two.lease(0, 0)
  const { replicas } = (await waiting).json
  expect(Date.now() - from).toBeLessThan(2_000)
  expect(replicas.filter((it: { replica: number }) => it.replica > 40)).toEqual(
    [41, 42].map((replica) => ({ agent: 'idle', replica, connected: true, tasks: 0 })),
  )
  one.die()
  await until(
    'its end is seen',
    2_000,
    async () => !(await h.control('GET', '/v1/replicas')).json.replicas.some((it: { replica: number }) => it.replica === 41),
  )
  two.die()
})

test('a role is served as soon as the record names it', async () => {
  expect((await h.agent('later', 1, null).post('/v1/lease', {})).status).toBe(403)
  h.configure({ plan: {}, work: { concurrency: 4 }, report: {}, idle: { concurrency: 2 }, later: {} })
  const later = h.agent('later')
  await until('the new record is read', 3_000, async () => (await later.post('/v1/lease', { want: 0 })).status === 200)
  const run = await h.submit({ agent: 'later', type: 'task', tasks: ['x'] })
  const {
    tasks: [task],
  } = await later.lease(1)
  await later.post('/v1/complete', { lease: task?.lease, result: 'y' })
  expect((await h.ended(run)).result).toEqual({ task: ['y'] })
  later.die()
})

test('the oldest ended runs leave the broker with their tasks, and are read from the archive', async () => {
  const first = await h.submit({ agent: 'work', type: 'task', tasks: [1, 2] })
  const before = await h.ended(first)
  const task = (await h.control('GET', `/v1/tasks/${first}.task.0`)).json
  const runs: string[] = []
  for (let at = 0; at < 1_000; at += 50)
    runs.push(...(await Promise.all(Array.from({ length: 50 }, () => h.submit({ agent: 'work', type: 'task', tasks: [1] })))))
  await h.ended(runs.at(-1) as string)
  await until('the first run has left the broker', 60_000, async () => (await h.broker().readRun(first)) === null)
  expect(await h.broker().read([0, 1].map((item) => ({ queue: 'work', id: `${first}.task.${item}` })))).toEqual([null, null])
  expect((await h.control('GET', `/v1/runs/${first}`)).json).toEqual(before)
  expect((await h.control('GET', `/v1/tasks/${first}.task.0`)).json).toEqual(task)
  expect((await h.control('GET', `/v1/tasks/${first}.task.2`)).status).toBe(404)
  const events = (await h.control('GET', `/v1/runs/${first}/events?follow=0`)).body.trim().split('\n')
  expect(events.map((line) => JSON.parse(line).event)).toContain('completed')
  await until('1,000 are left', 60_000, async () => (await h.broker().listRuns()).length === 1_000)
})
