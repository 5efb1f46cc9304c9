/** Finished runs leave the broker for the state volume, whole or not at all, and are read as before. */
import { existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ARCHIVE_LIMITS } from '../../../engine/gateway/archive.ts'
import { RETENTION_LIMITS } from '../../../engine/gateway/retention.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { DEFAULT_WORK } from '../../../spec/model.ts'
import type { Json } from '../../../spec/protocol.ts'
import { type AnyJson, harness, type Harness, type StartOptions, until } from './harness.ts'

let h: Harness
let gateway: Gateway
const ref = (...path: string[]) => ({ $ref: path })
beforeEach(async () => {
  h = await harness()
  h.configure(
    { plan: {}, work: { concurrency: 4 }, lead: { concurrency: 2, delegates_to: ['work'] } },
    {
      audit: {
        inputs: { n: { type: 'number', required: true } },
        jobs: {
          plan: { agent: 'plan', with: ref('inputs', 'n') },
          scan: { agent: 'work', needs: ['plan'], with: ref('it'), foreach: { in: ref('needs', 'plan', 'result'), as: 'it' } },
          sum: { agent: 'lead', needs: ['scan'], with: ref('needs', 'scan', 'result') },
        },
      },
    },
  )
})
afterEach(() => h.stop())

const folder = (): string => join(h.directory, 'state', 'archive')
const file = (run: string): string => join(folder(), `${run}.json.gz`)
const show = async (run: string) => (await h.control('GET', `/v1/runs/${run}`)).json
const started = new Map<string, number>()

async function start(options: StartOptions = {}): Promise<void> {
  gateway = await h.start(options)
  started.clear()
  h.agent('plan').run(1, async (task) => Array.from({ length: Number(task.input) }, (_, index) => index))
  h.agent('work').run(4, async (task) => {
    started.set(task.id, (started.get(task.id) ?? 0) + 1)
    if (task.input === 'fail') throw Object.assign(new Error('no luck'), { code: 'bad_luck' })
    return { done: task.input }
  })
  h.agent('lead').run(2, (task, { client, signal }) => client.delegate(task, 'child', 'work', 'from lead', signal))
}
async function restart(options: StartOptions = {}): Promise<void> {
  await gateway.close()
  gateway = await h.start(options)
}
const archived = (run: string): Promise<boolean> => until(`${run} is in the archive`, 15_000, () => existsSync(file(run)))
const gone = (run: string): Promise<boolean> =>
  until(`${run} has left the broker`, 15_000, async () => (await h.broker().readRun(run)) === null)
const plain = async (tasks: readonly Json[]): Promise<string> => {
  const run = await h.submit({ agent: 'work', type: 'task', tasks })
  await h.ended(run)
  return run
}
const keep = (runs: number) => ({ limits: { retention: { ...RETENTION_LIMITS, runs } } })

test('a run is shown from the archive as it was from the broker: pipeline, children, failures, events', async () => {
  await start(keep(1))
  const run = await h.submit({ pipeline: 'audit', inputs: { n: 3 } })
  const seen = await h.ended(run)
  expect(seen.status).toBe('completed')
  expect(seen.children).toBe(1)
  const child = [...started.keys()].find((id) => id.startsWith(`${run}.sum.0.`)) as string
  const childSeen = (await h.control('GET', `/v1/tasks/${child}`)).json
  const failed = await plain(['fail', 1])
  const failedSeen = await show(failed)
  await archived(run)
  for (let index = 0; index < 2; index++) await plain([index])
  await Promise.all([gone(run), gone(failed)])
  expect(await show(run)).toEqual(seen)
  expect(await show(failed)).toEqual(failedSeen)
  expect(failedSeen.jobs[0]).toMatchObject({ status: 'failed', error: { code: 'bad_luck' } })
  expect((await h.control('GET', `/v1/tasks/${child}`)).json).toEqual(childSeen)
  expect(childSeen).toMatchObject({ agent: 'work', status: 'completed', result: { done: 'from lead' } })
  const events = (await h.control('GET', `/v1/runs/${run}/events?follow=0`)).body.trim().split('\n')
  expect(events.map((line) => JSON.parse(line)).filter((it) => it.task === child && it.event === 'completed')).toHaveLength(1)
  // Children leave the broker too.
  expect(await h.broker().read([{ queue: 'work', id: child }])).toEqual([null])
})

test('lists have both, newest first, in pages', async () => {
  await start(keep(3))
  const runs: string[] = []
  for (let index = 0; index < 8; index++) runs.push(await plain([index]))
  await gone(runs[4] as string)
  const all = (await h.control('GET', '/v1/runs')).json.runs.map((it: { run: string }) => it.run)
  expect(all).toEqual(runs.toReversed())
  const paged: string[] = []
  for (let before: string | null = ''; before !== null; ) {
    const page: { runs: { run: string }[]; next: string | null } = (
      await h.control('GET', `/v1/runs?limit=3${before === '' ? '' : `&before=${before}`}`)
    ).json
    paged.push(...page.runs.map((it) => it.run))
    before = page.next
  }
  expect(paged).toEqual(runs.toReversed())
  expect((await h.control('GET', `/v1/runs?agent=work&status=completed&limit=100`)).json.runs).toHaveLength(8)
})

test('the same submit again after its run has left the broker makes no second run', async () => {
  await start(keep(1))
  const run = await plain([1])
  await plain([2])
  await plain([3])
  await gone(run)
  const again = await h.control('POST', '/v1/runs', { id: run, agent: 'work', type: 'task', tasks: [1] })
  expect(again.json).toMatchObject({ run, existing: true })
  expect(started.get(`${run}.task.0`)).toBe(1)
  expect(await h.broker().readRun(run)).toBeNull()
})

test('a run that ended and is not in the archive (a kill in between) is archived by the next gateway, before the broker forgets it', async () => {
  await start()
  const run = await plain([1, 2])
  const seen = await show(run)
  await archived(run)
  // As if the kill had come before the file was there.
  await gateway.close()
  rmSync(file(run))
  writeFileSync(join(folder(), `${run}.new`), 'half of it')
  rmSync(join(folder(), 'index.jsonl'))
  gateway = await h.start(keep(0))
  await archived(run)
  await gone(run)
  expect(await show(run)).toEqual(seen)
  expect(readdirSync(folder()).filter((it) => it.endsWith('.new'))).toEqual([])
})

test('a torn file is found, said, and left out; the others are there, also without their index', async () => {
  await start(keep(0))
  const [torn, whole] = [await plain(['x'.repeat(5_000)]), await plain([2])]
  const seen = await show(whole)
  await Promise.all([gone(torn), gone(whole)])
  await gateway.close()
  truncateSync(file(torn), Math.floor(statSync(file(torn)).size / 2))
  // A line of the index was torn too.
  writeFileSync(join(folder(), 'index.jsonl'), readFileSync(join(folder(), 'index.jsonl'), 'utf8').slice(0, -9))
  gateway = await h.start(keep(0))
  expect(await show(whole)).toEqual(seen)
  expect((await h.control('GET', `/v1/runs/${torn}`)).status).toBe(404)
  expect(h.log.map((it) => String(it.message)).filter((it) => it.includes(torn) && it.includes('torn'))).toHaveLength(1)
  await gateway.close()
  rmSync(join(folder(), 'index.jsonl'))
  gateway = await h.start(keep(0))
  expect((await h.control('GET', '/v1/runs')).json.runs.map((it: { run: string }) => it.run)).toEqual([whole])
  expect(await show(whole)).toEqual(seen)
})

test('the archive is bounded: the oldest files go', async () => {
  await start({ limits: { archive: { ...ARCHIVE_LIMITS, runs: 3 }, retention: { ...RETENTION_LIMITS, runs: 1 } } })
  const runs: string[] = []
  for (let index = 0; index < 6; index++) {
    runs.push(await plain([index]))
    await archived(runs.at(-1) as string)
  }
  await until('three are left', 10_000, () => readdirSync(folder()).filter((it) => it.endsWith('.gz')).length === 3)
  expect((await h.control('GET', '/v1/runs')).json.runs.map((it: { run: string }) => it.run)).toEqual(runs.slice(-3).toReversed())
  expect((await h.control('GET', `/v1/runs/${runs[0]}`)).status).toBe(404)
})

test('tasks and bytes count too, children included', async () => {
  // Of the memory that this Redis may use, a thousandth: 64 KiB.
  await h.stop()
  h = await harness({ flags: ['--maxmemory', '64mb'] })
  h.configure({ work: { concurrency: 4 }, lead: { concurrency: 2, delegates_to: ['work'] } })
  await start({ limits: { retention: { ...RETENTION_LIMITS, tasks: 5, share: 0.001 } } })
  const lead = await h.submit({ agent: 'lead', type: 'task', tasks: [1, 2] })
  await h.ended(lead)
  await archived(lead)
  // Four tasks with the children, and two more.
  await plain([1, 2])
  await gone(lead)
  const large = await plain(['y'.repeat(50_000)])
  await archived(large)
  const next = await plain(['z'.repeat(40_000)])
  await gone(large)
  expect(await h.broker().readRun(next)).not.toBeNull()
  expect((await show(large)).result).toEqual({ task: [{ done: 'y'.repeat(50_000) }] })
})

test('with no folder to write to, all stays in the broker, and it is said', async () => {
  writeFileSync(join(h.directory, 'state'), 'a file, not a folder')
  await start(keep(0))
  const run = await plain([1])
  await plain([2])
  expect((await show(run)).status).toBe('completed')
  expect(await h.broker().listRuns()).toHaveLength(2)
  expect(h.log.filter((it) => String(it.message).includes('cannot be written'))).toHaveLength(1)
  await restart()
  expect((await show(run)).status).toBe('completed')
})

test('a run that was half forgotten (its tasks, not its record, when the gateway was killed) still shows its results', async () => {
  await start()
  const run = await plain([1, 2])
  const seen = await show(run)
  await archived(run)
  await h.broker().forget([0, 1].map((item) => ({ queue: 'work', id: `${run}.task.${item}` })))
  expect(await h.broker().readRun(run)).not.toBeNull()
  expect(seen.result).toEqual({ task: [{ done: 1 }, { done: 2 }] })
  expect(await show(run)).toEqual(seen)
})

test('dead letters of runs that have left the broker are listed, shown with each execution, run again and dropped', async () => {
  h.configure({
    work: { concurrency: 4, work: { retry: { ...DEFAULT_WORK.retry, attempts: 2, delay_ms: 10, on: ['bad_luck'] } } },
    plan: {},
  })
  await start(keep(1))
  const letters = async (query = '') => (await h.control('GET', `/v1/dlq${query}`)).json
  const first = await plain(['fail', 'good', 'fail'])
  const second = await plain(['fail'])
  const [one, other, third] = [`${first}.task.0`, `${first}.task.2`, `${second}.task.0`]
  const listed = (await letters()).tasks
  expect([listed[0].id, listed.map((it: AnyJson) => it.id).toSorted()]).toEqual([third, [one, other, third].toSorted()])
  expect(listed.some((it: AnyJson) => it.archived !== undefined)).toBe(false)
  const live = (await h.control('GET', `/v1/dlq/${one}`)).json
  // Dropped while its run is in the broker: it does not come back with the archive's copy.
  expect((await h.control('POST', `/v1/dlq/${other}/drop`, {})).status).toBe(200)
  await archived(first)
  const last = await plain(['good'])
  await gone(second)
  expect((await letters()).tasks).toMatchObject([
    { id: third, archived: true, agent: 'work', status: 'failed', attempts: 2, error: { code: 'bad_luck' } },
    { id: one, archived: true },
  ])
  const show = (await h.control('GET', `/v1/dlq/${one}`)).json
  expect(show).toEqual({ ...live, archived: true })
  expect(show.history.map((it: AnyJson) => [it.attempt, it.error.message])).toEqual([
    [1, 'no luck'],
    [2, 'no luck'],
  ])
  // Pages lead from what the broker has into the archive.
  const fresh = `${await plain(['fail'])}.task.0`
  const ids: string[] = []
  for (let before: string | null = ''; before !== null; ) {
    const page: AnyJson = await letters(`?limit=1${before === '' ? '' : `&before=${before}`}`)
    ids.push(...page.tasks.map((it: AnyJson) => it.id))
    before = page.next
  }
  expect(ids).toEqual([fresh, third, one])
  expect((await letters('?agent=plan')).tasks).toEqual([])
  expect((await letters('?agent=work')).tasks).toHaveLength(3)

  const again = (await h.control('POST', `/v1/dlq/${third}/retry`, { input: 'mended' })).json.run
  expect(await h.ended(again)).toMatchObject({ status: 'completed', retry_of: second })
  expect((await h.control('POST', `/v1/dlq/${third}/drop`, {})).status).toBe(200)
  for (const path of [`/v1/dlq/${third}`, `/v1/dlq/${other}`, `/v1/dlq/${last}.task.0`])
    expect([path, (await h.control('GET', path)).json.error.code]).toEqual([path, 'AG6011'])
  await gone(fresh.split('.')[0] ?? '')
  await restart(keep(1))
  expect((await letters()).tasks.map((it: AnyJson) => it.id)).toEqual([fresh, one])
  expect((await h.control('POST', `/v1/dlq/${third}/drop`, {})).status).toBe(404)
})
