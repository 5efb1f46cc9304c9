/** A Redis whose log was cut, or whose volume is gone: what is missing is named, what had ended is shown and not run again. */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Client, harness, type Harness, until } from './harness.ts'

let h: Harness
let worker: Client
let gateway: Gateway
beforeEach(async () => {
  h = await harness()
  h.configure({ work: { concurrency: 4 }, idle: { concurrency: 1 } })
  gateway = await h.start()
  worker = h.agent('work')
  worker.run(4, async (task) => ({ done: task.input }))
})
afterEach(() => h.stop())

const LOG = `require('node:fs').readdirSync('appendonlydir').map((it) => 'appendonlydir/' + it).find((it) => it.endsWith('.incr.aof'))`
const logSize = async (): Promise<number> =>
  Number(await h.redis.data(`process.stdout.write(String(require('node:fs').statSync(${LOG}).size))`))
const cut = (bytes: number): Promise<string> => h.redis.data(`require('node:fs').truncateSync(${LOG}, ${bytes})`)
const archived = (run: string): Promise<boolean> =>
  until(`${run} is in the archive`, 10_000, () => existsSync(join(h.directory, 'state', 'archive', `${run}.json.gz`)))
const show = async (run: string) => (await h.control('GET', `/v1/runs/${run}`)).json
const loss = async () => (await h.control('GET', '/v1/health')).json.broker_loss
const listed = async (run: string) =>
  (await h.control('GET', '/v1/runs')).json.runs.find((it: { readonly run: string }) => it.run === run) as { readonly status: string }
const started = (run: string): number =>
  [...worker.started].reduce((sum, [task, count]) => sum + (task.startsWith(`${run}.`) ? count : 0), 0)

async function complete(tasks: readonly number[]): Promise<string> {
  const run = await h.submit({ agent: 'work', type: 'task', tasks })
  expect((await h.ended(run)).status).toBe('completed')
  await archived(run)
  return run
}
const leaveOpen = (): Promise<string> => h.submit({ agent: 'idle', type: 'task', tasks: [1, 2] })

/** With Redis dead, the gateway goes on, or is started anew. */
async function whileAway(change: () => Promise<unknown>, restarts: boolean): Promise<void> {
  await h.redis.kill()
  if (restarts) await gateway.close()
  await change()
  await h.redis.restart()
  if (restarts) gateway = await h.start()
}
const told = (kind: string) =>
  until(`a loss is told (${kind})`, 20_000, async () => {
    const said = await loss()
    return said?.kind === kind ? (said as { from: string; to: string; runs: string[] }) : null
  })
const goesOn = async (): Promise<void> => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks: [7] })
  expect((await h.ended(run)).result).toEqual({ task: [{ done: 7 }] })
}

for (const restarts of [false, true]) {
  const how = restarts ? 'a gateway that starts' : 'a gateway that runs'

  test(`the log is cut before a submit: ${how} names the run, and shows those that had ended`, async () => {
    const first = await complete([1, 2, 3])
    const kept = await leaveOpen()
    const size = await logSize()
    const before = Date.now()
    const lost = await leaveOpen()
    const ended = await complete([4, 5])
    const seen = await show(ended)
    await whileAway(() => cut(size), restarts)
    const said = await told('truncated')
    expect(said.runs).toEqual([lost])
    expect(Date.parse(said.from)).toBeLessThanOrEqual(before)
    expect(Date.parse(said.to)).toBeGreaterThanOrEqual(before)
    expect(h.log.map((it) => it.message).join('\n')).toContain('AG5004')
    const view = await show(lost)
    expect(view).toMatchObject({
      status: 'failed',
      error: { code: 'lost' },
      jobs: [{ id: 'task', agent: 'idle', error: { code: 'lost' } }],
    })
    expect(view.error.message).toContain(said.from)
    expect((await listed(lost)).status).toBe('failed')
    expect((await show(kept)).status).toBe('queued')
    expect((await show(first)).status).toBe('completed')
    expect(await show(ended)).toEqual(seen)
    await goesOn()
    expect(started(ended)).toBe(2)
    expect(started(first)).toBe(3)
    // Sent again by whoever waits for its answer: it is the run that is known to be lost.
    const again = await h.control('POST', '/v1/runs', { id: lost, agent: 'work', type: 'task', tasks: [1] })
    expect(again.json).toMatchObject({ run: lost, existing: true })
  })

  test(`the log is cut between the submit and the end of a run: ${how} does not run it again`, async () => {
    const size = await logSize()
    const ended = await complete([1, 2, 3, 4])
    const after = await logSize()
    const seen = await show(ended)
    await whileAway(() => cut(Math.round(size + (after - size) * 0.6)), restarts)
    const said = await told('truncated')
    expect(said.runs).toEqual([])
    expect(await show(ended)).toEqual(seen)
    expect((await listed(ended)).status).toBe('completed')
    await goesOn()
    await sleep(500)
    expect(started(ended)).toBe(4)
    expect((await h.control('GET', `/v1/tasks/${ended}.task.1`)).json).toMatchObject({ status: 'completed', result: { done: 2 } })
    expect(await h.broker().openRuns()).toEqual([])
  })

  test(`the volume is gone: ${how} says so, and takes new work`, async () => {
    const ended = await complete([1, 2])
    const seen = await show(ended)
    const lost = [await leaveOpen(), await leaveOpen()]
    await whileAway(() => h.redis.data(`require('node:fs').rmSync('appendonlydir', { recursive: true })`), restarts)
    const said = await told('volume')
    expect([...said.runs].sort()).toEqual([...lost].sort())
    expect((await show(lost[0] as string)).error.code).toBe('lost')
    expect(await show(ended)).toEqual(seen)
    await goesOn()
    expect(started(ended)).toBe(2)
  })
}

test('all keys are removed under a gateway that runs: noticed without a reconnect, also when nothing is submitted', async () => {
  const ended = await complete([1])
  const lost = await leaveOpen()
  const redis = new Redis(h.redis.url)
  await redis.flushall()
  await redis.quit()
  expect((await told('volume')).runs).toEqual([lost])
  expect((await show(ended)).status).toBe('completed')
  await goesOn()
})

test('a cut anywhere: every run that was told to anyone is shown, and is as it was or said to be lost', async () => {
  const runs: { readonly id: string; readonly tasks: number; readonly open: boolean }[] = []
  for (let index = 0; index < 6; index++) {
    runs.push({ id: await complete([index, index + 1]), tasks: 2, open: false })
    runs.push({ id: await leaveOpen(), tasks: 2, open: true })
  }
  const size = await logSize()
  await whileAway(() => cut(Math.round(size * 0.37) + 1), true)
  const said = await told('truncated')
  expect(said.runs.length).toBeGreaterThan(0)
  await goesOn()
  for (const { id, open } of runs) {
    const { status } = await show(id)
    if (!open) expect(status).toBe('completed')
    else expect(status).toBe(said.runs.includes(id) ? 'failed' : 'queued')
    expect(started(id)).toBe(open ? 0 : 2)
  }
  // Told once, and kept: a later start finds it, and nothing more.
  await gateway.close()
  gateway = await h.start()
  expect(await loss()).toEqual(said)
})

test('a run that was closed from the archive, and has left that since, is gone: what the broker has of it is not archived as its end', async () => {
  const size = await logSize()
  const ended = await complete([1, 2, 3, 4])
  const after = await logSize()
  await whileAway(() => cut(Math.round(size + (after - size) * 0.6)), true)
  await told('truncated')
  expect((await show(ended)).status).toBe('completed')
  expect(await h.broker().readRun(ended)).not.toBeNull()
  await gateway.close()
  for (const name of ['index.jsonl', `${ended}.json.gz`]) rmSync(join(h.directory, 'state', 'archive', name))
  gateway = await h.start()
  await until('the broker has forgotten it', 30_000, async () => (await h.broker().readRun(ended)) === null)
  expect((await h.control('GET', `/v1/runs/${ended}`)).status).toBe(404)
})

test('kills of Redis and of the gateway are no loss', async () => {
  await complete([1, 2])
  await leaveOpen()
  await whileAway(async () => {}, true)
  await goesOn()
  await whileAway(async () => {}, false)
  await goesOn()
  expect(await loss()).toBeNull()
})
