import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Json, WorkError } from '../../../spec/protocol.ts'
import { type AgentOptions, AgentProcess, eventually } from './agent-process.ts'
import { DurableGateway } from './durable-gateway.ts'

let gateway: DurableGateway
let agents: AgentProcess[] = []
let folder: string

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'agentctl-durable-'))
  gateway = new DurableGateway()
  await gateway.start()
})
afterEach(async () => {
  await Promise.all(agents.map((agent) => agent.stop()))
  agents = []
  await gateway.die()
})

const running = (source: string, options: Partial<AgentOptions> = {}): AgentProcess => {
  const file = join(mkdtempSync(join(folder, 'module-')), 'agent.ts')
  writeFileSync(
    file,
    `import { AgentError } from '@agentctl/cli/agent'\nimport * as fs from 'node:fs'\nexport default async (input: any, ctx: any) => { ${source} }`,
  )
  const started = new AgentProcess({ port: gateway.port, handler: `module:${file}`, ...options })
  agents.push(started)
  return started
}
const result = async (lease: string): Promise<Json> => {
  const settlement = await gateway.ended(lease)
  return settlement.status === 'completed' ? settlement.result : `${settlement.error.code}: ${settlement.error.message}`
}
const failure = async (lease: string): Promise<WorkError | null> => {
  const settlement = await gateway.ended(lease)
  return settlement.status === 'failed' ? settlement.error : null
}
/** A later execution: what was recorded is in the journal. */
const again = (input: Json): string => gateway.task(input, { attempt: 2, journal: gateway.journal.size })

test('a recorded step does not run again, whoever asks for it, and side by side', async () => {
  const ran = join(folder, 'ran')
  writeFileSync(ran, '')
  running(`
    const once = (name: string) => ctx.step(name, async () => { fs.appendFileSync('${ran}', name + ' '); return { name, at: new Date(0), nothing: undefined } })
    const both = await Promise.all([once('a'), once('b'), once('a')])
    if (input.fail && ctx.task.attempt === 1) throw new AgentError('later', 'not yet', { retryable: true, after: 1500 })
    return [...both, await once('c')]
  `)
  expect(await failure(gateway.task({ fail: true }))).toEqual({ code: 'later', message: 'not yet', retryable: true, after_ms: 1500 })
  expect([...gateway.journal.keys()].sort()).toEqual(['a#1', 'a#2', 'b#1'])
  const at = '1970-01-01T00:00:00.000Z'
  expect(await result(again({ fail: true }))).toEqual([
    { name: 'a', at },
    { name: 'b', at },
    { name: 'a', at },
    { name: 'c', at },
  ])
  expect(readFileSync(ran, 'utf8').trim().split(' ').sort()).toEqual(['a', 'a', 'b', 'c'])
})

test('a value that is too large, a nested step and a step without a name are refused in words', async () => {
  running(`
    const code = (error: any) => error.code + ': ' + error.message.slice(0, 60)
    return [
      await ctx.step('big', () => 'x'.repeat(70_000)).catch(code),
      await ctx.step('outer', () => ctx.step('inner', () => 1)).catch(code),
      await ctx.step('', () => 1).catch(code),
      await ctx.step('function', () => () => 1).catch(code),
    ]
  `)
  expect(await result(gateway.task(null))).toEqual([
    expect.stringMatching(/^step_too_large: the value of the step big#1 has 70002 bytes/),
    expect.stringMatching(/^nested_step: the step "inner" is inside of the step "outer#1"/),
    expect.stringMatching(/^bad_step: the name of a step has 1 to 100 characters/),
    expect.stringMatching(/^bad_step: the value of the step function#1 is not JSON/),
  ])
  expect([...gateway.journal.keys()]).toEqual([])
})

test('records that an execution never asked for fail it for good, and so does a step of another kind', async () => {
  running(`
    for (const name of input.steps) await ctx.step(name, () => name, { workspace: name === input.change })
    if (ctx.task.attempt === 1) throw new AgentError('again', 'again', { retryable: true })
    return 'done'
  `)
  await failure(gateway.task({ steps: ['one', 'two'] }))
  expect(await failure(again({ steps: ['two', 'three'] }))).toEqual({
    code: 'nondeterministic',
    message: expect.stringContaining('recorded the steps one#1, which this one never asked for (AG6013)'),
    retryable: false,
  })
  expect(await failure(again({ steps: ['one', 'two', 'three'], change: 'two' }))).toMatchObject({
    code: 'nondeterministic',
    message: expect.stringContaining('two#1 was recorded without a workspace checkpoint and is asked for with one'),
  })
  expect(await result(again({ steps: ['one', 'two', 'three'] }))).toBe('done')
})

test('a record is not lost when the gateway is away or busy for a moment', async () => {
  let refusals = 0
  gateway.first = (seen) => {
    if (seen.path !== '/v1/journal' || refusals >= 3) return null
    refusals += 1
    return refusals === 1 ? 'destroy' : { status: refusals === 2 ? 503 : 429, body: { error: { code: 'unavailable', message: '' } } }
  }
  running(`return ctx.step('a', () => 7)`)
  expect(await result(gateway.task(null))).toBe(7)
  expect(gateway.journal.get('a#1')).toEqual({ key: 'a#1', kind: 'step', value: { value: 7 } })
})

test('the workspace of an execution is its own, goes with it, and comes back from the checkpoint', async () => {
  const started = running(`
    const file = ctx.workspace + '/notes/a.txt'
    const seen = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : null
    await ctx.step('write', () => { fs.mkdirSync(ctx.workspace + '/notes'); fs.writeFileSync(file, 'one') }, { workspace: true })
    if (input.more) await ctx.step('more', () => { fs.appendFileSync(file, ' two') }, { workspace: true })
    fs.appendFileSync(file, ' unrecorded')
    if (ctx.task.attempt === 1) throw new AgentError('again', 'again', { retryable: true })
    return [seen, fs.readFileSync(file, 'utf8'), ctx.workspace]
  `)
  await failure(gateway.task({ more: true }))
  expect([...gateway.journal.values()].map(({ key, kind }) => [key, kind])).toEqual([
    ['write#1', 'checkpoint'],
    ['more#1', 'checkpoint'],
  ])
  const [seen, now, path] = (await result(again({ more: true }))) as string[]
  expect([seen, now]).toEqual(['one two', 'one two unrecorded'])
  expect(path).toContain(started.folder)
  await eventually(() => !readable(path ?? ''), 'the folder is gone')
})

const readable = (path: string): boolean => {
  try {
    readFileSync(join(path, 'notes/a.txt'))
    return true
  } catch {
    return false
  }
}

test('without its checkpoint a later execution begins clean: steps that change the workspace run again, the others do not', async () => {
  const ran = join(folder, 'ran')
  writeFileSync(ran, '')
  running(`
    await ctx.step('think', () => { fs.appendFileSync('${ran}', 'think ') })
    await ctx.step('write', () => { fs.appendFileSync('${ran}', 'write '); fs.writeFileSync(ctx.workspace + '/a', 'one') }, { workspace: true })
    if (ctx.task.attempt === 1) throw new AgentError('again', 'again', { retryable: true })
    return fs.readFileSync(ctx.workspace + '/a', 'utf8')
  `)
  await failure(gateway.task(null))
  gateway.blobs.clear()
  expect(await result(again(null))).toBe('one')
  expect(readFileSync(ran, 'utf8')).toBe('think write write ')
  expect(gateway.lines.map(({ text }) => text).join('\n')).toContain('the workspace begins clean')
})

test('artifacts go both ways: text, bytes, files and streams; large ones to a file', async () => {
  const large = 20_000_000
  running(
    `
    const chunks = async function* () { for (let n = 0; n < 20; n += 1) yield Buffer.alloc(1_000_000, n) }
    fs.writeFileSync(ctx.workspace + '/in', 'from a file')
    const stored = [
      await ctx.artifact.put('a.txt', 'tëxt', { type: 'text/plain' }),
      await ctx.artifact.put('b', new Uint8Array([0, 255])),
      await ctx.artifact.put('c d/e', { path: ctx.workspace + '/in' }),
      await ctx.artifact.put('large', chunks()),
    ]
    const got = []
    for (const { digest } of stored.slice(0, 3)) got.push(Buffer.from(await ctx.artifact.get(digest)).toString('latin1'))
    const code = (error: any) => error.code
    const to = await ctx.artifact.get(stored[3].digest, { to: ctx.workspace + '/out' })
    return [stored.map(({ name, size, type }: any) => [name, size, type]), got, fs.statSync(to).size, await ctx.artifact.get(stored[3].digest).catch(code), await ctx.artifact.get('sha256:00').catch(code), await ctx.artifact.put('x', { path: '/nowhere' }).catch(code), await ctx.artifact.put('y', (function* () { yield Buffer.from('1'); throw new Error('broke') })()).catch((error: any) => error.message)]
  `,
  )
  expect(await result(gateway.task(null))).toEqual([
    [
      ['a.txt', 5, 'text/plain'],
      ['b', 2, 'application/octet-stream'],
      ['c d/e', 11, 'application/octet-stream'],
      ['large', large, 'application/octet-stream'],
    ],
    [Buffer.from('tëxt').toString('latin1'), '\u0000ÿ', 'from a file'],
    large,
    'artifact_too_large',
    'not_found',
    'io_error',
    'broke',
  ])
})

test('what a replayed step stored is stored by this execution too', async () => {
  running(`
    const view = await ctx.step('report', () => ctx.artifact.put('report.txt', 'the report', { type: 'text/plain' }))
    if (ctx.task.attempt === 1) throw new AgentError('again', 'again', { retryable: true })
    return view.digest
  `)
  const first = gateway.task(null)
  await failure(first)
  const second = again(null)
  const digest = await result(second)
  expect(gateway.artifacts.map(({ lease, name, type, digest }) => [lease, name, type, digest])).toEqual([
    [first, 'report.txt', 'text/plain', digest],
    [second, 'report.txt', 'text/plain', digest],
  ])
})

test('an approval frees the slot while it waits; no is an error with what the person said', async () => {
  running(`
    if (input === 'other') return 'other'
    const { comment } = await ctx.approve('deploy', 'Deploy?', { to: 'production' })
    const no = await ctx.approve('drop', 'Drop it?').catch((error: any) => error.code + ': ' + error.message)
    return [comment, no]
  `)
  const waiting = gateway.task(null)
  await eventually(() => gateway.approvals.length === 1, 'the question')
  expect(gateway.approvals[0]).toMatchObject({ key: 'deploy', message: 'Deploy?', data: { to: 'production' } })
  // One slot: free for another task.
  expect(await result(gateway.task('other'))).toBe('other')
  gateway.decide('deploy', 'approved', 'go on')
  await eventually(() => gateway.approvals.length === 2, 'the next question')
  gateway.decide('drop', 'rejected', 'no way')
  expect(await result(waiting)).toEqual(['go on', 'rejected: "Drop it?" was rejected: no way'])
})

test('a thousand children are made and waited for in batches; failures are told by the first in order', async () => {
  running(`
    if (input === 'bad') return ctx.delegateAll('shell', [1, 2, 3]).catch((error: any) => [error.name, error.code, error.task])
    if (input === 'large') return (await ctx.delegateAll('shell', Array.from({ length: 100 }, () => 0), { key: 'l' })).join('').length
    const all = await ctx.delegateAll('shell', Array.from({ length: 1000 }, (_, n) => n), { key: 'k' })
    return all.reduce((sum: number, n: number) => sum + n, 0)
  `)
  expect(await result(gateway.task(null))).toBe(499_500)
  expect(gateway.children.length).toBe(1_000)
  expect(gateway.children[999]).toMatchObject({ key: 'k#1000', input: 999 })
  const requests = gateway.requests.filter(({ path }) => path === '/v1/delegate' || path === '/v1/await')
  expect(requests.length).toBeLessThan(30)
  gateway.outcome = () => ({ status: 'completed', result: 'x'.repeat(60_000) })
  expect(await result(gateway.task('large'))).toBe(100 * 60_000)
  gateway.outcome = (input) =>
    input === 1 ? { status: 'completed', result: 1 } : { status: 'failed', error: { code: `no_${input}`, message: '' } }
  expect(await result(gateway.task('bad'))).toEqual(['DelegationError', 'no_2', 'child-1101'])
})

test('delegations have the same keys in a later execution, also when a step with some of them is replayed', async () => {
  running(`
    const inStep = await ctx.step('ask', async () => [await ctx.delegate('shell', 'in step'), await ctx.delegate('shell', 'in step, too')])
    const outside = await ctx.delegate('shell', 'outside')
    if (ctx.task.attempt === 1) throw new AgentError('again', 'again', { retryable: true })
    return [...inStep, outside]
  `)
  await failure(gateway.task(null))
  expect(await result(again(null))).toEqual(['in step', 'in step, too', 'outside'])
  expect(gateway.children.map(({ key }) => key)).toEqual(['ask#1/#1', 'ask#1/#2', '#1'])
})

test('lines of ctx.log and of commands reach the gateway before the end of their task, whole and in order', async () => {
  running(`ctx.log('hello', { n: 1 }); ctx.log('x'.repeat(20_000)); return null`)
  const lease = gateway.task(null)
  await result(lease)
  expect(gateway.lines.map(({ stream, text }) => [stream, text.length > 20 ? text.length : text])).toEqual([
    ['log', 'hello {"n":1}'],
    ['log', 8_000],
    ['log', 8_000],
    ['log', 4_000],
  ])
  gateway.lines.length = 0
  // The scripted gateway has place for one who waits.
  await Promise.all(agents.splice(0).map((agent) => agent.stop()))
  await eventually(() => !gateway.isAsked, 'the request of the killed agent is closed')
  running('return 0', { handler: 'exec' })
  await result(gateway.task({ command: "printf 'ä\\nno end'; sleep 0.4; echo; echo why >&2" }))
  expect(gateway.lines).toEqual([
    { stream: 'stdout', text: 'ä' },
    { stream: 'stdout', text: 'no end' },
    { stream: 'stderr', text: 'why' },
  ])
}, 20_000)

test('a task that writes faster than the gateway takes loses its oldest lines, is told so, and ends', async () => {
  gateway.first = ({ path }) => (path === '/v1/logs' ? { status: 503, body: {} } : null)
  running('', { handler: 'exec' })
  expect(await result(gateway.task({ command: 'seq 1 300000; sleep 0.3' }))).toMatchObject({ exit_code: 0, truncated: true })
  gateway.first = () => null
  await result(gateway.task({ command: 'seq 1 300000' }))
  expect(gateway.lines.map(({ text }) => text)).toContainEqual(expect.stringMatching(/^\(\d+ lines left out/))
  expect(gateway.lines.at(-1)?.text).toBe('300000')
  expect(Math.max(...gateway.requests.filter(({ path }) => path === '/v1/logs').map(({ raw }) => raw.length))).toBeLessThan(65_536)
})

test('a step of the work is told with its progress', async () => {
  running(
    `ctx.progress({ message: 'searched', step: { name: 'search', tool: 'grep', args_hash: 'ab', tokens: 12, milestone: 'm1' } }); return null`,
  )
  await result(gateway.task(null))
  expect(gateway.requests.find(({ path }) => path === '/v1/progress')?.body).toMatchObject({
    message: 'searched',
    step: { name: 'search', tool: 'grep', args_hash: 'ab', tokens: 12, milestone: 'm1' },
  })
})
