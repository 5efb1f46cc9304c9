import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Broker } from '../../../engine/broker/port.ts'
import { Admission } from '../../../engine/gateway/admission.ts'
import { dedupHash, Turns } from '../../../engine/gateway/dedup.ts'
import { Delays } from '../../../engine/gateway/delays.ts'
import { RunEvents } from '../../../engine/gateway/events.ts'
import { childrenOf, tasksOf } from '../../../engine/gateway/run-record.ts'
import { Witness } from '../../../engine/gateway/witness.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 't-records-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

const run = (name: string, seq: number) => ({ run: name, seq, at: 1_000 * seq, pipeline: null, jobs: { task: 'work' }, traceparent: '' })
const open = (log: (message: string) => void = () => {}): Promise<Witness> => Witness.open(directory, log)

test('the witness remembers over a kill: what is open, what has ended, how far the count was', async () => {
  const first = await open()
  await first.adopt('instance', 3)
  await first.submitted(run('a', 4))
  await first.submitted(run('b', 5))
  await first.submitted(run('c', 6))
  await first.endedRun('a', 7, 'completed')
  await first.endedRun('b', 8, 'failed')
  first.archived('b')
  await first.lost({ kind: 'truncated', from: 'x', to: 'y', runs: ['z'], at: 'now' })
  // No close: as after SIGKILL.
  const second = await open()
  expect(second.instance).toBe('instance')
  expect(second.last).toBe(8)
  expect([...second.open.keys()]).toEqual(['c'])
  expect([...second.ended.values()].map(({ run, status }) => [run, status])).toEqual([['a', 'completed']])
  expect(second.loss?.runs).toEqual(['z'])
  // Once more, from the file that the second wrote anew.
  const third = await open()
  expect([third.last, [...third.open.keys()], [...third.ended.keys()]]).toEqual([8, ['c'], ['a']])
  for (const it of [first, second, third]) await it.close()
})

test('a torn last line of the witness is left out, and said', async () => {
  const first = await open()
  await first.adopt('instance', 1)
  await first.submitted(run('a', 2))
  await first.close()
  appendFileSync(join(directory, 'witness.jsonl'), '{"t":"submit","run":"b","se')
  const said: string[] = []
  const second = await open((message) => said.push(message))
  expect([...second.open.keys()]).toEqual(['a'])
  expect(said).toHaveLength(1)
  expect(readFileSync(join(directory, 'witness.jsonl'), 'utf8')).not.toContain('"se\n')
  await second.close()
})

test('a count that comes twice is a loss; answers in another order are none', async () => {
  const witness = await open()
  let behind = 0
  witness.onBehind = () => {
    behind += 1
  }
  await witness.adopt('instance', 10)
  witness.mark(12)
  witness.mark(11)
  expect(behind).toBe(0)
  witness.mark(12)
  expect(behind).toBe(1)
  expect(witness.last).toBe(12)
  await witness.close()
})

const MIB = 1_048_576
const admission = (used: number, max: number, unfinished = 0): Admission =>
  new Admission({
    broker: { memory: async () => ({ used, max }) } as unknown as Broker,
    stateDir: null,
    agent: () => ({ work: { max_queue: 10 } }) as never,
    unfinished: () => unfinished,
    allUnfinished: () => unfinished,
  })
const need = (tasks: number, bytes: number) => new Map([['work', { tasks, bytes }]])

test('room is what is left below four fifths of the memory, for inputs that are held twice', async () => {
  expect(await admission(0, 100 * MIB).ask(need(1, 39 * MIB))).toBeNull()
  expect(await admission(0, 100 * MIB).ask(need(1, 41 * MIB))).toMatchObject({ kind: 'room' })
  expect(await admission(81 * MIB, 100 * MIB).ask(need(1, 0))).toMatchObject({ kind: 'room' })
  // No limit is set: Redis takes what the machine has.
  expect(await admission(81 * MIB, 0).ask(need(1, 41 * MIB))).toBeNull()
})

test('what was admitted and is not written yet counts', async () => {
  const it = admission(0, 100 * MIB)
  expect(await it.ask(need(1, 30 * MIB))).toBeNull()
  expect(it.askNow(need(1, 30 * MIB))).toMatchObject({ kind: 'room' })
  it.written(need(1, 30 * MIB))
  it.arrived(need(1, 30 * MIB))
  await it.look()
  expect(it.askNow(need(1, 30 * MIB))).toBeNull()
})

test('a queue is full with those that are on their way', async () => {
  const it = admission(0, 0, 4)
  expect(await it.ask(need(4, 0))).toBeNull()
  expect(it.askNow(need(3, 0))).toMatchObject({ kind: 'queue' })
  expect([it.fits('work', 2), it.fits('work', 3), it.fits('work', 11)]).toEqual(['now', 'later', 'never'])
  it.arrived(need(4, 0))
  expect(it.askNow(need(6, 0))).toBeNull()
})

test('work of one key takes turns, also after a failure; other keys do not wait', async () => {
  const turns = new Turns()
  const order: string[] = []
  const work = (name: string, ms: number) => async () => {
    order.push(`${name} begins`)
    await sleep(ms)
    order.push(`${name} ends`)
    if (name === 'a') throw new Error('a fails')
    return name
  }
  const first = turns.take('k', work('a', 20)).catch((error: Error) => error.message)
  const second = turns.take('k', work('b', 0))
  const other = turns.take('other', work('c', 0))
  expect(await Promise.all([first, second, other])).toEqual(['a fails', 'b', 'c'])
  expect(order.indexOf('b begins')).toBeGreaterThan(order.indexOf('a ends'))
  expect(order.indexOf('c begins')).toBeLessThan(order.indexOf('a ends'))
  expect(dedupHash('x')).toMatch(/^[0-9a-f]{32}$/)
})

test('the earliest delay rings first, one that was taken back does not, and one far away does not ring at once', async () => {
  const rung: string[] = []
  const delays = new Delays((id) => rung.push(id))
  const now = Date.now()
  delays.add('far', now + 10 * 365 * 86_400_000)
  delays.add('second', now + 60)
  delays.add('first', now + 20)
  delays.add('never', now + 30)
  delays.delete('never')
  expect(delays.due('second')).toBe(now + 60)
  for (let waits = 0; rung.length < 2 && waits < 500; waits++) await sleep(10)
  expect(rung).toEqual(['first', 'second'])
  expect([delays.due('first'), delays.due('far')]).toEqual([null, now + 10 * 365 * 86_400_000])
  delays.clear()
})

test('there may be any number of delays', () => {
  const delays = new Delays(() => {})
  const due = Date.now() + 86_400_000
  for (let n = 0; n < 200_000; n++) delays.add(`run_${n}`, due + n)
  expect(delays.due('run_199999')).toBe(due + 199_999)
  delays.clear()
  expect(delays.due('run_0')).toBeNull()
})

test('tasks of a run: of its jobs by number, and its children by name', () => {
  const definition = { pipeline: { jobs: { plan: { agent: 'a' }, scan: { agent: 'b' } } } }
  const record = new Map([
    ['def', JSON.stringify(definition)],
    ['job:plan', '{"phase":"completed","items":1}'],
    ['job:scan', '{"phase":"running","items":2}'],
    ['child:r.scan.0.abc', 'c'],
    ['child:r.scan.0.abc.def', 'a'],
    ['child:r.plan.0.abc', 'c'],
  ])
  expect(tasksOf('r', record).map(({ queue, id }) => `${queue} ${id}`)).toEqual([
    'a r.plan.0',
    'b r.scan.0',
    'b r.scan.1',
    'c r.scan.0.abc',
    'a r.scan.0.abc.def',
    'c r.plan.0.abc',
  ])
  expect(Object.fromEntries(childrenOf('r', record))).toEqual({ scan: 2, plan: 1 })
})

test('events of a run are kept up to a number of bytes, the latest ones', async () => {
  const kept: string[] = []
  const broker = {
    connected: true,
    readEvents: async () => [...kept],
    appendEvents: async (_: string, lines: readonly string[], keep: number) => {
      kept.push(...lines)
      kept.splice(0, Math.max(0, kept.length - keep))
    },
  } as unknown as Broker
  const task = { id: 'r.task.0', agent: 'work', run: 'r', lease: { epoch: 2 } }
  const text = 'é'.repeat(2_000)
  const first = new RunEvents(broker)
  first.begin('r')
  for (let index = 0; index < 300; index++) first.add(task, 'log', text)
  await first.flush()
  // Another gateway goes on with what it finds.
  const second = new RunEvents(broker)
  for (let index = 0; index < 10; index++) second.add(task, 'log', `${index}`)
  await second.flush()
  const bytes = kept.reduce((sum, line) => sum + Buffer.byteLength(line), 0)
  expect(bytes).toBeLessThanOrEqual(1_048_576)
  expect(bytes).toBeGreaterThan(1_000_000)
  expect(JSON.parse(kept.at(-1) as string)).toMatchObject({ message: '9', attempt: 2 })
  // From one of them on.
  const { id } = JSON.parse(kept.at(-3) as string) as { id: string }
  const told: string[] = []
  const stop = await second.watch('r', (lines) => void told.push(...lines), id)
  stop()
  expect(told.map((line) => JSON.parse(line).message)).toEqual(['8', '9'])
})

test('watchers of a run that begin at once are all told, and one whose reading failed is not kept', async () => {
  let fails = false
  const broker = {
    connected: true,
    readEvents: async () => {
      if (fails) throw new Error('gone')
      return []
    },
    appendEvents: async () => {},
  } as unknown as Broker
  const events = new RunEvents(broker)
  const task = { id: 'r.task.0', agent: 'work', run: 'r', lease: null }
  const told: [string, string][] = []
  const watch = (name: string) =>
    events.watch('r', (lines) => void told.push(...lines.map((it): [string, string] => [name, JSON.parse(it).message])))
  const stops = await Promise.all([watch('a'), watch('b')])
  fails = true
  await expect(watch('c')).rejects.toThrow('gone')
  fails = false
  events.begin('r')
  events.add(task, 'log', '1')
  await events.flush()
  expect(told).toEqual([
    ['a', '1'],
    ['b', '1'],
  ])
  stops[0]?.()
  events.add(task, 'log', '2')
  await events.flush()
  stops[1]?.()
  expect(told.slice(2)).toEqual([['b', '2']])
  expect(events.watched).toBe(0)
})
