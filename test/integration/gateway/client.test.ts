/** An application's day with the typed client: it submits, follows, waits and repeats, over restarts of the gateway. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AgentctlError, connect, type ControlClient, type RunEvent } from '../../../engine/client/index.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Harness, harness, until } from './harness.ts'

let gateway: Harness
let running: Gateway
let client: ControlClient
beforeAll(async () => {
  gateway = await harness()
  gateway.configure({ worker: { concurrency: 4 }, slow: {}, asker: {} })
  running = await gateway.start()
  await gateway.healthy()
  client = connect({ socket: join(gateway.directory, 'control.sock') })
  gateway.agent('worker').run(4, async ({ input }) => ({ got: input }))
}, 60_000)
afterAll(async () => {
  client.close()
  await gateway.stop()
})
const failure = async (call: Promise<unknown>): Promise<AgentctlError> => {
  const error = await call.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(AgentctlError)
  return error as AgentctlError
}

test('submit, wait, result; the same key gives the same run', async () => {
  const { run, existing } = await client.submit({ agent: 'worker', type: 'task', tasks: ['a', 'b'] })
  expect([run, existing ?? false]).toEqual([expect.stringMatching(/^run_[0-9A-Z]{26}$/), false])
  const view = await client.wait(run)
  expect(view.jobs.map((it) => it.result)).toEqual([{ got: 'a' }, { got: 'b' }])

  const first = await client.submit({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'nightly' })
  const second = await client.submit({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'nightly' })
  expect(second).toEqual({ run: first.run, existing: true })
  await client.cancel(first.run)
  expect((await client.run(first.run)).status).toBe('cancelled')
  const third = await client.submit({ agent: 'slow', type: 'task', tasks: [1], dedup_key: 'nightly' })
  expect(third.run).not.toBe(first.run)
  await client.cancel(third.run)
})

test('a delayed run waits, and says so', async () => {
  const { run } = await client.submit({ agent: 'worker', type: 'task', tasks: ['later'], delay_ms: 3_600_000 })
  expect((await client.run(run)).status).toBe('queued')
  const { status, reasons } = await client.explain(`${run}.task.0`)
  expect([status, ['run_delayed', 'delayed'].includes(reasons[0]?.code ?? '')]).toEqual(['queued', true])
  expect(await client.explainRun(run, { limit: 1 })).toMatchObject({ run, status: 'queued', tasks: [{ status: 'queued' }], next: null })
  await client.cancel(run)
  expect((await client.wait(run)).status).toBe('cancelled')
})

test('what the gateway refuses is an error with its code, and is not tried again', async () => {
  expect((await failure(client.submit({ agent: 'nobody', type: 'task', tasks: [1] }))).code).toBe('AG6002')
  expect((await failure(client.submit({ pipeline: 'none', inputs: {} }))).code).toBe('AG6003')
  expect((await failure(client.run('run_01J00000000000000000000000'))).code).toBe('AG6001')
  expect((await failure(client.task('run_01J00000000000000000000000.task.0'))).code).toBe('AG6001')
  expect((await failure(client.approve('nothing.0'))).code).toBe('AG6012')
  expect((await failure(client.artifact(`sha256:${'0'.repeat(64)}`))).code).toBe('AG6010')
})

test('a reader and a waiter go on over a restart of the gateway, without a gap or a repeat', async () => {
  const { run } = await client.submit({ agent: 'slow', type: 'task', tasks: ['x'] })
  const seen: RunEvent[] = []
  const reading = (async () => {
    for await (const event of client.events(run, { follow: true })) seen.push(event)
  })()
  const waiting = client.wait(run)
  const agent = gateway.agent('slow', 1, null)
  const { tasks } = await agent.lease(1)
  const say = async (message: string): Promise<unknown> => await agent.post('/v1/progress', { lease: tasks[0]?.lease, message })
  await say('before')
  await until('the first progress', 10_000, () => seen.some((it) => it.message === 'before'))
  await running.close()
  running = await gateway.start()
  await gateway.healthy()
  await until(
    'the lease is adopted',
    15_000,
    async () => ((await say('after').catch(() => null)) as { status?: number } | null)?.status === 200,
  )
  await agent.post('/v1/complete', { lease: tasks[0]?.lease, result: 'done' })
  expect((await waiting).status).toBe('completed')
  await reading
  const ids = seen.map((it) => it.id)
  expect(new Set(ids).size).toBe(ids.length)
  expect(seen.map((it) => it.event).filter((it) => it !== 'requeued')).toEqual(['queued', 'leased', 'progress', 'progress', 'completed'])
  expect(seen.filter((it) => it.event === 'progress').map((it) => it.message)).toEqual(['before', 'after'])
})

test('events from one on; an abort ends a wait and a stream at once', async () => {
  const { run } = await client.submit({ agent: 'worker', type: 'task', tasks: ['x'] })
  await client.wait(run)
  const events: RunEvent[] = []
  for await (const event of client.events(run)) events.push(event)
  const rest: RunEvent[] = []
  for await (const event of client.events(run, { after: events[0]?.id ?? '' })) rest.push(event)
  expect(rest).toEqual(events.slice(1))

  const held = await client.submit({ agent: 'slow', type: 'task', tasks: ['y'] })
  const abort = new AbortController()
  const wait = failure(client.wait(held.run, { signal: abort.signal }))
  const stream = failure(
    (async () => {
      for await (const event of client.events(held.run, { follow: true, signal: abort.signal })) if (event.event === 'queued') abort.abort()
    })(),
  )
  expect([(await wait).code, (await stream).code]).toEqual(['AG7002', 'AG7002'])
  await client.cancel(held.run)
})

test('a person answers what a task asks; the task says that it waits for that', async () => {
  const { run } = await client.submit({ agent: 'asker', type: 'task', tasks: ['x'] })
  const agent = gateway.agent('asker')
  const { tasks } = await agent.lease(1)
  const asked = await agent.post('/v1/approvals', { lease: tasks[0]?.lease, key: 'go', message: 'May I?', data: { cost: 5 } })
  expect([asked.status, asked.json?.status]).toEqual([200, 'pending'])
  const [pending] = await client.approvals()
  expect(pending).toMatchObject({ id: asked.json.id, task: `${run}.task.0`, message: 'May I?', data: { cost: 5 } })
  expect((await client.explain(`${run}.task.0`)).reasons[0]).toMatchObject({ code: 'approval', ref: asked.json.id })
  const decided = await client.approve(asked.json.id, 'but be quick')
  expect(decided).toMatchObject({ status: 'approved', comment: 'but be quick' })
  // The answer was lost and the request is sent again: it is the same decision. Another one is refused.
  expect(await client.approve(asked.json.id, 'but be quick')).toEqual(decided)
  expect((await failure(client.reject(asked.json.id))).code).toBe('AG6012')
  expect(await client.approvals()).toEqual([])
  expect((await client.approvals('all')).map((it) => it.id)).toContain(asked.json.id)
  await agent.post('/v1/complete', { lease: tasks[0]?.lease, result: null })
  expect((await client.wait(run)).status).toBe('completed')
})
