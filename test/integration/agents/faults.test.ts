import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { agent } from '../../support/project.ts'
import { eventually } from '../../unit/agents/agent-process.ts'
import { world } from './world.ts'

const lines = (file: string): readonly string[] =>
  existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
    : []

test('a killed agent: another replica has its task in less than a second', async () => {
  await using on = await world([agent('worker')])
  const first = on.start('worker', { replica: 1 })
  await eventually(async () => (await on.replicas()).some(({ connected }) => connected), 'the first replica')
  const started = `${on.folder}/started`
  const run = await on.submit('worker', {
    command: `date +%s%N >> ${started}; sleep $(( $(wc -l < ${started}) == 1 ? 60 : 0 )); echo done`,
  })
  await eventually(() => lines(started).length === 1, 'the first start')
  on.start('worker', { replica: 2 })
  await eventually(async () => (await on.replicas()).filter(({ connected }) => connected).length === 2, 'the second replica')
  const killed = Date.now()
  first.child.kill('SIGKILL')
  const { status, jobs } = await on.ended(run)
  expect([status, jobs.map(({ attempts, result }) => [attempts, (result as { stdout: string }).stdout])]).toEqual([
    'completed',
    [[2, 'done\n']],
  ])
  expect(Number(lines(started)[1]) / 1e6 - killed).toBeLessThan(1_000)
  expect((await on.events(run)).map(({ event }) => event)).toEqual(['queued', 'leased', 'requeued', 'leased', 'log', 'completed'])
})

test('a killed gateway: the task is not run again, and its end reaches the next gateway', async () => {
  await using on = await world([agent('worker', { concurrency: 2 })])
  const worker = on.start('worker')
  const started = `${on.folder}/started`
  const command = (name: string, seconds: number): { command: string } => ({
    command: `echo ${name} >> ${started}; sleep ${seconds}; echo ${name}`,
  })
  // One ends while there is no gateway, one after the next has come.
  const run = await on.submit('worker', command('short', 1), command('long', 4))
  await eventually(() => lines(started).length === 2, 'both starts')
  await on.killGateway()
  await eventually(() => !worker.isReady, 'not ready')
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  await on.startGateway()
  await eventually(() => worker.isReady, 'ready again')
  const { status, jobs } = await on.ended(run)
  expect([status, jobs.map(({ attempts, result }) => [attempts, (result as { stdout: string }).stdout])]).toEqual([
    'completed',
    [
      [1, 'short\n'],
      [1, 'long\n'],
    ],
  ])
  expect([...lines(started)].sort()).toEqual(['long', 'short'])
})

test('a stopped agent gives its task back, and another one ends it', async () => {
  await using on = await world([agent('worker')])
  const first = on.start('worker', { replica: 1, env: { AGENTCTL_STOP_GRACE_MS: '300' } })
  const started = `${on.folder}/started`
  const run = await on.submit('worker', { command: `echo x >> ${started}; sleep $(( $(wc -l < ${started}) == 1 ? 60 : 0 ))` })
  await eventually(() => lines(started).length === 1, 'the first start')
  on.start('worker', { replica: 2 })
  expect(await first.stop('SIGTERM')).toBe(0)
  const { status, jobs } = await on.ended(run)
  expect([status, jobs[0]?.attempts]).toEqual(['completed', 2])
})

test('a thousand tasks over three replicas, one killed in the middle: each ends once with its own result', async () => {
  await using on = await world([agent('worker', { handler: { kind: 'module', path: '/x.ts' }, concurrency: 10 })])
  const handler = on.module('export default async (n: number) => { await new Promise(r => setTimeout(r, 5)); return n * 2 }')
  const replicas = [1, 2, 3].map((replica) => on.start('worker', { replica, handler }))
  await eventually(async () => (await on.replicas()).filter(({ connected }) => connected).length === 3, 'three replicas')
  const numbers = Array.from({ length: 1_000 }, (_, n) => n)
  const run = await on.submit('worker', ...numbers)
  await eventually(async () => (await on.events(run)).filter(({ event }) => event === 'completed').length > 100, 'a part of the run')
  replicas[0]?.child.kill('SIGKILL')
  const { status, jobs } = await on.ended(run)
  expect(status).toBe('completed')
  expect(jobs.map(({ result }) => result).sort((a, b) => Number(a) - Number(b))).toEqual(numbers.map((n) => n * 2))
})

test('a killed broker: what runs goes on, and its end is told when the broker is back', async () => {
  await using on = await world([agent('worker')])
  on.start('worker')
  const started = `${on.folder}/started`
  const run = await on.submit('worker', { command: `echo x >> ${started}; sleep 2; echo done` })
  await eventually(() => lines(started).length === 1, 'the start')
  // Written to its file at least once a second.
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  await on.redis.kill()
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  await on.redis.restart()
  const { status, jobs } = await on.ended(run)
  expect([status, jobs[0]?.attempts, lines(started)]).toEqual(['completed', 1, ['x']])
})
