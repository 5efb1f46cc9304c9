/** How many tasks those of one run may delegate in all. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { HashField } from '../../../engine/broker/port.ts'
import { overRun } from '../../../engine/gateway/run-children.ts'
import { childField } from '../../../engine/gateway/run-record.ts'
import { MAX_RUN_CHILD_BYTES, MAX_RUN_CHILDREN } from '../../../spec/protocol.ts'
import { harness, type Harness } from './harness.ts'
import { take } from './storing.ts'

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({ lead: { delegates_to: ['work'] }, work: { concurrency: 2 } })
})
afterAll(() => h.stop())

const many = (...keys: readonly string[]) => keys.map((key) => ({ key, agent: 'work', input: key }))

test('a run delegates so many tasks, ended ones too, whichever gateway made them; those that it has can be asked for again', async () => {
  const first = await h.start()
  const run = await h.submit({ agent: 'lead', type: 'task', tasks: [{}] })
  await first.close()
  // As if the gateway before had made all but three; made in earnest they take minutes.
  const fields = Array.from({ length: MAX_RUN_CHILDREN - 3 }, (_, n): HashField => [childField(`${run}.task.0.${n}`), 'work'])
  for (let at = 0; at < fields.length; at += 10_000) await h.broker().writeRun(run, fields.slice(at, at + 10_000))
  await h.start()
  const [lead, work] = [h.agent('lead'), h.agent('work')]
  const task = await take(lead)
  const ask = (tasks: unknown) => lead.post('/v1/delegate', { lease: task.lease, tasks })
  const made = await ask(many('a', 'b'))
  expect(made.status).toBe(200)
  const child = await take(work)
  expect((await work.post('/v1/complete', { lease: child.lease, result: null })).status).toBe(200)
  const refused = await ask(many('c', 'd'))
  expect([refused.status, refused.json.error.code]).toEqual([429, 'too_many_children'])
  expect(refused.json.error.message).toContain(`this run has ${MAX_RUN_CHILDREN - 1}`)
  // Twenty at once for the last place, each for a child of its own.
  const statuses = await Promise.all(
    Array.from({ length: 20 }, (_, n) => lead.post('/v1/delegate', { lease: task.lease, key: `k${n}`, agent: 'work', input: n })),
  )
  expect(statuses.filter((it) => it.status === 200)).toHaveLength(1)
  expect(statuses.filter((it) => it.status === 429)).toHaveLength(19)
  expect((await ask(many('a', 'b'))).json.tasks).toEqual(made.json.tasks)
  expect((await ask(many('e'))).status).toBe(429)
  const record = await h.broker().readRun(run)
  expect([...(record ?? [])].filter(([field]) => field.startsWith('child:'))).toHaveLength(MAX_RUN_CHILDREN)
  const hash = createHash('sha256').update('e').digest('hex').slice(0, 16)
  expect(record?.has(childField(`${task.id}.${hash}`))).toBe(false)
})

test('their inputs have so many bytes', () => {
  const made = { tasks: 1, bytes: MAX_RUN_CHILD_BYTES - 10 }
  expect(overRun(made, 1, 10)).toBeNull()
  expect(overRun(made, 1, 11)).toMatchObject({ status: 429, code: 'too_many_children' })
  expect(overRun({ tasks: MAX_RUN_CHILDREN, bytes: 0 }, 0, 1)).toBeNull()
})
