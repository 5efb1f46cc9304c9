/** Dead letters through the client: what ended failed or dead, with all that is known of it, until it is dropped. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect, type ControlClient, type DeadLetter, type DeadLetterSummary } from '../../../engine/client/index.ts'
import { AgentctlError } from '../../../engine/errors.ts'
import { type Harness, harness, until } from './harness.ts'

let gateway: Harness
let client: ControlClient
beforeAll(async () => {
  gateway = await harness()
  gateway.configure({ worker: { concurrency: 4 }, other: {}, frail: {} })
  await gateway.start()
  await gateway.healthy()
  client = connect({ socket: join(gateway.directory, 'control.sock') })
  for (const name of ['worker', 'other'])
    gateway.agent(name).run(4, async ({ input, lease }, { client: agent }) => {
      await agent.post('/v1/progress', { lease, message: `looking at ${JSON.stringify(input)}` })
      if (input === 'good' || (input as { good?: boolean }).good === true) return 'fine'
      throw Object.assign(new Error('it is bad'), { code: 'bad' })
    })
}, 60_000)
afterAll(async () => {
  client.close()
  await gateway.stop()
})

const all = async (agent?: string): Promise<readonly DeadLetterSummary[]> =>
  (await client.deadLetters(agent === undefined ? {} : { agent })).tasks
const failed = async (agent: string, inputs: readonly string[]): Promise<string> => {
  const { run } = await client.submit({ agent, type: 'odd', tasks: inputs })
  await client.wait(run)
  return run
}
const code = async (call: Promise<unknown>): Promise<string> =>
  await call.then(
    () => 'done',
    (error: unknown) => (error instanceof AgentctlError ? error.code : String(error)),
  )

test('a failed task is listed, shown with its input and events, run again with another input, and dropped', async () => {
  const run = await failed('worker', ['good', 'bad'])
  const id = `${run}.task.1`
  expect((await all('worker')).map((it) => it.id)).toEqual([id])
  const letter: DeadLetter = await client.deadLetter(id)
  expect(letter).toMatchObject({
    run,
    agent: 'worker',
    type: 'odd',
    status: 'failed',
    attempts: 1,
    input: 'bad',
    error: { code: 'bad' },
    history: [{ attempt: 1, replica: 'worker.1', error: { code: 'bad' }, log: 'looking at "bad"\n' }],
  })
  expect(letter.events.every((it) => it.task === id)).toBe(true)
  expect(letter.events.map((it) => it.event)).toEqual(['queued', 'leased', 'progress', 'failed'])

  const again = await client.retryDeadLetter(id)
  const view = await client.wait(again.run)
  expect([view.status, view.retry_of]).toEqual(['failed', run])
  const mended = await client.retryDeadLetter(id, { input: { good: true } })
  expect(await client.wait(mended.run)).toMatchObject({ status: 'completed', retry_of: run })
  expect((await client.task(`${mended.run}.task.0`)).type).toBe('odd')

  // It stays until it is dropped, and its run shows it ever after.
  expect((await all('worker')).map((it) => it.id)).toEqual([`${again.run}.task.0`, id])
  await client.dropDeadLetter(id)
  expect((await all('worker')).map((it) => it.id)).toEqual([`${again.run}.task.0`])
  expect((await client.task(id)).status).toBe('failed')
  expect(await code(client.deadLetter(id))).toBe('AG6011')
  expect(await code(client.dropDeadLetter(id))).toBe('AG6011')
  expect(await code(client.retryDeadLetter(id))).toBe('AG6011')
})

test('a task whose agents died is dead, with each of its executions', async () => {
  const { run } = await client.submit({ agent: 'frail', type: 'task', tasks: [1] })
  const id = `${run}.task.0`
  for (let death = 0; death < 3; death++) {
    const agent = gateway.agent('frail')
    const { tasks } = await agent.lease(1, 20_000)
    expect(tasks.map((it) => it.id)).toEqual([id])
    await agent.post('/v1/progress', { lease: tasks[0]?.lease, message: `life ${death + 1}` })
    agent.die()
  }
  const view = await client.wait(run)
  expect(view.status).toBe('failed')
  const letter = await client.deadLetter(id)
  expect([letter.status, letter.attempts, letter.error?.code]).toEqual(['dead', 3, 'agent_died'])
  expect(letter.history.map((it) => [it.attempt, it.error.code])).toEqual(
    expect.arrayContaining([
      [1, 'agent_died'],
      [2, 'agent_died'],
    ]),
  )
  expect(letter.history[0]?.log).toContain('life 1')
})

test('completed, running and cancelled tasks are no dead letters', async () => {
  const good = await failed('worker', ['good'])
  const { run } = await client.submit({ agent: 'frail', type: 'task', tasks: [2] })
  expect(await code(client.deadLetter(`${good}.task.0`))).toBe('AG6011')
  expect(await code(client.deadLetter(`${run}.task.0`))).toBe('AG6011')
  await client.cancel(run)
  expect(await code(client.deadLetter(`${run}.task.0`))).toBe('AG6011')
  // One that ran when its run was cancelled ends in the same set of the broker.
  const agent = gateway.agent('frail')
  const held = await client.submit({ agent: 'frail', type: 'task', tasks: [3] })
  const { tasks } = await agent.lease(1, 20_000)
  await client.cancel(held.run)
  await agent.post('/v1/fail', { lease: tasks[0]?.lease, error: { code: 'cancelled', message: 'stopped' } })
  await until('the task ended', 10_000, async () => (await client.task(`${held.run}.task.0`)).status === 'cancelled')
  expect((await all('frail')).map((it) => it.id)).not.toContain(`${held.run}.task.0`)
  expect(await code(client.deadLetter(`${held.run}.task.0`))).toBe('AG6011')
})

test('pages follow on without a gap, also of one agent among others', async () => {
  for (let n = 0; n < 3; n++) {
    await failed('other', ['bad', 'worse'])
    await failed('worker', ['bad'])
  }
  const pages = async (agent: string | undefined): Promise<readonly string[]> => {
    const ids: string[] = []
    for (let before: string | null = null; ; ) {
      const page = await client.deadLetters({ limit: 2, ...(agent === undefined ? {} : { agent }), ...(before === null ? {} : { before }) })
      expect(page.tasks.length).toBeLessThanOrEqual(2)
      ids.push(...page.tasks.map((it) => it.id))
      before = page.next
      if (before === null) return ids
    }
  }
  expect(await pages(undefined)).toEqual((await all()).map((it) => it.id))
  const others = await pages('other')
  expect(others).toEqual((await all('other')).map((it) => it.id))
  expect(others.length).toBe(6)
})
