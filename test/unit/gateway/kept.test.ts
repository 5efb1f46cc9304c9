/** What is kept on disk costs memory and writes in measure, however much of it there is. */
import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Archive, ARCHIVE_FOLDER, type ArchivedTask } from '../../../engine/gateway/archive.ts'
import { childField } from '../../../engine/gateway/run-record.ts'
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
