/** What is kept on disk costs memory and writes in measure, however much of it there is. */
import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Broker } from '../../../engine/broker/port.ts'
import { Archive, ARCHIVE_FOLDER, type ArchivedTask } from '../../../engine/gateway/archive.ts'
import { archivedLetters } from '../../../engine/gateway/archived-letters.ts'
import { Archiver } from '../../../engine/gateway/archiver.ts'
import { Retention } from '../../../engine/gateway/retention.ts'
import { childField, jobField } from '../../../engine/gateway/run-record.ts'
import { Witness, WITNESS_FILE } from '../../../engine/gateway/witness.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 't-kept-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

test('a run is read from the archive without its children; each of them by its name', async () => {
  const run = 'run_01ARZ3NDEKTSV4RRFFQ69G5FAV'
  const [own, child] = [`${run}.task.0`, `${run}.task.0.0123456789abcdef`]
  const state = { epoch: 1, data: '{}', result: '1', failure: null, finished: true, retried: 0, added_ms: 1, fetched_ms: 1, ended_ms: 1 }
  async function* tasks(): AsyncGenerator<ArchivedTask> {
    for (const id of [own, child]) yield { id, queue: 'a', state }
  }
  const archive = await Archive.open(directory, () => {})
  const record = new Map([
    ['def', '{}'],
    [childField(child), 'a'],
  ])
  const now = Date.now()
  await archive.write({
    run,
    pipeline: null,
    status: 'completed',
    agents: ['a'],
    created: now,
    ended: now,
    record,
    tasks: tasks(),
    events: [],
  })
  expect(archive.entry(run)?.tasks).toBe(2)
  expect([...((await archive.read(run))?.tasks.keys() ?? [])]).toEqual([own])
  expect((await archive.read(run, { task: child }))?.tasks.get(child)?.state).toEqual(state)
})

test('a file of the archive that cannot be read now is not taken for one that is torn', async () => {
  const run = 'run_01ARZ3NDEKTSV4RRFFQ69G5FAW'
  async function* tasks(): AsyncGenerator<ArchivedTask> {}
  const archive = await Archive.open(directory, () => {})
  const now = Date.now()
  const record = new Map([['def', '{}']])
  await archive.write({
    run,
    pipeline: null,
    status: 'completed',
    agents: [],
    created: now,
    ended: now,
    record,
    tasks: tasks(),
    events: [],
  })
  const path = join(directory, ARCHIVE_FOLDER, `${run}.json.gz`)
  renameSync(path, `${path}.away`)
  // The system refuses to read it, whoever runs this test.
  mkdirSync(path)
  await expect(archive.read(run)).rejects.toThrow(/EISDIR/)
  expect(archive.has(run)).toBe(true)
  rmdirSync(path)
  renameSync(`${path}.away`, path)
  expect((await archive.read(run))?.record).toEqual(record)
})

test('with many open runs the witness is not written anew for each line', async () => {
  const witness = await Witness.open(directory, () => {})
  const submit = (seq: number): Promise<void> =>
    witness.submitted({ run: `run_${seq}`, seq, at: seq, pipeline: null, jobs: { task: 'a'.repeat(40) }, traceparent: '' })
  const many = 50_000
  await Promise.all(Array.from({ length: many }, (_, index) => submit(index + 1)))
  await submit(many + 1)
  const { ino, size } = statSync(join(directory, WITNESS_FILE))
  expect(size).toBeGreaterThan(4_194_304)
  for (let more = 2; more < 12; more += 1) {
    await submit(many + more)
    expect(statSync(join(directory, WITNESS_FILE)).ino).toBe(ino)
  }
  await witness.close()
  const again = await Witness.open(directory, () => {})
  expect(again.open.size).toBe(many + 11)
  await again.close()
})

/** A run of so many tasks that failed, each after 25 executions that wrote as much as is kept of one. */
function failedRun(run: string, count: number): Broker {
  const pipeline = { name: 'a', inputs: {}, jobs: { task: { id: 'task', agent: 'a', needs: [], type: 'task', with: null, foreach: null } } }
  const failure = JSON.stringify({ status: 'failed', error: { code: 'x', message: 'x' } })
  const state = { epoch: 25, data: '{}', result: null, failure, finished: true, retried: 24, added_ms: 1, fetched_ms: 1, ended_ms: 7 }
  const attempt = (number: number): string =>
    JSON.stringify({
      attempt: number,
      replica: 'a.1',
      started_at: '',
      ended_at: '',
      error: { code: 'x', message: 'x' },
      log: 'l'.repeat(4_096),
    })
  const broker: Pick<Broker, 'readRun' | 'read' | 'readAttempts' | 'deadLetter' | 'readEvents' | 'forget' | 'forgetRun'> = {
    readRun: async () =>
      new Map([
        ['def', JSON.stringify({ name: null, pipeline, inputs: {}, parent: null, traceparent: '' })],
        ['status', 'failed'],
        ['created', String(Date.now())],
        [jobField('task'), JSON.stringify({ phase: 'failed', items: count })],
      ]),
    read: async (tasks) => tasks.map(() => state),
    readAttempts: async () => Array.from({ length: 25 }, (_, index) => attempt(index + 1)),
    deadLetter: async ({ id, queue }) => ({ id, queue, epoch: 25, data: '{}', failure, ended_ms: 7 }),
    readEvents: async () => [],
    forget: async () => {},
    forgetRun: async () => {},
  }
  return broker as Broker
}

test('executions of a run are archived in measure: the latest of each task, without their logs beyond 8 MiB; and what is dropped stays so', async () => {
  const run = 'run_01ARZ3NDEKTSV4RRFFQ69G5FAX'
  const broker = failedRun(run, 200)
  const archive = await Archive.open(directory, () => {})
  const witness = await Witness.open(null, () => {})
  const retention = new Retention({ broker, memory: () => ({ used: 0, max: 0 }), log: () => {} })
  const archiver = new Archiver({ broker, archive, retention, witness, flushEvents: async () => {}, log: () => {} })
  archiver.add(run, 0)
  for (let looks = 0; !archive.has(run) && looks < 500; looks++) await new Promise((resolve) => setTimeout(resolve, 10))
  await archiver.close()
  const all = [...((await archive.read(run))?.tasks.values() ?? [])].map((task) => task.attempts ?? [])
  expect(all.map((attempts) => attempts.length)).toEqual(Array.from({ length: 200 }, () => 20))
  const numbers = all.at(-1)?.map((text) => (JSON.parse(text) as { attempt: number; error: object }).attempt)
  expect(numbers).toEqual(Array.from({ length: 20 }, (_, index) => index + 6))
  expect(all.flat().reduce((sum, text) => sum + text.length, 0)).toBeLessThan(9_500_000)

  const query = { limit: 1_000, after: undefined, agent: null, inBroker: new Set<string>() }
  expect(await archivedLetters(archive, query)).toHaveLength(200)
  expect(await archivedLetters(archive, { ...query, limit: 3 })).toHaveLength(3)
  for (let item = 0; item < 199; item++) await archive.dropped.add(`${run}.task.${item}`)
  const later = await Archive.open(directory, () => {})
  expect((await archivedLetters(later, query)).map(({ id }) => id)).toEqual([`${run}.task.199`])
  await later.dropped.add(`${run}.task.199`)
  expect(await archivedLetters(later, query)).toEqual([])
  expect(await archivedLetters(later, query)).toEqual([])
})
