/** All runs are read anew after a loss of the broker's data: what the objects of before were about to write belongs to nobody. */
import { expect, test } from 'vitest'
import type { Broker, TaskState } from '../../../engine/broker/port.ts'
import { jobField } from '../../../engine/gateway/run-record.ts'
import { Runs, type RunsOptions } from '../../../engine/gateway/runs.ts'

const ID = 'run_01ARZ3NDEKTSV4RRFFQ69G5FAV'
const pipeline = { name: 'a', inputs: {}, jobs: { task: { id: 'task', agent: 'a', needs: [], type: 'task', with: null, foreach: null } } }
const record = new Map([
  ['def', JSON.stringify({ name: null, pipeline, inputs: {}, parent: null, traceparent: '' })],
  ['status', 'running'],
  ['created', '1'],
  [jobField('task'), JSON.stringify({ phase: 'running', items: 1 })],
])
const head = '{"run":"RUN","job":"task","parent":null,"depth":0,"type":"task","sent":null,"input":1}'.replace('RUN', ID)
const full = (): Error => Object.assign(new Error('OOM command not allowed'), { name: 'ReplyError' })

/** A broker with this one run, whose task has ended or not; while it is full it closes nothing. */
function world() {
  const now = { finished: true, full: true, closed: 0 }
  const state = (): TaskState => ({
    epoch: 1,
    data: head,
    result: now.finished ? '1' : null,
    failure: null,
    finished: now.finished,
    retried: 0,
    added_ms: 1,
    fetched_ms: 1,
    ended_ms: 1,
  })
  const broker: Pick<Broker, 'openRuns' | 'readRun' | 'listRuns' | 'read' | 'closeRun'> = {
    openRuns: async () => [ID],
    readRun: async () => record,
    listRuns: async () => [ID],
    read: async (tasks) => tasks.map(state),
    closeRun: async () => {
      if (now.full) throw full()
      now.closed += 1
      return 1
    },
  }
  const dispatcher = { task: () => undefined, cancel: async () => {}, found: () => {} }
  const options = {
    broker,
    project: () => null,
    dispatcher: () => dispatcher,
    tracing: { runEnded: () => {} },
    log: () => {},
    admission: { arrived: () => {} },
    archive: null,
    archiver: { add: () => {} },
    witness: { endedRun: async () => {} },
    began: () => {},
  }
  return { now, runs: new Runs(options as unknown as RunsOptions) }
}
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test('an end that the broker refused before a loss is not written after it, and the run as it was read anew stays open', async () => {
  const { now, runs } = world()
  await runs.recover([])
  await pause(50)
  // The end of its task is lost, too.
  now.finished = false
  await runs.recover([])
  now.full = false
  await pause(700)
  expect([now.closed, runs.isOpen(ID), runs.openCount]).toEqual([0, true, 1])
  expect(await runs.cancel(ID)).toBe(true)
  expect([now.closed, runs.isOpen(ID)]).toEqual([1, false])
  runs.close()
})

test('a cancel that the broker refused before a loss is one of the run as it was read anew', async () => {
  const { now, runs } = world()
  now.finished = false
  await runs.recover([])
  const cancelled = runs.cancel(ID)
  await pause(50)
  await runs.recover([])
  now.full = false
  expect(await cancelled).toBe(true)
  expect([now.closed, runs.isOpen(ID)]).toEqual([1, false])
  runs.close()
})
