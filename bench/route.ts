/**
 * Our routing against a bare BullMQ worker on the same Redis: 10,000 no-op tasks from submit to the last result, in containers, rounds
 * interleaved. `evalsha` per task and Redis' own CPU are what does not drift.
 */
import { build } from 'esbuild'
import { join } from 'node:path'
import { readRecord } from '../engine/lock.ts'
import { desired } from '../engine/desired.ts'
import { trustedName } from '../engine/names.ts'
import type { ContainerRuntime, ContainerSpec } from '../engine/ports.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { SECCOMP } from '../engine/seccomp.ts'
import { readStore } from '../engine/secrets/store.ts'
import { type BenchProject, benchProject, median, remark, report, ROOT } from './support.ts'

const TASKS = 10_000
/** Per process that executes tasks. */
const WARM_UP = 2_000
const PINGS = 500
const NOOP = 'export default async () => null\n'
/** When the handler began, by the machine's clock. */
const CLOCK = 'export default async () => performance.timeOrigin + performance.now()\n'

interface Shape {
  readonly title: string
  readonly replicas: number
  readonly slots: number
  /** Characters of each input. */
  readonly size: number
  readonly tasks: number
  readonly target: number | null
}

export async function benchRoute(rounds: number): Promise<void> {
  await benchShapes(1, 50, rounds, [
    { title: '1 × 50', replicas: 1, slots: 50, size: 0, tasks: TASKS, target: 0.85 },
    { title: '1 × 50, 1 KiB', replicas: 1, slots: 50, size: 1_024, tasks: TASKS, target: 0.85 },
    { title: '1 × 50, 32 KiB', replicas: 1, slots: 50, size: 32_768, tasks: 1_000, target: null },
  ])
  await benchShapes(25, 2, rounds, [{ title: '25 × 2', replicas: 25, slots: 2, size: 0, tasks: TASKS, target: 0.55 }])
}

async function benchShapes(replicas: number, slots: number, rounds: number, shapes: readonly Shape[]): Promise<void> {
  const file = `agents:
  a: { replicas: ${replicas}, concurrency: ${slots}, handler: { module: ./app/noop.ts } }
  clock: { handler: { module: ./app/clock.ts } }
`
  using project = benchProject(`bench-route-${replicas}`, { 'agents.yaml': file, 'app/noop.ts': NOOP, 'app/clock.ts': CLOCK })
  await project.agentctl(['up', '-d'])
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const redis = await redisOf(runtime, project.name, abort.signal)
  const bare = await worker(runtime, project, redis.password, abort.signal)
  const ours = await submitter(runtime, trustedName(project.name, 'gateway'), abort.signal)
  for (const shape of shapes) await benchShape(shape, rounds, redis, bare, ours)
  if (replicas === 1) await benchLatency(rounds, bare, ours)
  bare.close()
  ours.close()
  abort.abort()
}

/** Both sides are programs in containers beside Redis that read a line of work and write how long it took. */
export interface Side {
  ask(line: string): Promise<readonly number[]>
  close(): void
}
interface Counters {
  readonly evalsha: number
  readonly inner: number
  readonly cpu_us: number
}

async function benchShape(shape: Shape, rounds: number, redis: Stats, bare: Side, ours: Side): Promise<void> {
  const { title, size, tasks, target } = shape
  const line = (count: number): string => `drain ${count} ${size}`
  // Each replica is a process that compiles for itself, as the peer's one is.
  for (let left = WARM_UP * shape.replicas; left > 0; left -= tasks) await ours.ask(line(Math.min(left, tasks)))
  await bare.ask(line(Math.min(WARM_UP, tasks)))
  const times = { ours: [] as number[], bare: [] as number[] }
  const withResults: number[] = []
  const costs = { ours: [] as Counters[], bare: [] as Counters[] }
  const measured = async (side: 'ours' | 'bare'): Promise<number> => {
    const before = await redis.counters()
    const [ms = Number.NaN, read] = await (side === 'ours' ? ours : bare).ask(line(tasks))
    if (read !== undefined) withResults.push(read)
    const after = await redis.counters()
    const per = (name: keyof Counters): number => (after[name] - before[name]) / tasks
    costs[side].push({ evalsha: per('evalsha'), inner: per('inner'), cpu_us: per('cpu_us') })
    times[side].push(ms)
    return ms
  }
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? (['ours', 'bare'] as const) : (['bare', 'ours'] as const)
    const took = new Map<string, number>()
    for (const side of order) took.set(side, await measured(side))
    ratios.push((took.get('bare') ?? Number.NaN) / (took.get('ours') ?? Number.NaN))
  }
  const ratio = median(ratios)
  const ok = target === null ? null : ratio >= target
  report(`route ${title}: throughput to that of bare BullMQ`, ratio.toFixed(2), target === null ? '(no target)' : `≥ ${target}`, ok)
  remark(`${rounds} rounds: ${ratios.map((it) => it.toFixed(2)).join(' ')}; the peer is one BullMQ worker × 50 beside the same Redis`)
  remark(
    `medians of ${tasks} tasks: agentctl ${Math.round(median(times.ours))} ms (${Math.round(median(withResults))} ms until all results are read), bare ${Math.round(median(times.bare))} ms`,
  )
  const of = (side: 'ours' | 'bare', name: keyof Counters): number => median(costs[side].map((it) => it[name]))
  const [mine, theirs] = [of('ours', 'evalsha'), of('bare', 'evalsha')]
  const fits = mine <= theirs + 0.05
  report(`route ${title}: evalsha per task`, mine.toFixed(3), `≤ ${(theirs + 0.05).toFixed(3)} (bare ${theirs.toFixed(3)})`, fits)
  const inner = `${of('ours', 'inner').toFixed(1)} (bare ${of('bare', 'inner').toFixed(1)})`
  remark(`Redis per task: commands ${inner}, CPU ${of('ours', 'cpu_us').toFixed(0)} µs (bare ${of('bare', 'cpu_us').toFixed(0)} µs)`)
}

/** One task at a time on an idle system, from the submit to the begin of its handler. */
async function benchLatency(rounds: number, bare: Side, ours: Side): Promise<void> {
  const line = `ping ${PINGS}`
  await ours.ask(line)
  await bare.ask(line)
  const added: number[] = []
  let last = ''
  for (let round = 0; round < rounds; round++) {
    const [mine, theirs] = [median(await ours.ask(line)), median(await bare.ask(line))]
    added.push(mine - theirs)
    last = `agentctl ${mine.toFixed(2)} ms, bare ${theirs.toFixed(2)} ms`
  }
  const ms = median(added)
  report('route: added latency, p50', `${ms.toFixed(2)} ms`, '≤ 1 ms', ms <= 1)
  remark(`submit to the begin of the handler, ${PINGS} tasks one after the other, ${rounds} rounds; the last: ${last}`)
}

interface Stats {
  readonly password: string
  counters(): Promise<Counters>
}

async function redisOf(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<Stats> {
  const store = await readStore(runtime, project, signal)
  if (store === null) throw new Error('no secrets')
  const info = async (section: string): Promise<string> => {
    const { stdout } = await runtime.exec(trustedName(project, 'broker'), ['redis-cli', 'info', section], {
      env: [`REDISCLI_AUTH=${store.broker_password}`],
    })
    return stdout.toString('utf8')
  }
  return {
    password: store.broker_password,
    counters: async () => {
      const stats = await info('commandstats')
      const calls = [...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, count]) => ({ name, count: Number(count) }))
      const evalsha = calls.find((it) => it.name === 'evalsha')?.count ?? 0
      const cpu = await info('cpu')
      const seconds = (name: string): number => Number(new RegExp(`${name}:([\\d.]+)`).exec(cpu)?.[1] ?? 0)
      return {
        evalsha,
        inner: calls.reduce((sum, it) => sum + it.count, 0) - evalsha,
        cpu_us: (seconds('used_cpu_user_main_thread') + seconds('used_cpu_sys_main_thread')) * 1e6,
      }
    },
  }
}

/** In the gateway's container, so that neither side pays for the way from the host. */
export async function submitter(runtime: ContainerRuntime, gateway: string, signal: AbortSignal): Promise<Side> {
  const stream = await runtime.execStream(gateway, ['node', '-e', SUBMITTER], {}, signal)
  return sideOf(stream)
}

const SUBMITTER = `
const http = require('node:http')
const agent = new http.Agent({ keepAlive: true })
const call = (method, path, body) => new Promise((resolve, reject) => {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers = text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
  const request = http.request({ socketPath: '/run/agentctl/control.sock', agent, method, path, headers }, (answer) => {
    let all = ''
    answer.setEncoding('utf8').on('data', (part) => { all += part }).on('end', () => resolve(JSON.parse(all)))
  })
  request.on('error', reject)
  request.end(text)
})
const ended = async (run) => {
  for (;;) {
    const view = await call('GET', '/v1/runs/' + run + '?wait_ms=30000')
    if (view.status === 'completed') return view
    if (view.status !== 'queued' && view.status !== 'running') throw new Error('the run ended ' + view.status)
  }
}
require('node:readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  const [kind, count, size, id] = line.split(' ')
  if (kind === 'drain') {
    const input = Number(size) === 0 ? null : 'x'.repeat(Number(size))
    for (;;) {
      const begin = Date.now()
      const { run, error } = await call('POST', '/v1/runs', { agent: 'a', type: 'task', tasks: Array(Number(count)).fill(input), id })
      if (run !== undefined) {
        // The peer keeps no results and nobody asks it for them: the run's end is the end of its last task, what follows is reading 10,000 results.
        const { ended_at } = await ended(run)
        return console.log('ms ' + (Date.parse(ended_at) - begin) + ' ' + (Date.now() - begin))
      }
      // What the rounds before left in Redis is on its way into the archive.
      if (error.code !== 'AG6009') throw new Error(error.message)
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
  }
  const took = []
  for (let i = 0; i < Number(count); i++) {
    const begin = performance.timeOrigin + performance.now()
    const { run } = await call('POST', '/v1/runs', { agent: 'clock', type: 'task', tasks: [null] })
    took.push((await ended(run)).jobs[0].result - begin)
  }
  console.log('ms ' + took.join(' '))
})
`

function sideOf(stream: Awaited<ReturnType<ContainerRuntime['execStream']>>): Side {
  const waiting: { readonly done: (ms: readonly number[]) => void; readonly fail: (error: Error) => void }[] = []
  let rest = ''
  stream.stdout.on('data', (chunk: Buffer) => {
    const lines = `${rest}${chunk.toString('utf8')}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('ms ')) waiting.shift()?.done(line.slice(3).split(' ').map(Number))
  })
  stream.stdout.on('close', () => {
    for (const { fail } of waiting.splice(0)) fail(new Error('the program in the container has ended'))
  })
  stream.stderr.on('data', (chunk: Buffer) => void process.stderr.write(chunk))
  return {
    ask: (line) =>
      new Promise((done, fail) => {
        waiting.push({ done, fail })
        stream.stdin.write(`${line}\n`)
      }),
    close: () => stream.close(),
  }
}

/** A producer and worker of BullMQ's own in a container of the engine image, as near to Redis as the gateway is. */
async function worker(
  runtime: ContainerRuntime,
  { name: project, folder }: BenchProject,
  password: string,
  signal: AbortSignal,
): Promise<Side> {
  await build({
    entryPoints: [join(ROOT, 'bench/bare-worker.ts')],
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: join(folder, 'bare/worker.mjs'),
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    logLevel: 'error',
  })
  const record = await readRecord(runtime, project, signal)
  if (record === null) throw new Error('no record')
  const gateway = desired(record, SECCOMP).containers.find((it) => it.spec.kind === 'gateway')?.spec as ContainerSpec
  const name = `${project}-bare-1`
  const spec: ContainerSpec = {
    ...gateway,
    name,
    kind: 'service',
    labels: { 'agentctl.project': project, 'agentctl.kind': 'service', 'agentctl.service': 'bare', 'agentctl.replica': '0' },
    command: ['sleep', 'infinity'],
    healthcheck: null,
    endpoints: [{ network: gateway.endpoints[0]?.network ?? '', address: null }],
    volumes: [],
    binds: [{ source: join(folder, 'bare'), target: '/bare', read_only: true }],
    restart: 'no',
  }
  await runtime.createContainer(spec, signal)
  await runtime.start(name, signal)
  const stream = await runtime.execStream(name, ['node', '/bare/worker.mjs'], { env: [`REDIS_PASSWORD=${password}`] }, signal)
  return sideOf(stream)
}
