/** What a task has done is not done again: steps, children, questions and files outlive the agents that die with them. */
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { ApprovalView, RunView } from '../../../spec/protocol.ts'
import { agent } from '../../support/project.ts'
import { type AgentProcess, eventually } from '../../unit/agents/agent-process.ts'
import { type World, world } from './world.ts'

const module = { kind: 'module', path: '/x.ts' } as const

function control<T>(on: World, method: string, path: string, body?: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const request = http.request({ socketPath: join(on.folder, 'control.sock'), method, path, headers, timeout: 20_000 }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => (text += String(chunk)))
      response.on('end', () => (response.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(`${path}: ${text}`))))
    })
    request.on('error', reject).on('timeout', () => request.destroy(new Error(`no answer: ${path}`)))
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
const approvals = async (on: World): Promise<readonly ApprovalView[]> =>
  (await control<{ readonly approvals: readonly ApprovalView[] }>(on, 'GET', '/v1/approvals')).approvals

/** A file that agents add a line to each time they do something; how often each was done. */
function ledger(on: World): { readonly file: string; readonly lines: () => readonly string[] } {
  const file = join(on.folder, `ledger-${Math.random()}`)
  writeFileSync(file, '')
  return {
    file,
    lines: () =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
  }
}
const sorted = (lines: readonly string[]): readonly string[] => [...lines].sort()
const only = ({ status, jobs }: RunView): unknown => [status, jobs[0]?.attempts, jobs[0]?.result, jobs[0]?.error?.message ?? null]

test('kill -9 again and again: no step and no child runs twice; one replica with one slot, three deep, by itself', async () => {
  await using on = await world([agent('nest', { handler: module, delegates_to: ['nest', 'leaf'] }), agent('leaf', { concurrency: 4 })])
  const [done, recorded] = [ledger(on), ledger(on)]
  const wait = join(on.folder, 'wait')
  const handler = on.module(`
    import { appendFileSync, existsSync } from 'node:fs'
    export default async ({ depth, name }: any, ctx: any) => {
      const did = (what: string) => appendFileSync('${done.file}', name + ':' + what + '\\n')
      const first = await ctx.step('first', async () => { did('first'); return name + '!' })
      const inner = depth > 0 ? await ctx.delegate('nest', { depth: depth - 1, name: name + depth }) : []
      const leaves = await ctx.delegateAll('leaf', [1, 2, 3].map(n => ({ command: 'echo ' + name + ':leaf' + n + ' >> ${done.file}; echo ' + n })))
      const both = await Promise.all([ctx.step('both', () => { did('both'); return 1 }), ctx.step('both', () => { did('both again'); return 2 })])
      // Here the test kills it: all is recorded.
      appendFileSync('${recorded.file}', name + '\\n')
      while (!existsSync('${wait}' + depth)) await new Promise(resolve => setTimeout(resolve, 20))
      await ctx.step('last', () => did('last'))
      return [first, ...inner, leaves.map((it: any) => it.stdout.trim()).join(''), both.join('')]
    }`)
  on.start('leaf')
  let nest: AgentProcess = on.start('nest', { handler })
  const run = await on.submit('nest', { depth: 3, name: 'a' })
  const names = ['a321', 'a32', 'a3', 'a']
  for (const [depth, name] of names.entries()) {
    await eventually(() => recorded.lines().includes(name), `the steps of ${name}`, 30_000)
    // Twice: a task that saw three deaths is held to be their cause.
    if (depth % 2 === 0) {
      nest.child.kill('SIGKILL')
      await nest.exited
    }
    writeFileSync(`${wait}${depth}`, '')
    if (depth % 2 === 0) nest = on.start('nest', { handler })
  }
  const view = await on.ended(run, 50_000)
  expect(only(view)).toEqual([
    'completed',
    expect.any(Number),
    ['a!', 'a3!', 'a32!', 'a321!', '123', '12', '123', '12', '123', '12', '123', '12'],
    null,
  ])
  const each = ['first', 'both', 'both again', 'last', 'leaf1', 'leaf2', 'leaf3']
  expect(sorted(done.lines())).toEqual(sorted(names.flatMap((name) => each.map((what) => `${name}:${what}`))))
})

test('a question to a person outlives the agent that asked and the gateway; meanwhile the only slot is free', async () => {
  await using on = await world([agent('asker', { handler: module })])
  const done = ledger(on)
  const handler = on.module(`
    import { appendFileSync } from 'node:fs'
    export default async (input: any, ctx: any) => {
      if (input === 'other') return 'other'
      await ctx.step('before', () => appendFileSync('${done.file}', 'before\\n'))
      const { comment } = await ctx.approve('deploy', 'Deploy it?', { to: 'production' })
      await ctx.step('after', () => appendFileSync('${done.file}', 'after\\n'))
      return [comment, await ctx.approve('more', 'More?').catch((error: any) => error.code + ': ' + error.message)]
    }`)
  const first = on.start('asker', { handler })
  const run = await on.submit('asker', null)
  await eventually(async () => (await approvals(on)).length === 1, 'the question')
  expect((await on.task('asker', 'other')).result).toBe('other')
  first.child.kill('SIGKILL')
  await on.killGateway()
  await on.startGateway()
  on.start('asker', { handler })
  const [asked] = await approvals(on)
  expect(asked).toMatchObject({ status: 'pending', message: 'Deploy it?', data: { to: 'production' } })
  await control(on, 'POST', `/v1/approvals/${asked?.id}`, { decision: 'approve', comment: 'go on' })
  const pending = async (): Promise<ApprovalView | undefined> => (await approvals(on)).find(({ status }) => status === 'pending')
  await eventually(async () => (await pending())?.key === 'more', 'the next question', 20_000)
  await control(on, 'POST', `/v1/approvals/${(await pending())?.id}`, { decision: 'reject', comment: 'no' })
  expect(only(await on.ended(run))).toMatchObject(['completed', 2, ['go on', 'rejected: "More?" was rejected: no'], null])
  expect(done.lines()).toEqual(['before', 'after'])
})

test('files: the workspace comes back from its checkpoint, artifacts reach parents and children', async () => {
  await using on = await world([
    agent('maker', { handler: module, delegates_to: ['reader'], concurrency: 2 }),
    agent('reader', { handler: module }),
  ])
  const done = ledger(on)
  const maker = on.module(`
    import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
    export default async (_: null, ctx: any) => {
      const file = ctx.workspace + '/a.txt'
      const found = existsSync(file) ? readFileSync(file, 'utf8') : ''
      await ctx.step('write', () => { appendFileSync('${done.file}', 'write\\n'); writeFileSync(file, 'checkpoint') }, { workspace: true })
      const report = await ctx.step('report', () => ctx.artifact.put('report.txt', { path: file }, { type: 'text/plain' }))
      appendFileSync(file, ' and more')
      if (ctx.task.attempt === 1) { appendFileSync('${done.file}', 'recorded\\n'); await new Promise(() => {}) }
      const upper = await ctx.delegate('reader', { digest: report.digest })
      const text = Buffer.from(await ctx.artifact.get(upper.digest)).toString()
      return { found, text, report: report.digest }
    }`)
  const reader = on.module(`
    export default async ({ digest }: any, ctx: any) => {
      const text = Buffer.from(await ctx.artifact.get(digest)).toString()
      return ctx.artifact.put('upper.txt', text.toUpperCase())
    }`)
  on.start('reader', { handler: reader })
  const first = on.start('maker', { handler: maker })
  const run = await on.submit('maker', null)
  await eventually(() => done.lines().includes('recorded'), 'the records')
  first.child.kill('SIGKILL')
  on.start('maker', { handler: maker })
  const view = await on.ended(run)
  expect(only(view)).toMatchObject(['completed', 2, { found: 'checkpoint', text: 'CHECKPOINT' }, null])
  expect(done.lines()).toEqual(['write', 'recorded'])
  const { artifacts } = await control<{ readonly artifacts: readonly { readonly name: string; readonly digest: string }[] }>(
    on,
    'GET',
    `/v1/runs/${run}/artifacts`,
  )
  // That of the step which was not run again, too.
  expect(artifacts.map(({ name }) => name).sort()).toEqual(['report.txt', 'upper.txt'])
})

test('an execution that does other steps than the recorded ones fails for good, in words', async () => {
  await using on = await world([agent('fickle', { handler: module })])
  on.start('fickle', {
    handler: on.module(`
      import { AgentError } from '@agentctl/cli/agent'
      export default async (_: null, ctx: any) => {
        await ctx.step('attempt ' + ctx.task.attempt, () => 1)
        if (ctx.task.attempt === 1) throw new AgentError('busy', 'later', { retryable: true, after: 10 })
      }`),
  })
  const { status, attempts, error } = await on.task('fickle', null)
  expect([status, attempts, error?.code, error?.message]).toEqual(['failed', 2, 'nondeterministic', expect.stringContaining('attempt 1#1')])
})

test('five hundred children of one task, and what it logs', async () => {
  await using on = await world([
    agent('many', { handler: module, delegates_to: ['one'] }),
    agent('one', { handler: module, concurrency: 50 }),
  ])
  on.start('one', { handler: on.module('export default (n: number) => n') })
  on.start('many', {
    handler: on.module(`
      export default async (count: number, ctx: any) => {
        ctx.log('begins', { count })
        const all = await ctx.delegateAll('one', Array.from({ length: count }, (_, n) => n))
        return all.reduce((sum: number, n: number) => sum + n, 0)
      }`),
  })
  const run = await on.submit('many', 500)
  expect(only(await on.ended(run))).toEqual(['completed', 1, 124_750, null])
  const logs = (await on.events(run)).filter(({ event }) => event === 'log')
  expect(logs.map(({ message, data }) => [message, data])).toEqual([['begins {"count":500}', { stream: 'log' }]])
})

test('the examples in sh and Python do their work at the real gateway', async () => {
  await using on = await world([
    agent('words', { delegates_to: ['shell'] }),
    agent('python', { delegates_to: ['python'], concurrency: 2 }),
    agent('shell'),
  ])
  const root = join(import.meta.dirname, '../../..')
  on.start('shell')
  on.start('words', { program: ['sh', join(root, 'examples/shell-agent/app/agent.sh')] })
  on.start('python', { program: ['python3', join(root, 'examples/python-agent/app/agent.py')] })
  expect(await on.task('words', { text: 'to be or "not" to be' })).toMatchObject({ result: { words: 6, first: 'to' } })
  expect(await on.task('words', { command: 'printf \'one "two"\\n three\'' })).toMatchObject({ result: { words: 3, first: 'one' } })
  expect(await on.task('words', { command: 'exit 1', more: 1 })).toMatchObject({ error: { code: 'bad_input' } })
  const { result } = await on.task('python', { texts: ['a', 'b c', 'd e f'] })
  expect(result).toMatchObject({ words: 6, report: expect.stringMatching(/^sha256:/) })
  expect(await on.task('python', { report: (result as { readonly report: string }).report })).toMatchObject({ result: { lines: 3 } })
  expect(await on.task('python', null)).toMatchObject({ status: 'failed', error: { code: 'bad_input' } })
  const run = await on.submit('python', { text: 'a', seconds: 60 })
  await eventually(async () => (await on.events(run)).some(({ event }) => event === 'progress'), 'progress')
  await on.cancel(run)
  expect((await on.ended(run)).status).toBe('cancelled')
  expect(await on.task('python', { text: 'a b' })).toMatchObject({ result: { words: 2 } })
})
