import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Json } from '../../../spec/protocol.ts'
import { type AgentOptions, AgentProcess, eventually } from './agent-process.ts'
import { ScriptedGateway } from './scripted-gateway.ts'

let gateway: ScriptedGateway
let agents: AgentProcess[] = []

beforeEach(async () => {
  gateway = new ScriptedGateway()
  await gateway.start()
})
afterEach(async () => {
  await Promise.all(agents.map((agent) => agent.stop()))
  agents = []
  await gateway.die()
})

const agent = (options: Partial<AgentOptions> = {}): AgentProcess => {
  const started = new AgentProcess({ port: gateway.port, ...options })
  agents.push(started)
  return started
}
const module = (source: string, extension = 'ts'): string => {
  const file = join(mkdtempSync(join(tmpdir(), 'agentctl-module-')), `agent.${extension}`)
  writeFileSync(file, source)
  return `module:${file}`
}
const running = (source: string, options: Partial<AgentOptions> = {}): AgentProcess => agent({ handler: module(source), ...options })
const end = async (lease: string): Promise<Json> => (await gateway.ended(lease)) as unknown as Json
const error = async (lease: string): Promise<string> => {
  const settlement = await gateway.ended(lease)
  return settlement.status === 'failed' ? `${settlement.error.code}: ${settlement.error.message}` : 'completed'
}

test('it shows its token and one session, is ready when connected, and completes a command', async () => {
  const started = agent()
  const lease = gateway.task({ command: 'echo hi' })
  expect(await end(lease)).toEqual({ lease, status: 'completed', result: { exit_code: 0, stdout: 'hi\n', stderr: '', truncated: false } })
  expect(started.isReady).toBe(true)
  expect(
    new Set(gateway.requests.map((seen) => `${seen.headers.authorization} ${String(seen.headers['agentctl-session']).length}`)),
  ).toEqual(new Set(['Bearer a-token 32']))
})

test('it never asks for more tasks than it has slots', async () => {
  agent({ concurrency: 2 })
  const leases = Array.from({ length: 6 }, () => gateway.task({ command: 'sleep 0.05' }))
  for (const lease of leases) await gateway.ended(lease)
  expect(Math.max(...gateway.leases.map(({ want }) => want))).toBe(2)
})

test('it beats at least every second for what it works on', async () => {
  agent()
  const lease = gateway.task({ command: 'sleep 2.6' })
  await gateway.ended(lease)
  expect(gateway.leases.filter(({ beat }) => beat?.includes(lease)).length).toBeGreaterThanOrEqual(2)
})

test('it beats for what has ended until the gateway says that it knows', async () => {
  agent({ concurrency: 2 })
  // Of two tasks one goes on, so that there are beats, and the end of the other is not answered.
  gateway.script = ({ raw }) => (raw.includes('"done"') ? 'hold' : null)
  gateway.task({ command: 'sleep 20' })
  const lease = gateway.task({ command: 'true' })
  const ended = (): number => gateway.requests.findIndex(({ raw }) => raw.includes('"done"'))
  await eventually(() => ended() >= 0, 'the end is told')
  const from = gateway.leases.length
  await eventually(() => gateway.leases.slice(from).filter(({ beat }) => beat !== undefined).length >= 2, 'two beats after it')
  for (const { beat } of gateway.leases.slice(from)) if (beat !== undefined) expect(beat).toContain(lease)
})

test('a cancelled command is stopped and says so', async () => {
  agent()
  const lease = gateway.task({ command: 'sleep 60' })
  await eventually(() => gateway.leases.some(({ beat }) => beat?.includes(lease)), 'a beat')
  gateway.cancel(lease)
  expect(await error(lease)).toBe('cancelled: the task was cancelled')
})

test('a gateway that dies is waited for: the task goes on and its end is told to the next one', async () => {
  const started = agent()
  const lease = gateway.task({ command: 'sleep 0.5; echo survived' })
  await eventually(() => gateway.leases.length > 1, 'the lease')
  const { port } = gateway
  await gateway.die()
  await eventually(() => !started.isReady, 'not ready')
  await new Promise((resolve) => setTimeout(resolve, 600))
  await gateway.start(port)
  expect(await end(lease)).toMatchObject({ status: 'completed', result: { stdout: 'survived\n' } })
  await eventually(() => started.isReady, 'ready again')
})

test('a settlement whose answer was lost is sent again, one for a lost lease is not', async () => {
  let lost = 0
  gateway.script = ({ body }) => (JSON.stringify(body).includes('"done"') && lost++ === 0 ? 'destroy' : null)
  agent()
  const lease = gateway.task({ command: 'true' })
  await gateway.ended(lease)
  expect(lost).toBeGreaterThan(1)
  let told = 0
  gateway.settle = (settlement) => {
    if (settlement.lease !== gone) return { lease: settlement.lease, ok: true }
    told += 1
    return { lease: gone, ok: false, code: 'lease_lost' }
  }
  const gone = gateway.task({ command: 'true' })
  await eventually(() => told > 0, 'a settlement')
  await gateway.ended(gateway.task({ command: 'true' }))
  expect(told).toBe(1)
})

test('one settlement that the gateway cannot take does not keep the others', async () => {
  gateway.script = ({ body }) =>
    JSON.stringify(body).includes('"result":"poison"')
      ? { status: 413, body: { error: { code: 'payload_too_large', message: 'no' } } }
      : null
  running('export default async (input: string) => { await new Promise(r => setTimeout(r, 50)); return input }', { concurrency: 3 })
  const leases = ['one', 'poison', 'two'].map((input) => gateway.task(input))
  expect(await Promise.all(leases.map(async (lease) => (await gateway.ended(lease)).status))).toEqual(['completed', 'failed', 'completed'])
  expect(await error(leases[1] ?? '')).toBe('payload_too_large: the gateway did not take the result of this task')
})

test('SIGTERM lets a short task end, gives a long one back, and exits 0', async () => {
  const started = agent({ concurrency: 2, env: { AGENTCTL_STOP_GRACE_MS: '1500' } })
  const [short, long] = [gateway.task({ command: 'sleep 0.5' }), gateway.task({ command: 'sleep 60' })]
  await eventually(() => gateway.leases.length > 1, 'the leases')
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(await started.stop('SIGTERM')).toBe(0)
  expect(await end(short)).toMatchObject({ status: 'completed' })
  expect(await end(long)).toMatchObject({ status: 'failed', error: { code: 'agent_stopped', retryable: true } })
}, 20_000)

test('a module gets its input and context; its result and its errors come back', async () => {
  running(
    `import type { Context } from '@agentctl/cli/agent'
     import { AgentError } from '@agentctl/cli/agent'
     export default async (input: { kind: string }, ctx: Context) => {
       if (input.kind === 'throw') throw new AgentError('no_luck', 'try later', { retryable: true })
       if (input.kind === 'plain') throw new TypeError('broken')
       if (input.kind === 'nothing') return
       if (input.kind === 'cycle') { const a: any = {}; a.a = a; return a }
       if (input.kind === 'large') return 'x'.repeat(70_000)
       ctx.log('hello', { n: 1 })
       return { task: ctx.task, aborted: ctx.signal.aborted }
     }`,
    { concurrency: 9 },
  )
  const leases = ['ok', 'throw', 'plain', 'nothing', 'cycle', 'large'].map((kind) => gateway.task({ kind }))
  const [ok, thrown, plain, nothing, cycle, large] = (await Promise.all(leases.map(end))) as Json[]
  expect(ok).toMatchObject({
    result: { task: { id: `run_x.job.${leases[0]}`, run: 'run_x', type: 'task', attempt: 1, deadline: null }, aborted: false },
  })
  expect(thrown).toMatchObject({ error: { code: 'no_luck', message: 'try later', retryable: true } })
  expect(plain).toMatchObject({ error: { code: 'error', message: 'broken', retryable: false } })
  expect(nothing).toMatchObject({ status: 'completed', result: null })
  expect(cycle).toMatchObject({ error: { code: 'bad_result' } })
  expect(large).toMatchObject({ error: { code: 'payload_too_large', message: expect.stringContaining('the limit is 65536') } })
  await eventually(() => agents[0]?.output.includes('"message":"hello"') === true, 'the log line')
})

test.each([
  ['a missing file', null, /^module_load_failed: .*cannot be loaded: .*Cannot find module/],
  ['a syntax error', 'export default async () => {\n  return 1 +\n}', /^module_load_failed: .*agent\.ts cannot be loaded: .*/],
  ['an error at import', 'throw new Error("no config")', /^module_load_failed: .*agent\.ts cannot be loaded: Error: no config/],
  ['no default export', 'export const x = 1', /^module_load_failed: .*expected a default export like/],
  ['a missing dependency', 'import "left-pad"\nexport default () => 1', /^module_load_failed: .*Cannot find package 'left-pad'/],
])('%s is the error of the task', async (_, source, message) => {
  agent({ handler: source === null ? 'module:/no/such.ts' : module(source) })
  expect(await error(gateway.task(1))).toMatch(message)
})

test.each([
  [
    'an uncaught error',
    'setTimeout(() => { throw new Error("boom") }, 10)',
    'worker_crashed: the module crashed with an uncaught error: boom',
  ],
  ['process.exit', 'process.exit(7)', 'worker_exited: the module ended its thread (process.exit(7)) during the task'],
  [
    'too much memory',
    'const all: number[][] = []; for (;;) all.push(new Array(1e6).fill(1))',
    'worker_crashed: the module ran out of memory; raise mem_limit of the agent, or keep less in memory',
  ],
])(
  '%s fails the tasks of the thread; the next task gets a new one',
  async (_, code, message) => {
    running(`export default async (input: string) => { if (input === 'die') { ${code}; await new Promise(() => {}) } return input }`, {
      env: { AGENTCTL_MODULE_HEAP_MB: '64' },
    })
    expect(await end(gateway.task('before'))).toMatchObject({ result: 'before' })
    expect(await error(gateway.task('die'))).toBe(message)
    expect(await end(gateway.task('after'))).toMatchObject({ result: 'after' })
  },
  30_000,
)

test('synchronous work of a module does not keep the supervisor from beating', async () => {
  running('export default () => { const end = Date.now() + 3000; while (Date.now() < end); return "done" }')
  const lease = gateway.task(null)
  expect(await end(lease)).toMatchObject({ result: 'done' })
  expect(gateway.leases.filter(({ beat }) => beat?.includes(lease)).length).toBeGreaterThanOrEqual(2)
})

test('a module that heeds its signal ends when it is cancelled or its deadline has passed', async () => {
  running(
    'export default (_: null, ctx: any) => new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason)))',
    { concurrency: 2 },
  )
  const late = gateway.task(null, { deadline: Date.now() + 300 })
  const lease = gateway.task(null)
  expect(await error(late)).toBe('timeout: the task was stopped')
  gateway.cancel(lease)
  expect(await error(lease)).toBe('cancelled: the task was cancelled')
})

test('a module that does not heed its signal loses its thread, not the slot', async () => {
  running('export default (input: string) => { if (input === "spin") for (;;); return input }')
  const lease = gateway.task('spin')
  await eventually(() => gateway.leases.some(({ beat }) => beat?.includes(lease)), 'a beat')
  gateway.cancel(lease)
  expect(await error(lease)).toBe('cancelled: the task was cancelled')
  expect(await end(gateway.task('next'))).toMatchObject({ result: 'next' })
}, 20_000)

test('progress is told in order, before the end of the task', async () => {
  running(
    'export default async (_: null, ctx: any) => { ctx.progress("one"); ctx.progress({ message: "two", percent: 50, data: { a: 1 } }) }',
  )
  const lease = gateway.task(null)
  await gateway.ended(lease)
  const wire = gateway.requests
    .filter(({ path, body }) => path === '/v1/progress' || JSON.stringify(body).includes('"done"'))
    .map(({ path, body }) => (path === '/v1/progress' ? body : 'done'))
  expect(wire.slice(0, 3)).toEqual([{ lease, message: 'one' }, { lease, message: 'two', percent: 50, data: { a: 1 } }, 'done'])
})

test('delegations have the numbers of their calls as keys, and the task is parked while it waits', async () => {
  const children = new Map<string, { readonly key: string; readonly input: number }>()
  gateway.script = ({ path, body }) => {
    const fields = body as { readonly [name: string]: unknown } | null
    if (path === '/v1/delegate') {
      const asked = (fields?.['tasks'] ?? [fields]) as readonly { readonly key: string; readonly input: number }[]
      for (const { key, input } of asked) children.set(key, { key, input })
      const ids = asked.map(({ key }) => key)
      return { status: 200, body: fields?.['tasks'] === undefined ? { task: ids[0] } : { tasks: ids } }
    }
    // A child completes only when the parent's slot was offered again.
    const isParked = gateway.leases.filter(({ want }) => want === 1).length > 1
    const view = (id: string): object => {
      const child = children.get(id)
      const status = !isParked ? 'queued' : child?.input === 13 ? 'failed' : 'completed'
      const error = status === 'failed' ? { code: 'unlucky', message: 'thirteen' } : null
      return { id, agent: 'x', type: 'task', status, attempts: 1, result: (child?.input ?? 0) * 2, error, trace_id: null }
    }
    if (path === '/v1/await') {
      const tasks = ((fields?.['tasks'] ?? []) as readonly string[]).map(view)
      return { status: 200, body: { done: isParked, tasks } }
    }
    const found = /^\/v1\/tasks\/([^?]+)/.exec(path)?.[1]
    return found === undefined ? null : { status: 200, body: view(decodeURIComponent(found)) }
  }
  running(`export default async (_: null, ctx: any) => {
    const one = await ctx.delegate('x', 1)
    const many = await ctx.delegateAll('x', [2, 3])
    const named = await ctx.delegate('x', 4, { key: 'named' })
    try { await ctx.delegate('x', 13) } catch (e: any) { return { one, many, named, error: [e.name, e.code, e.message] } }
  }`)
  expect(await end(gateway.task(null))).toMatchObject({
    result: { one: 2, many: [4, 6], named: 8, error: ['DelegationError', 'unlucky', 'task #5 of agent "x" failed: thirteen'] },
  })
  expect([...children.keys()]).toEqual(['#1', '#2', '#3', 'named', '#5'])
})

interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly status?: { readonly code: number }
}
interface Traces {
  readonly resourceSpans: readonly { readonly scopeSpans: readonly { readonly spans: readonly Span[] }[] }[]
}

test('a task and its spans join the trace that it was leased with', async () => {
  const traceId = 'a'.repeat(32)
  running(
    'export default (input: string, ctx: any) => ctx.span("outer", () => ctx.span("inner", () => { if (input === "bad") throw new Error("secret-input") }))',
    { env: { AGENTCTL_TRACES: '1' } },
  )
  gateway.task('bad', { traceparent: `00-${traceId}-${'b'.repeat(16)}-01` })
  gateway.task('unsampled', { traceparent: `00-${traceId}-${'b'.repeat(16)}-00` })
  await eventually(() => gateway.requests.some(({ path }) => path === '/v1/traces'), 'spans')
  const bodies = gateway.requests.filter(({ path }) => path === '/v1/traces').map(({ body }) => body as unknown as Traces)
  const spans = bodies.flatMap((body) => body.resourceSpans.flatMap((it) => it.scopeSpans.flatMap((scope) => scope.spans)))
  const byName = new Map(spans.map((span) => [span.name, span]))
  expect(new Set(byName.keys())).toEqual(new Set(['invoke_agent worker', 'inner', 'outer']))
  expect(spans.map((span) => [span.traceId, span.status?.code])).toEqual(spans.map(() => [traceId, 2]))
  expect(byName.get('invoke_agent worker')?.parentSpanId).toBe('b'.repeat(16))
  expect(byName.get('outer')?.parentSpanId).toBe(byName.get('invoke_agent worker')?.spanId)
  expect(byName.get('inner')?.parentSpanId).toBe(byName.get('outer')?.spanId)
  expect(JSON.stringify(bodies)).not.toContain('secret-input')
})

test('a wrong environment is named and ends the process with 1', async () => {
  const started = agent({ handler: 'python:/x.py' })
  expect(await started.exited).toBe(1)
  expect(started.output).toContain('AGENTCTL_HANDLER: expected \\"exec\\" or \\"module:/path/to/file\\", got \\"python:/x.py\\"')
})
