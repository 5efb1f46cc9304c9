/**
 * What the gateway relies on, asked of a real broker: any Redis that passes may be the project's. `connect` opens a connection of a project of
 * that name; the suite keeps to the keys of its own projects and leaves none.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Broker, NewTask } from '../../../engine/broker/port.ts'

export interface ConformanceOptions {
  readonly connect: (project: string) => Broker
  /** Deletes what the project left. */
  readonly clean: (project: string) => Promise<void>
}

const FAILED = '{"status":"failed","error":{"code":"x","message":"y"}}'
const CANCELLED = '{"status":"cancelled","error":null}'

export function brokerConformance(name: string, { connect, clean }: ConformanceOptions): void {
  describe(`broker: ${name}`, () => {
    const project = `t-conformance-${randomBytes(4).toString('hex')}`
    let broker: Broker
    let other: Broker
    let queue = ''
    let number = 0

    beforeAll(async () => {
      broker = connect(project)
      other = connect(project)
      await Promise.all([ready(broker), ready(other)])
    })
    beforeEach(() => {
      queue = `q${++number}`
    })
    afterAll(async () => {
      await Promise.all([broker.close(), other.close()])
      await clean(project)
    })

    const tasks = (count: number, more: Partial<NewTask> = {}, prefix = 't'): NewTask[] =>
      Array.from({ length: count }, (_, at) => ({ queue, id: `${prefix}${at}`, data: `{"n":${at}}`, ...more }))
    const ids = (list: readonly { readonly id: string }[]): string[] => list.map((it) => it.id)
    const fetchAll = async (): Promise<string[]> => {
      const found: string[] = []
      for (;;) {
        const next = await broker.fetch(queue, 'a')
        if (next === null) return found
        found.push(next.id)
        expect(await broker.complete(queue, next.id, 'a', '1', false)).toEqual({ ok: true, next: null })
      }
    }

    test('first come, first served; the same id again changes nothing', async () => {
      await broker.add(tasks(3))
      await broker.add([{ queue, id: 't1', data: '{"n":"other"}' }])
      expect(await broker.lengths([queue])).toEqual([{ waiting: 3, active: 0, delayed: 0 }])
      expect((await broker.fetch(queue, 'a'))?.id).toBe('t0')
      expect(await broker.fetch(queue, 'a')).toEqual({ id: 't1', epoch: 1, data: '{"n":1}' })
      expect(await broker.complete(queue, 't0', 'a', '"r"', true)).toMatchObject({ ok: true, next: { id: 't2', epoch: 1 } })
      const [state] = await broker.read([{ queue, id: 't0' }])
      expect(state).toMatchObject({ finished: true, result: '"r"', failure: null, epoch: 1 })
      await broker.add([{ queue, id: 't0', data: '{}' }])
      expect(await broker.lengths([queue])).toEqual([{ waiting: 0, active: 2, delayed: 0 }])
      expect(await broker.fetch(queue, 'a')).toBeNull()
    })

    test('only the holder of the lock ends a task, and once', async () => {
      await broker.add(tasks(1))
      await broker.fetch(queue, 'a')
      expect(await other.complete(queue, 't0', 'b', '2', false)).toEqual({ ok: false })
      expect(await other.requeue(queue, 't0', 'b')).toBe(false)
      expect(await other.retryLater(queue, 't0', 'b', 10, false)).toBe(false)
      expect(await other.extend(queue, [{ id: 't0', token: 'b' }])).toEqual(['t0'])
      expect(await broker.extend(queue, [{ id: 't0', token: 'a' }])).toEqual([])
      expect(await broker.active(queue)).toMatchObject([{ id: 't0', epoch: 1, data: '{"n":0}', holder: 'a' }])
      expect((await broker.complete(queue, 't0', 'a', '1', false)).ok).toBe(true)
      expect((await broker.complete(queue, 't0', 'a', '3', false)).ok).toBe(false)
      expect((await broker.read([{ queue, id: 't0' }]))[0]?.result).toBe('1')
      await other.requeue(queue, 't0', null)
      expect(await broker.lengths([queue])).toEqual([{ waiting: 0, active: 0, delayed: 0 }])
    })

    test('what goes back is the next, in a new epoch; failures and deaths are counted with their records', async () => {
      await broker.add(tasks(2))
      const ref = { queue, id: 't0' }
      await broker.fetch(queue, 'a')
      expect(await broker.countFailure(ref, 1, '{"attempt":1}')).toBe(1)
      expect(await broker.countFailure(ref, 1, '{"attempt":1}')).toBe(1)
      expect(await broker.requeue(queue, 't0', 'a')).toBe(true)
      expect(await broker.fetch(queue, 'b')).toMatchObject({ id: 't0', epoch: 2 })
      expect(await broker.countDeath(ref, 2, '{"attempt":2}')).toBe(1)
      expect(await broker.countDeath(ref, 2)).toBe(1)
      expect(await broker.countDeath(ref, 3)).toBe(2)
      await broker.recordAttempt(ref, 10, '{"attempt":10}')
      await broker.recordAttempt(ref, 9, '{"attempt":9}')
      expect(await broker.readAttempts(ref)).toEqual(['{"attempt":1}', '{"attempt":2}', '{"attempt":9}', '{"attempt":10}'])
      expect(await broker.readAttempts({ queue, id: 't1' })).toEqual([])
      expect((await broker.read([ref]))[0]).toMatchObject({ epoch: 2, retried: 1, finished: false })
      // An unlocked one: of a holder that nobody knows.
      expect(await broker.requeue(queue, 't0', null)).toBe(false)
      expect(await broker.requeue(queue, 't0', 'b')).toBe(true)
    })

    test('priorities: the queue is put in order, also those that are active, delayed or held then', async () => {
      await broker.add(tasks(600))
      await broker.add([...tasks(1, { delay_ms: 60_000 }, 'delayed'), ...tasks(1, { held: true }, 'held')])
      expect((await broker.fetch(queue, 'a'))?.id).toBe('t0')
      await broker.order(queue, ['t0', 'delayed0', 'held0'])
      await broker.add(tasks(1, { priority: -9 }, 'last'))
      await broker.add(tasks(2, { priority: 9 }, 'first'))
      await broker.add(tasks(1, { priority: 0 }, 'plain'))
      expect(await broker.position({ queue, id: 't1' })).toBe(2)
      expect(await broker.position({ queue, id: 'plain0' })).toBe(601)
      expect((await broker.lengths([queue]))[0]).toMatchObject({ waiting: 603, active: 1 })
      expect(await broker.waiting(queue)).toHaveLength(603)
      await broker.promote([
        { queue, id: 'held0' },
        { queue, id: 'delayed0' },
      ])
      // Before those of its own priority, after those of a higher one.
      expect(await broker.requeue(queue, 't0', 'a')).toBe(true)
      const order = await fetchAll()
      const arrived = Array.from({ length: 599 }, (_, at) => `t${at + 1}`)
      expect(order).toEqual(['first0', 'first1', 't0', ...arrived, 'plain0', 'held0', 'delayed0', 'last0'])
    })

    test('a delayed task is not fetched before its time; a held one not before it is promoted', async () => {
      const from = Date.now()
      await broker.add([...tasks(1, { delay_ms: 1_500 }, 'later'), ...tasks(3, { held: true }, 'held')])
      expect(await broker.fetch(queue, 'a')).toBeNull()
      expect(await broker.lengths([queue])).toEqual([{ waiting: 0, active: 0, delayed: 1 }])
      const [later, ...held] = await broker.delayed(queue)
      expect(later).toMatchObject({ id: 'later0', data: '{"n":0}', held: false, retry: false })
      expect(later?.due).toBeGreaterThanOrEqual(from + 1_500)
      expect(held.map(({ id, due, held: isHeld }) => [id, due, isHeld])).toEqual([0, 1, 2].map((at) => [`held${at}`, null, true]))
      const promoted = [
        { queue, id: 'held1' },
        { queue, id: 'held0' },
        { queue, id: 'nothing' },
      ]
      await broker.promote(promoted)
      // Sent twice.
      await broker.promote(promoted)
      expect([await broker.fetch(queue, 'a'), await broker.fetch(queue, 'a'), await broker.fetch(queue, 'a')].map((it) => it?.id)).toEqual([
        'held1',
        'held0',
        undefined,
      ])
      await sleep(Math.max(0, (later?.due ?? 0) + 5 - Date.now()))
      expect((await broker.lengths([queue]))[0]).toMatchObject({ waiting: 1, delayed: 0 })
      expect((await broker.fetch(queue, 'a'))?.id).toBe('later0')
      expect(Date.now() - from).toBeGreaterThanOrEqual(1_500)
      expect(ids(await broker.delayed(queue))).toEqual(['held2'])
    })

    test('held tasks keep the order in which they were added', async () => {
      for (let at = 0; at < 3; at++) await broker.add(tasks(1_000, { held: true }, `h${at}-`))
      const expected = [0, 1, 2].flatMap((at) => Array.from({ length: 1_000 }, (_, n) => `h${at}-${n}`))
      expect(ids(await broker.delayed(queue))).toEqual(expected)
    })

    test('a retry after a pause', async () => {
      await broker.add(tasks(2))
      await broker.fetch(queue, 'a')
      await broker.fetch(queue, 'a')
      const from = Date.now()
      expect(await broker.retryLater(queue, 't0', 'a', 1_000, false)).toBe(true)
      // Sent again, because the connection broke before the answer.
      expect(await broker.retryLater(queue, 't0', 'a', 1_000, false)).toBe(true)
      expect(await broker.retryLater(queue, 't1', 'a', 5_000, true)).toBe(true)
      expect(await broker.complete(queue, 't0', 'a', '1', false)).toEqual({ ok: false })
      const delayed = await broker.delayed(queue)
      expect(delayed.map(({ id, held, retry }) => [id, held, retry])).toEqual([
        ['t0', false, true],
        ['t1', true, true],
      ])
      expect(delayed[1]?.due).toBeGreaterThanOrEqual(from + 5_000)
      expect(await broker.fetch(queue, 'a')).toBeNull()
      await sleep(Math.max(0, (delayed[0]?.due ?? 0) + 5 - Date.now()))
      expect(await broker.fetch(queue, 'b')).toMatchObject({ id: 't0', epoch: 2 })
      await broker.promote([{ queue, id: 't1' }])
      expect(await broker.fetch(queue, 'b')).toMatchObject({ id: 't1', epoch: 2 })
    })

    test('a rate: so many start per window, and it is told how long that lasts', async () => {
      await broker.setRate(queue, { max: 3, per_ms: 2_000 })
      await broker.add(tasks(6))
      expect(broker.limitedUntil(queue)).toBe(0)
      for (let at = 0; at < 3; at++) expect((await broker.fetch(queue, 'a'))?.id).toBe(`t${at}`)
      expect(await broker.fetch(queue, 'a')).toBeNull()
      const until = broker.limitedUntil(queue)
      expect(until).toBeGreaterThan(Date.now())
      expect(until).toBeLessThanOrEqual(Date.now() + 2_000)
      // The end of one is told too, and takes none.
      expect(await broker.complete(queue, 't0', 'a', '1', true)).toEqual({ ok: true, next: null })
      // Of the server, not of this connection.
      expect(await other.fetch(queue, 'b')).toBeNull()
      await sleep(until - Date.now() + 5)
      expect(await broker.complete(queue, 't1', 'a', '1', true)).toMatchObject({ ok: true, next: { id: 't3' } })
      await broker.setRate(queue, null)
      expect(await fetchAll()).toEqual(['t4', 't5'])
    })

    test('dead letters: failed and dead ones of all queues, newest first, in pages; dropped ones keep their job', async () => {
      const ended: string[] = []
      for (const [index, name] of [`${queue}-x`, `${queue}-y`].entries()) {
        await broker.add(Array.from({ length: 5 }, (_, at) => ({ queue: name, id: `d${index}${at}`, data: `{"n":${at}}` })))
        for (let at = 0; at < 5; at++) {
          const task = await broker.fetch(name, 'a')
          await broker.fail(name, task?.id ?? '', 'a', at === 2 ? CANCELLED : FAILED, false)
          if (at !== 2) ended.push(task?.id ?? '')
        }
      }
      const mine = (list: readonly { readonly id: string; readonly queue: string }[]): string[] =>
        ids(list.filter((it) => it.queue.startsWith(`${queue}-`)))
      const all = await broker.deadLetters(1_000)
      expect(mine(all).sort()).toEqual([...ended].sort())
      expect(all.map((it) => it.ended_ms)).toEqual(all.map((it) => it.ended_ms).sort((a, b) => b - a))
      expect(all[0]).toMatchObject({ epoch: 1, failure: FAILED })
      const paged: string[] = []
      for (let page = await broker.deadLetters(3); page.length > 0; page = await broker.deadLetters(3, page.at(-1)))
        paged.push(...ids(page))
      expect(paged).toEqual(ids(all))
      const ref = { queue: `${queue}-x`, id: 'd00' }
      expect(await broker.deadLetter(ref)).toMatchObject({ id: 'd00', failure: FAILED })
      expect(await broker.dropDeadLetter(ref)).toBe(true)
      expect(await broker.dropDeadLetter(ref)).toBe(false)
      expect(await broker.deadLetter(ref)).toBeNull()
      expect(await broker.deadLetter({ queue: `${queue}-x`, id: 'd02' })).toBeNull()
      expect((await broker.read([ref]))[0]).toMatchObject({ finished: true, failure: FAILED })
    })

    test('what waits, in line or not, can be removed; what is locked stays', async () => {
      await broker.add([...tasks(2), ...tasks(1, { held: true }, 'held'), ...tasks(1, { delay_ms: 60_000 }, 'later')])
      await broker.fetch(queue, 'a')
      await broker.remove(['t0', 't1', 'held0', 'later0'].map((id) => ({ queue, id })))
      expect(await broker.lengths([queue])).toEqual([{ waiting: 0, active: 1, delayed: 0 }])
      expect(await broker.delayed(queue)).toEqual([])
      expect(
        (
          await broker.read([
            { queue, id: 't1' },
            { queue, id: 't0' },
          ])
        ).map((it) => it === null),
      ).toEqual([true, false])
      expect(await broker.queues()).toContain(queue)
    })

    test('one that waits can be taken to be ended, wherever it waits', async () => {
      await broker.add([...tasks(1), ...tasks(1, { held: true }, 'held'), ...tasks(1, { delay_ms: 60_000 }, 'later')])
      for (const id of ['t0', 'held0', 'later0']) {
        expect(await broker.seize(queue, id, '-')).toBe(true)
        expect((await broker.fail(queue, id, '-', FAILED, false)).ok).toBe(true)
        expect(await broker.seize(queue, id, '-')).toBe(false)
      }
      expect(await broker.lengths([queue])).toEqual([{ waiting: 0, active: 0, delayed: 0 }])
    })

    test('records of runs: made once, closed, forgotten', async () => {
      const run = `run_${queue}`
      expect(await broker.createRun(run, 1_000, [['status', 'running']])).not.toBeNull()
      expect(await other.createRun(run, 1_000, [['status', 'other']])).toBeNull()
      expect(await broker.claimRunField(run, 'f', 'one')).toEqual({ value: 'one', made: true })
      expect(await other.claimRunField(run, 'f', 'two')).toEqual({ value: 'one', made: false })
      expect(await broker.openRuns()).toContain(run)
      await broker.closeRun(run, [['status', 'completed']])
      expect(await broker.openRuns()).not.toContain(run)
      expect((await broker.readRun(run))?.get('status')).toBe('completed')
      await broker.appendEvents(run, ['a', 'b', 'c'], 2)
      expect(await broker.readEvents(run)).toEqual(['b', 'c'])
      await broker.forgetRun(run)
      expect(await broker.readRun(run)).toBeNull()
    })
  })
}

function ready(broker: Broker): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no connection to the broker within 20 s: ${broker.problem?.message ?? ''}`)), 20_000)
    const off = broker.onConnected(() => {
      clearTimeout(timer)
      setImmediate(() => off())
      resolve()
    })
  })
}
