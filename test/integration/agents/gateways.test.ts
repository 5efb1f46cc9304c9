/** Two gateways over one broker: every run is done by the one that has it, and the first speaks for both. */
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { expect, test } from 'vitest'
import { shardOf } from '../../../engine/gateway/shards/front.ts'
import { newRunId } from '../../../engine/ulid.ts'
import type { Json, RunEvent, RunSummary, RunView, SubmitReply } from '../../../spec/protocol.ts'
import { agent } from '../../support/project.ts'
import { eventually } from '../../unit/agents/agent-process.ts'
import { type World, world } from './world.ts'

const two = { gateway: { replicas: 2 } }
const module = { kind: 'module', path: '/x.ts' } as const

async function json<T>(on: World, method: string, path: string, body?: unknown, gateway?: number): Promise<T> {
  const { status, text } = await on.control(method, path, body, gateway)
  if (status !== 200) throw new Error(`${method} ${path}: HTTP ${status} ${text}`)
  return JSON.parse(text) as T
}
/** By an id that leads to that gateway, whoever is asked. */
async function submit(on: World, gateway: number, name: string, ...tasks: readonly Json[]): Promise<string> {
  let id = newRunId()
  while (shardOf(id, 2) !== gateway - 1) id = newRunId()
  return (await json<SubmitReply>(on, 'POST', '/v1/runs', { id, agent: name, type: 'task', tasks })).run
}
const own = (on: World, run: string, gateway: number): Promise<number> =>
  on.control('GET', `/v1/runs/${run}`, undefined, gateway).then(({ status }) => status)
const connected = (on: World): Promise<void> =>
  eventually(async () => (await on.replicas()).some((it) => it.connected), 'a replica that both gateways know')

test('one replica with one slot does the work of both gateways, children included', async () => {
  await using on = await world([agent('nest', { handler: module, delegates_to: ['nest'] })], two)
  const log = `${on.folder}/begun`
  on.start('nest', {
    handler: on.module(`
      import { appendFileSync } from 'node:fs'
      export default async ({ depth, name }: any, ctx: any) => {
        appendFileSync('${log}', name + '\\n')
        ctx.progress('at ' + depth)
        return depth === 0 ? [name] : [depth, ...await ctx.delegate('nest', { depth: depth - 1, name })]
      }`),
  })
  await connected(on)
  const inputs = (gateway: number): readonly Json[] => Array.from({ length: 20 }, (_, n) => ({ depth: n % 3, name: `${gateway}.${n}` }))
  const runs = await Promise.all([1, 2].map((gateway) => submit(on, gateway, 'nest', ...inputs(gateway))))
  for (const [index, run] of runs.entries()) {
    const { status, jobs } = await on.ended(run)
    expect([status, jobs.map(({ result }) => (result as Json[]).at(-1))]).toEqual([
      'completed',
      inputs(index + 1).map((it) => (it as { name: string }).name),
    ])
    expect(jobs.every(({ attempts }) => attempts === 1)).toBe(true)
  }
  // Each task and each child began once, and nobody had to wait for the end of the other gateway's work.
  const begun = readFileSync(log, 'utf8').trimEnd().split('\n')
  expect(begun).toHaveLength(2 * 39)
  expect(begun.slice(0, 39).some((name) => name.startsWith('1.'))).toBe(true)
  expect(begun.slice(0, 39).some((name) => name.startsWith('2.'))).toBe(true)
  expect(await Promise.all([own(on, runs[0] as string, 2), own(on, runs[1] as string, 2)])).toEqual([404, 200])
})

test('a killed gateway: its runs wait, those of the other go on, and all complete after its return', async () => {
  await using on = await world([agent('worker', { concurrency: 2 })], two)
  const worker = on.start('worker')
  await connected(on)
  const begun = `${on.folder}/begun`
  const held = await submit(on, 2, 'worker', {
    command: `echo held >> ${begun}; while ! test -e ${on.folder}/go; do sleep 0.05; done; echo done`,
  })
  await eventually(async () => (await on.replicas())[0]?.tasks === 1, 'a task of the second gateway')
  const waiting = await submit(on, 2, 'worker', ...Array.from({ length: 10 }, (_, n) => ({ command: `echo ${n}; sleep 0.2` })))
  const here = await submit(on, 1, 'worker', ...Array.from({ length: 10 }, (_, n) => ({ command: `echo ${n}; sleep 0.1` })))
  await on.killGateway(2)
  await eventually(async () => (await on.replicas()).every((it) => !it.connected), 'a replica that misses a gateway')
  const { jobs } = await on.ended(here)
  expect(jobs.map(({ status, attempts }) => [status, attempts])).toEqual(Array(10).fill(['completed', 1]))
  // Whether the second gateway has a run of that name already cannot be known.
  const refused = await on.control('POST', '/v1/runs', { id: newRunId(), agent: 'worker', type: 'task', tasks: [{ command: 'true' }] })
  expect([refused.status, refused.text.includes('AG5001')]).toEqual([503, true])
  // Nothing is made up about what cannot be asked.
  const list = await on.control('GET', '/v1/runs')
  expect([list.status, (JSON.parse(list.text) as { error: { code: string; message: string } }).error.code]).toEqual([503, 'AG5001'])
  expect(list.text).toContain('gateway-2')
  expect((await on.control('GET', `/v1/runs/${held}`)).status).toBe(503)
  expect((await on.replicas()).map((it) => it.connected)).toEqual([false])
  const health = await json<{ broker: boolean; gateways: unknown }>(on, 'GET', '/v1/health')
  expect([health.broker, health.gateways]).toEqual([
    false,
    [
      { name: 'gateway', ok: true, broker: true, open: 0 },
      { name: 'gateway-2', ok: false, broker: false, open: null },
    ],
  ])
  await on.startGateway(2)
  // Its own health is what it can do something about.
  expect(worker.isReady).toBe(true)
  await connected(on)
  await on.control('POST', '/v1/reload', {})
  writeFileSync(`${on.folder}/go`, '')
  expect((await on.ended(held)).jobs.map(({ status, attempts }) => [status, attempts])).toEqual([['completed', 1]])
  expect((await on.ended(waiting)).jobs.map(({ status }) => status)).toEqual(Array(10).fill('completed'))
  expect(readFileSync(begun, 'utf8')).toBe('held\n')
})

test('the first gateway finds and lists what either has', async () => {
  await using on = await world([agent('worker', { concurrency: 4 })], two)
  on.start('worker')
  await connected(on)
  const made: string[] = []
  for (let n = 0; n < 9; n++) made.push(await submit(on, 1 + (n % 2), 'worker', { command: n === 7 ? 'exit 3' : `echo ${n}`, check: true }))
  for (const run of made) await on.ended(run)
  // Pages of every size are the same list, newest first.
  const newest = made.toReversed()
  for (const limit of [1, 2, 4, 9, 100]) {
    const seen: string[] = []
    for (let before: string | null = ''; before !== null; ) {
      const page: { runs: readonly RunSummary[]; next: string | null } = await json(
        on,
        'GET',
        `/v1/runs?limit=${limit}${before === '' ? '' : `&before=${before}`}`,
      )
      seen.push(...page.runs.map(({ run }) => run))
      before = page.next
    }
    expect(seen, `pages of ${limit}`).toEqual(newest)
  }
  const failed = made[7] as string
  const { jobs } = await json<RunView>(on, 'GET', `/v1/runs/${failed}`)
  const task = jobs[0]?.id as string
  expect((await json<{ id: string; status: string }>(on, 'GET', `/v1/tasks/${task}`)).status).toBe('failed')
  expect((await json<{ id: string }>(on, 'GET', `/v1/tasks/${task}/explain`)).id).toBe(task)
  const { tasks } = await json<{ tasks: readonly { id: string }[] }>(on, 'GET', '/v1/dlq')
  expect(tasks.map(({ id }) => id)).toEqual([task])
  const again = await json<SubmitReply>(on, 'POST', `/v1/dlq/${task}/retry`, { id: newRunId(), input: { command: 'echo mended' } })
  expect((await on.ended(again.run)).status).toBe('completed')
  await json(on, 'POST', `/v1/dlq/${task}/drop`, {})
  expect((await json<{ tasks: readonly unknown[] }>(on, 'GET', '/v1/dlq')).tasks).toEqual([])
  const { text } = await on.control('GET', `/v1/runs/${made[1]}/events?follow=0`)
  const events = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as RunEvent)
  expect(events.map(({ event }) => event)).toEqual(['queued', 'leased', 'log', 'completed'])
  const gone = await on.control('GET', `/v1/runs/${newRunId()}`)
  expect([gone.status, gone.text.includes('AG6001')]).toEqual([404, true])
  const sleeper = await submit(on, 2, 'worker', { command: 'sleep 60' })
  await on.cancel(sleeper)
  expect((await on.ended(sleeper)).status).toBe('cancelled')
})

test('the same id or key, sent many times at once, is one run; new ones go to both', async () => {
  await using on = await world([agent('worker')], two)
  const request = { agent: 'worker', type: 'task', tasks: [{ command: 'true' }] }
  const send = (more: object): Promise<SubmitReply> => json(on, 'POST', '/v1/runs', { ...request, ...more })
  const id = newRunId()
  // Half of them have a key too, which would lead elsewhere.
  const replies = await Promise.all(Array.from({ length: 20 }, (_, n) => send(n % 2 === 0 ? { id } : { id, dedup_key: `by id ${n}` })))
  expect(new Set(replies.map(({ run }) => run))).toEqual(new Set([id]))
  expect(replies.filter(({ existing }) => existing !== true)).toHaveLength(1)
  for (const key of ['a', 'b', 'c', 'd']) {
    const same = await Promise.all(Array.from({ length: 10 }, () => send({ dedup_key: key, id: newRunId() })))
    expect(new Set(same.map(({ run }) => run)).size, key).toBe(1)
  }
  // A run that was given to the other gateway directly is found by its key.
  const direct = await json<SubmitReply>(on, 'POST', '/v1/runs', { ...request, dedup_key: 'direct' }, 2)
  const direct1 = await json<SubmitReply>(on, 'POST', '/v1/runs', { ...request, dedup_key: 'direct 1' }, 1)
  for (let n = 0; n < 3; n++) {
    expect(await send({ dedup_key: 'direct' })).toEqual({ run: direct.run, existing: true })
    expect(await send({ dedup_key: 'direct 1' })).toEqual({ run: direct1.run, existing: true })
  }
  await Promise.all(Array.from({ length: 30 }, () => send({})))
  const { runs } = await json<{ runs: readonly RunSummary[] }>(on, 'GET', '/v1/runs?limit=1000')
  expect(runs).toHaveLength(1 + 4 + 2 + 30)
  const second = await json<{ runs: readonly RunSummary[] }>(on, 'GET', '/v1/runs?limit=1000', undefined, 2)
  expect(second.runs.length).toBeGreaterThan(3)
  expect(second.runs.length).toBeLessThan(34)
})

test('the way between gateways is closed to agents', async () => {
  await using on = await world([agent('worker')], two)
  const run = await submit(on, 2, 'worker', { command: 'true' })
  const ask = (port: number | undefined, path: string, token: string): Promise<number> =>
    new Promise((resolve, reject) => {
      http
        .get({ host: '127.0.0.1', port, path, headers: { authorization: `Bearer ${token}` } }, (answer) => {
          answer.resume().once('end', () => resolve(answer.statusCode ?? 0))
        })
        .once('error', reject)
    })
  for (const path of [`/control/v1/runs/${run}`, '/control/health', `/control/find?kind=run&name=${run}`, '/control/v1/runs'])
    for (const port of on.ports()) {
      expect(await ask(port, path, on.token('worker')), path).toBe(404)
      expect(await ask(port, path, 'x'.repeat(32)), path).toBe(401)
    }
})
