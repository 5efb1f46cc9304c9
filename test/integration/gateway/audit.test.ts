import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { LeasedTask, RunEvent } from '../../../spec/protocol.ts'
import { type AnyJson, type Client, harness, type Harness, until } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({ a: {}, b: {}, flood: {} })
  await h.start()
})
afterAll(() => h.stop())

async function next(client: Client): Promise<LeasedTask> {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const [task] = (await client.lease(1, 1_000)).tasks
    if (task !== undefined) return task
  }
  throw new Error('no task for 20 s')
}
const audited = (replica: string): readonly AnyJson[] => h.log.filter((it) => it.audit === true && it.replica === replica)
const refusals = async (run: string): Promise<readonly RunEvent[]> =>
  (await h.control('GET', `/v1/runs/${run}/events?follow=0`)).body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as RunEvent)
    .filter((it) => it.event === 'refused')

test('a late answer is refused and written down, in the log and in the run; the result stays what it was', async () => {
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const session = 'session-that-returns'
  const frozen = h.agent('a', 1, session)
  const task = await next(frozen)
  frozen.die()
  const other = h.agent('a', 2)
  const again = await next(other)
  await other.post('/v1/complete', { lease: again.lease, result: 'right' })
  const before = await h.ended(run)
  // It comes back with the session that it had.
  const late = h.agent('a', 1, session)
  expect((await late.post('/v1/complete', { lease: task.lease, result: 'late' })).status).toBe(409)
  expect((await late.lease(0, 0, { done: [{ lease: task.lease, status: 'completed', result: 'late' }] })).settled).toEqual([
    { lease: task.lease, ok: false, code: 'lease_lost' },
  ])
  const { ended_at: _, ...view } = (await h.control('GET', `/v1/runs/${run}`)).json
  expect(view.result).toEqual(before.result)
  expect(audited('a.1')).toMatchObject(
    Array.from({ length: 2 }, () => ({ audit: true, replica: 'a.1', action: 'settle', kind: 'late', task: task.id, attempt: 1 })),
  )
  const seen = await until('it stands in the run', 5_000, async () => {
    const found = await refusals(run)
    return found.length === 2 ? found : null
  })
  expect(seen[0]).toMatchObject({ task: task.id, agent: 'a', attempt: 1 })
  expect(seen[0]?.message).toContain('replica a.1')
  for (const it of [other, late]) it.die()
})

test("a forged lease, or another's, is refused and written down without a task", async () => {
  const run = await h.submit({ agent: 'b', type: 'task', tasks: [1] })
  const [mine, thief] = [h.agent('b', 1), h.agent('b', 2)]
  const { lease, id } = await next(mine)
  for (const token of [lease, `${id}~1~${'A'.repeat(32)}`, 'nonsense']) {
    expect((await thief.post('/v1/complete', { lease: token, result: 'stolen' })).status).toBe(409)
  }
  expect((await thief.post('/v1/progress', { lease, message: 'x' })).status).toBe(409)
  expect(audited('b.2').map((it) => [it.kind, it.action, it.task])).toEqual([
    ['forged', 'settle', null],
    ['forged', 'settle', null],
    ['forged', 'settle', null],
    ['forged', 'use', null],
  ])
  await mine.post('/v1/complete', { lease, result: 'mine' })
  expect((await h.ended(run)).result).toEqual({ task: ['mine'] })
  expect(audited('b.1')).toEqual([])
  for (const it of [mine, thief]) it.die()
})

test('a flood of forged answers fills neither log nor run', async () => {
  const thief = h.agent('flood')
  const from = Date.now()
  for (let count = 0; count < 300; count++) await thief.post('/v1/complete', { lease: `x~1~${count}`, result: 1 })
  const seconds = Math.ceil((Date.now() - from) / 1_000) + 1
  await sleep(2_500)
  const lines = audited('flood.1')
  const said = lines.filter((it) => it.more === undefined).length
  expect(said).toBeLessThanOrEqual(10 * seconds)
  expect(lines.reduce((sum, it) => sum + (it.more ?? 0), said)).toBe(300)
  thief.die()
}, 30_000)
