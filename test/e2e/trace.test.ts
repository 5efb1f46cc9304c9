/** One trace per run, from the command through queue, gateway, agent and delegation: asserted from the bytes that an OTLP receiver got. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { OtlpReceiver, type ReceivedSpan } from '../support/otlp.ts'
import { agentctl, leftovers, projectFolder, type Result, run as shell, start } from './cli-process.ts'

const CANARY = `canary-${Math.random().toString(36).slice(2)}`
/** The receiver as the egress container, which alone has a way out, finds it. */
const telemetry = (port: number): string => `telemetry: { endpoint: "http://host.docker.internal:${port}" }\n`
const FILE = (name: string): string => `name: ${name}
agents:
  lead: { role: orchestrator, handler: { module: ./app/lead.ts }, delegates_to: [helper], secrets: [key] }
  helper: { handler: { module: ./app/helper.ts }, concurrency: 4 }
  shell: { handler: exec }
  liar: { handler: { module: ./app/liar.ts } }
secrets: { key: { environment: CANARY } }
pipelines:
  work:
    inputs: { text: { type: string, required: true } }
    jobs:
      plan: { agent: lead, with: { text: "\${{ inputs.text }}" } }
      close: { agent: helper, needs: [plan], with: { mode: slow, text: "\${{ needs.plan.result.text }}" } }
`
/** Whatever an agent holds goes everywhere where it may go: input of a child, result, progress, log. */
const HANDLERS = {
  'lead.ts': `import { readFileSync } from 'node:fs'
import type { Context } from '@agentctl/cli/agent'
export default async (input: { text: string }, ctx: Context) => {
  const secret = readFileSync('/run/secrets/key', 'utf8')
  ctx.progress({ message: secret, data: { secret } })
  ctx.log(secret)
  return await ctx.span('thinking', () => ctx.delegate('helper', { mode: 'flaky', text: input.text + secret }))
}
`,
  'helper.ts': `import { setTimeout as sleep } from 'node:timers/promises'
import type { Context } from '@agentctl/cli/agent'
export default async (input: { mode: string; text: string }, ctx: Context) => {
  if (input.mode === 'bad') throw Object.assign(new Error(input.text), { code: 'no_good' })
  if (input.mode === 'flaky' && ctx.task.attempt === 1) throw Object.assign(new Error(input.text), { code: 'once_more', retryable: true })
  if (input.mode === 'slow') await sleep(1_500)
  return { text: 'result of ' + input.text }
}
`,
  'liar.ts': `import { readFileSync } from 'node:fs'
const attributes = [['service.name', 'agentctl-gateway'], ['service.instance.id', '7'], ['service.namespace', 'other'], ['agentctl.project', 'other'], ['x.own', 'kept']]
export default async () => {
  const span = { traceId: 'f'.repeat(32), spanId: 'e'.repeat(16), name: 'a lie', kind: 1, startTimeUnixNano: '1', endTimeUnixNano: '2' }
  const resource = { attributes: attributes.map(([key, stringValue]) => ({ key, value: { stringValue } })) }
  const answer = await fetch(process.env.AGENTCTL_GATEWAY + '/v1/traces', {
    method: 'POST',
    headers: { authorization: 'Bearer ' + readFileSync('/run/secrets/agentctl-token', 'utf8'), 'content-type': 'application/json' },
    body: JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ spans: [span] }] }] }),
  })
  return answer.status
}
`,
}

let receiver: OtlpReceiver
const { name, folder } = projectFolder('trace', () => ({}))
mkdirSync(join(folder, 'app'), { mode: 0o755 })
for (const [file, text] of Object.entries(HANDLERS)) writeFileSync(join(folder, 'app', file), text)
const here = { cwd: folder, environment: { CANARY } }
const cli = (...args: readonly string[]): Promise<Result> => agentctl(args, here)
const up = async (on: boolean): Promise<void> => {
  writeFileSync(join(folder, 'agents.yaml'), `${FILE(name)}${on ? telemetry(receiver.port) : ''}`)
  const result = await cli('up', '-d')
  expect(result.code, result.stderr).toBe(0)
}

beforeAll(async () => {
  receiver = await OtlpReceiver.start()
  await up(true)
}, 300_000)
afterAll(async () => {
  await receiver.stop()
  const down = await cli('down', '-v')
  expect(down.code, down.stderr).toBe(0)
  expect(await leftovers(name)).toEqual([])
  rmSync(folder, { recursive: true, force: true })
}, 120_000)
beforeEach(() => void (receiver.requests.length = 0))

/** Spans of one run, once these are there (agents tell theirs a second later) and all that they hang on. */
const spansOf = async (run: string, names: readonly string[]): Promise<readonly ReceivedSpan[]> => {
  const mine = (spans: readonly ReceivedSpan[]): readonly ReceivedSpan[] => spans.filter((it) => it.attributes['agentctl.run.id'] === run)
  const isWhole = (spans: readonly ReceivedSpan[]): boolean =>
    Object.entries(Object.groupBy(names, (it) => it)).every(
      ([wanted, times = []]) => spans.filter((it) => it.name === wanted).length >= times.length,
    ) && spans.every(({ parent }) => parent === '' || spans.some((it) => it.span_id === parent))
  return mine(await receiver.waitFor((spans) => isWhole(mine(spans)), 20_000))
}
/** From the root down to the span, by parent ids alone. */
const pathTo = (span: ReceivedSpan, spans: readonly ReceivedSpan[]): readonly string[] => {
  const parent = spans.find((it) => it.span_id === span.parent)
  return [...(parent === undefined ? [] : pathTo(parent, spans)), span.name]
}
const expectOneTree = (spans: readonly ReceivedSpan[], trace_id: string, root: string): void => {
  expect(trace_id).toMatch(/^[0-9a-f]{32}$/)
  expect([...new Set(spans.map((it) => it.trace_id))]).toEqual([trace_id])
  expect(new Set(spans.map((it) => it.span_id)).size).toBe(spans.length)
  expect(spans.filter((it) => it.parent === '').map((it) => it.name)).toEqual([root])
  const ids = new Set(spans.map((it) => it.span_id))
  expect(spans.filter((it) => it.parent !== '' && !ids.has(it.parent)).map((it) => it.name)).toEqual([])
}
const WORK = ['agentctl run work', 'invoke_workflow work', 'invoke_agent lead', 'thinking', 'invoke_agent helper'] as const
const wholeWork = async (run: string): Promise<readonly ReceivedSpan[]> =>
  await spansOf(run, [...WORK, 'invoke_agent helper', 'invoke_agent helper'])

test('a pipeline with a delegation is one tree, and nothing that the agents said is in it', async () => {
  const { code, json } = await cli('run', 'work', '--input', `text=${CANARY}-input`, '--format', 'json')
  expect([code, json().status]).toEqual([0, 'completed'])
  expect(JSON.stringify(json().result)).toContain(`result of result of ${CANARY}-input`)
  const { run, trace_id } = json()
  const spans = await wholeWork(run)
  expectOneTree(spans, trace_id, 'agentctl run work')
  const of = (it: string): readonly ReceivedSpan[] => spans.filter((span) => span.name === it)

  const toLead = ['agentctl run work', 'invoke_workflow work', 'send lead', 'process lead', 'invoke_agent lead', 'thinking']
  const paths = of('invoke_agent helper')
    .map((span) => pathTo(span, spans).join(' > '))
    .sort()
  const [delegated, closing] = [
    [...toLead, 'send helper', 'process helper', 'invoke_agent helper'].join(' > '),
    ['agentctl run work', 'invoke_workflow work', 'send helper', 'process helper', 'invoke_agent helper'].join(' > '),
  ]
  expect(paths).toEqual([delegated, delegated, closing].sort())
  const started = of('agentctl.run.started')
  expect(started.map((span) => pathTo(span, spans).slice(0, -1))).toEqual([['agentctl run work', 'invoke_workflow work']])

  // The retried attempt is an error with its code, its sibling is not, and neither is anything above.
  // Below the delegation's one `send` two attempts: the first is an error with its code, its sibling is not, and nothing above is.
  const told = (span: ReceivedSpan): readonly unknown[] => [
    span.attributes['agentctl.job.attempt'],
    span.error,
    span.attributes['error.type'],
    span.status_message,
  ]
  const below = of('thinking')[0]?.span_id
  const sent = of('send helper').find((it) => it.parent === below)
  for (const isTold of [
    of('process helper').filter((it) => it.parent === sent?.span_id),
    of('invoke_agent helper').filter((it) => pathTo(it, spans).includes('thinking')),
  ])
    expect(isTold.map(told).toSorted((one, other) => Number(one[0]) - Number(other[0]))).toEqual([
      [1, true, 'once_more', ''],
      [2, false, undefined, ''],
    ])
  for (const above of ['agentctl run work', 'invoke_workflow work', 'process lead', 'invoke_agent lead'])
    expect(
      of(above).map((span) => span.error),
      above,
    ).toEqual([false])

  const services = Object.fromEntries(spans.map((span) => [span.name, span.resource['service.name']]))
  expect(services).toEqual({
    'agentctl run work': 'agentctl',
    'invoke_workflow work': 'agentctl-gateway',
    'agentctl.run.started': 'agentctl-gateway',
    'send lead': 'agentctl-gateway',
    'process lead': 'agentctl-gateway',
    'send helper': 'agentctl-gateway',
    'process helper': 'agentctl-gateway',
    'invoke_agent lead': 'lead',
    thinking: 'lead',
    'invoke_agent helper': 'helper',
  })
  expect(new Set(spans.map((span) => span.resource['service.namespace']))).toEqual(new Set([name]))
  expect(of('send lead')[0]?.kind).toBe('producer')
  expect(of('process lead')[0]?.kind).toBe('consumer')
  // A parent is not younger than its child (one machine, one clock).
  for (const span of spans) {
    const parent = spans.find((it) => it.span_id === span.parent)
    if (parent !== undefined) expect(span.start_ms, `${span.name} below ${parent.name}`).toBeGreaterThanOrEqual(parent.start_ms - 5)
  }

  expect(receiver.text()).not.toContain(CANARY)
  expect(receiver.text()).not.toContain('result of')
  expect(JSON.stringify(receiver.requests.map((request) => request.headers))).not.toContain('earer')
}, 90_000)

test('a single task is a trace of five spans', async () => {
  const { code, json } = await cli('task', 'shell', '{"command": "true"}', '--format', 'json')
  expect(code).toBe(0)
  const { id, trace_id } = json()
  const path = ['agentctl task shell', 'invoke_workflow shell', 'send shell', 'process shell', 'invoke_agent shell']
  const spans = await spansOf(id.split('.')[0], path)
  expectOneTree(spans, trace_id, 'agentctl task shell')
  const last = spans.find((it) => it.name === 'invoke_agent shell')
  expect(last === undefined ? [] : pathTo(last, spans)).toEqual(path)
  expect(last?.attributes).toMatchObject({ 'agentctl.task.id': id, 'agentctl.job.attempt': 1, 'gen_ai.agent.name': 'shell' })
}, 60_000)

test('an attempt that died with its agent is told by the gateway; the next one is its sibling', async () => {
  const running = start(['task', 'helper', '{"mode": "slow", "text": ""}', '--format', 'json'], here)
  await running.shows('running')
  await shell('docker', ['kill', `${name}-helper-1`])
  const { code, json } = await running.result
  expect([code, json().status, json().attempts]).toEqual([0, 'completed', 2])
  const spans = await spansOf(json().id.split('.')[0], ['agentctl task helper', 'process helper', 'process helper', 'invoke_agent helper'])
  expectOneTree(spans, json().trace_id, 'agentctl task helper')
  const attempts = spans.filter((it) => it.name === 'process helper')
  expect(new Set(attempts.map((it) => it.parent)).size).toBe(1)
  expect(attempts.map((it) => it.attributes['error.type']).filter((it) => it !== undefined)).toEqual(['agent_died'])
}, 60_000)

test('two runs are two traces', async () => {
  const results = await Promise.all(['a', 'b'].map((text) => cli('run', 'work', '--input', `text=${text}`, '--format', 'json')))
  const runs = results.map(({ json }) => json())
  expect(new Set(runs.map((it) => it.trace_id)).size).toBe(2)
  for (const { run, trace_id } of runs) expectOneTree(await wholeWork(run), trace_id, 'agentctl run work')
}, 90_000)

test('a failed run: ERROR and a code from the agent up to the root, the message nowhere', async () => {
  const { code, json } = await cli('task', 'helper', JSON.stringify({ mode: 'bad', text: `${CANARY}-message` }), '--format', 'json')
  expect([code, json().status, json().error.code]).toEqual([1, 'failed', 'no_good'])
  const spans = await spansOf(json().id.split('.')[0], ['agentctl task helper', 'invoke_workflow helper', 'invoke_agent helper'])
  expectOneTree(spans, json().trace_id, 'agentctl task helper')
  const errors = Object.fromEntries(spans.filter((it) => it.error).map((it) => [it.name, it.attributes['error.type']]))
  expect(errors).toEqual({
    'agentctl task helper': 'failed',
    'invoke_workflow helper': 'failed',
    'process helper': 'no_good',
    'invoke_agent helper': 'no_good',
  })
  expect(receiver.text()).not.toContain(CANARY)
}, 60_000)

test('a detached run, and one whose command was interrupted, are one tree each', async () => {
  const detached = await cli('run', 'work', '--input', 'text=x', '--detach', '--format', 'json')
  const interrupted = start(['run', 'work', '--input', 'text=y'], here)
  await interrupted.shows(/run_[0-9A-Z]{26}/)
  await interrupted.shows('running')
  interrupted.signal('SIGINT')
  const { code, stderr } = await interrupted.result
  expect(code).toBe(130)
  for (const run of [detached.json().run, /run_[0-9A-Z]{26}/.exec(stderr)?.[0] ?? '']) {
    const ended = (await cli('runs', 'wait', run, '--format', 'json')).json()
    expect(ended.status).toBe('completed')
    const spans = await wholeWork(run)
    expectOneTree(spans, ended.trace_id, 'agentctl run work')
    const root = spans.find((it) => it.parent === '')
    expect(root?.attributes['error.type']).toBe(run === detached.json().run ? undefined : 'AG7002')
  }
}, 120_000)

test('an agent that sends spans of its own is who its token says, whatever it claims', async () => {
  const { json } = await cli('task', 'liar', 'null', '--format', 'json')
  expect(json().result).toBe(200)
  const spans = await receiver.waitFor((all) => all.some((it) => it.name === 'a lie'), 20_000)
  const lie = spans.find((it) => it.name === 'a lie')
  expect(lie?.resource).toEqual({
    'service.name': 'liar',
    'service.instance.id': '1',
    'service.namespace': name,
    'agentctl.project': name,
    'x.own': 'kept',
  })
}, 60_000)

/** On a busy machine; the exports themselves could hang for minutes. */
const PROMPT_MS = 20_000

test('a receiver that hangs, answers 500 or is gone delays and fails nothing; one that is back gets the next run', async () => {
  const task = async (): Promise<Result> => await cli('task', 'shell', '{"command": "true"}', '--format', 'json')
  const prompt = async (what: string): Promise<void> => {
    const begin = Date.now()
    const { code, json, stderr } = await task()
    expect([code, json().status], what).toEqual([0, 'completed'])
    expect(Date.now() - begin, what).toBeLessThan(PROMPT_MS)
    expect(stderr, what).not.toMatch(/trace|telemetry|otlp/i)
  }
  receiver.mode = 'hang'
  await prompt('hangs')
  receiver.mode = 500
  await prompt('answers 500')
  receiver.mode = 'ok'
  await receiver.refuse()
  await prompt('refuses')
  await prompt('still refuses')
  await receiver.listen()
  const { json } = await task()
  expectOneTree(
    await spansOf(json().id.split('.')[0], ['agentctl task shell', 'invoke_agent shell']),
    json().trace_id,
    'agentctl task shell',
  )
}, 120_000)

test('without `telemetry:` nothing is sent; with it again the same gateway sends', async () => {
  const gateway = async (): Promise<string> =>
    (await shell('docker', ['inspect', '-f', '{{.Id}} {{.State.StartedAt}}', `${name}-agentctl-gateway-1`])).trim()
  const before = await gateway()
  await up(false)
  // What was under way to the receiver has arrived.
  await new Promise((resolve) => setTimeout(resolve, 2_000))
  receiver.requests.length = 0
  expect((await cli('task', 'shell', '{"command": "true"}')).code).toBe(0)
  await new Promise((resolve) => setTimeout(resolve, 3_000))
  expect(receiver.requests).toEqual([])
  await up(true)
  const { json } = await cli('task', 'shell', '{"command": "true"}', '--format', 'json')
  const spans = await spansOf(json().id.split('.')[0], ['agentctl task shell', 'invoke_workflow shell', 'invoke_agent shell'])
  expectOneTree(spans, json().trace_id, 'agentctl task shell')
  expect(await gateway()).toBe(before)
}, 120_000)
