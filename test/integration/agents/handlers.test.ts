import { existsSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { JobView } from '../../../spec/protocol.ts'
import { agent } from '../../support/project.ts'
import { eventually } from '../../unit/agents/agent-process.ts'
import { type World, world } from './world.ts'

const module = { kind: 'module', path: '/x.ts' } as const
let on: World

beforeAll(async () => {
  on = await world([
    agent('shell', { concurrency: 4 }),
    agent('code', { handler: module, concurrency: 4 }),
    agent('nest', { handler: module, concurrency: 1, delegates_to: ['nest', 'shell'] }),
  ])
  on.start('shell')
  on.start('code', {
    handler: on.module(`
      import type { Context } from '@agentctl/cli/agent'
      import { AgentError } from '@agentctl/cli/agent'
      import { appendFileSync } from 'node:fs'
      export default async (input: { do: string; file?: string }, ctx: Context) => {
        if (input.do === 'spin') { const end = Date.now() + 5000; while (Date.now() < end); return 'spun' }
        if (input.do === 'exit') { await new Promise(r => setTimeout(r, 50)); process.exit(3) }
        if (input.do === 'fail') throw new AgentError('no_luck', 'not today')
        if (input.do === 'retry') { if (ctx.task.attempt === 1) throw new AgentError('busy', 'later', { retryable: true }); return ctx.task.attempt }
        if (input.do === 'large') return 'x'.repeat(70_000)
        if (input.do === 'progress') { ctx.progress('one'); ctx.progress({ message: 'two', percent: 50 }); return null }
        if (input.do === 'wait') { appendFileSync(input.file!, 'started\\n'); return new Promise((_, reject) => ctx.signal.addEventListener('abort', () => { appendFileSync(input.file!, 'aborted\\n'); reject(ctx.signal.reason) })) }
        return input
      }`),
  })
  on.start('nest', {
    handler: on.module(`
      export default async ({ depth, key }: any, ctx: any) => {
        if (key === 'shells') return (await ctx.delegateAll('shell', [1, 2, 3].map(n => ({ command: 'echo ' + n })))).map((r: any) => r.stdout.trim())
        if (key === 'forbidden') return ctx.delegate('code', {})
        if (key === 'failing') { try { await ctx.delegate('shell', { command: 'exit 9', check: true }) } catch (e: any) { return [e.name, e.code] } }
        if (depth === 0) return ['bottom']
        return [depth, ...await ctx.delegate('nest', { depth: depth - 1 })]
      }`),
  })
})
afterAll(() => on[Symbol.asyncDispose]())

const outcome = ({ status, result, error }: JobView): unknown => (error === null ? [status, result] : [status, error.code, error.message])

test('exec: result, non-zero exit, check, timeout, bad input', async () => {
  expect(outcome(await on.task('shell', { command: ['printf', '%s', 'ü'], env: { A: 'b' } }))).toEqual([
    'completed',
    { exit_code: 0, stdout: 'ü', stderr: '', truncated: false },
  ])
  expect(outcome(await on.task('shell', { command: 'cat; exit 5', stdin: 'in' }))).toEqual([
    'completed',
    { exit_code: 5, stdout: 'in', stderr: '', truncated: false },
  ])
  expect(outcome(await on.task('shell', { command: 'echo why >&2; exit 5', check: true }))).toEqual([
    'failed',
    'exit_code',
    'the command exited with 5: why',
  ])
  expect(outcome(await on.task('shell', { command: 'sleep 60', timeout: '200ms' }))).toEqual([
    'failed',
    'timeout',
    'the command did not end within 0.2 s',
  ])
  expect(outcome(await on.task('shell', { cmd: 'ls' }))).toEqual([
    'failed',
    'bad_input',
    'unknown key "cmd"; an exec task has command, cwd, env, stdin, timeout, check',
  ])
  expect(outcome(await on.task('shell', { command: 'env' }))).not.toContain('AGENTCTL_')
})

test('module: result, failure, retry, a result over the limit', async () => {
  expect(outcome(await on.task('code', { do: 'echo' }))).toEqual(['completed', { do: 'echo' }])
  expect(outcome(await on.task('code', { do: 'fail' }))).toEqual(['failed', 'no_luck', 'not today'])
  expect(outcome(await on.task('code', { do: 'retry' }))).toEqual(['completed', 2])
  expect(outcome(await on.task('code', { do: 'large' }))).toEqual([
    'failed',
    'payload_too_large',
    expect.stringContaining('the limit is 65536'),
  ])
})

test('progress comes between lease and end', async () => {
  const run = await on.submit('code', { do: 'progress' })
  await on.ended(run)
  const events = (await on.events(run)).map(({ event, message, percent }) =>
    [event, message, percent].filter((it) => it !== undefined).join(' '),
  )
  expect(events).toEqual(['queued', 'leased', 'progress one', 'progress two 50', 'completed'])
})

test('a module that ends its thread fails its task; the next one gets a new thread', async () => {
  expect(outcome(await on.task('code', { do: 'exit' }))).toEqual([
    'failed',
    'worker_exited',
    'the module ended its thread (process.exit(3)) during the task',
  ])
  expect(outcome(await on.task('code', { do: 'echo' }))).toEqual(['completed', { do: 'echo' }])
})

test('five seconds of synchronous work do not cost the lease', async () => {
  const run = await on.submit('code', { do: 'spin' })
  const { jobs } = await on.ended(run)
  expect(jobs.map(({ result, attempts }) => [result, attempts])).toEqual([['spun', 1]])
  expect((await on.events(run)).map(({ event }) => event)).toEqual(['queued', 'leased', 'completed'])
})

test.each([
  ['shell', (file: string) => ({ command: `trap 'echo aborted >> ${file}; exit 0' TERM; echo started > ${file}; sleep 60 & wait` })],
  ['code', (file: string) => ({ do: 'wait', file })],
])('cancel reaches what %s runs', async (name, input) => {
  const file = `${on.folder}/cancelled-${name}`
  const said = (): string => (existsSync(file) ? readFileSync(file, 'utf8') : '')
  const run = await on.submit(name, input(file))
  await eventually(() => said() === 'started\n', 'the start')
  await on.cancel(run)
  expect(await on.ended(run)).toMatchObject({ status: 'cancelled' })
  await eventually(() => said() === 'started\naborted\n', 'the signal')
  await eventually(async () => (await on.replicas()).every(({ tasks }) => tasks === 0), 'free slots')
  expect((await on.events(run)).map(({ event }) => event)).toEqual(['queued', 'leased', 'cancelled'])
})

test('one slot delegates three levels deep to its own agent', async () => {
  expect(outcome(await on.task('nest', { depth: 3 }))).toEqual(['completed', [3, 2, 1, 'bottom']])
})

test('children in parallel give their results in order; a failed or forbidden one is an error with a code', async () => {
  expect(outcome(await on.task('nest', { key: 'shells' }))).toEqual(['completed', ['1', '2', '3']])
  expect(outcome(await on.task('nest', { key: 'failing' }))).toEqual(['completed', ['DelegationError', 'exit_code']])
  const [status, code] = outcome(await on.task('nest', { key: 'forbidden' })) as readonly string[]
  expect([status, code]).not.toContain('completed')
})
