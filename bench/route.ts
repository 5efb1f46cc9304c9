/**
 * Our routing against a bare BullMQ worker on the same Redis: 10,000 no-op tasks from submit to the last result, in containers, rounds
 * interleaved. Two shapes: 1 replica × 50 slots and 25 replicas × 2. `evalsha` per task is what does not drift.
 */
import { build } from 'esbuild'
import { join } from 'node:path'
import { readRecord } from '../engine/lock.ts'
import { desired } from '../engine/desired.ts'
import { openControl } from '../engine/control.ts'
import { trustedName } from '../engine/names.ts'
import type { ContainerRuntime, ContainerSpec } from '../engine/ports.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { SECCOMP } from '../engine/seccomp.ts'
import { readStore } from '../engine/secrets/store.ts'
import { benchProject, median, remark, report, ROOT } from './support.ts'

const TASKS = 10_000
const WARM_UP = 2_000
const NOOP = 'export default async () => null\n'

export async function benchRoute(rounds: number): Promise<void> {
  await benchShape('1 × 50', 1, 50, rounds, 0.6)
  await benchShape('25 × 2', 25, 2, rounds, null)
}

async function benchShape(title: string, replicas: number, slots: number, rounds: number, target: number | null): Promise<void> {
  const file = `agents:\n  a: { replicas: ${replicas}, concurrency: ${slots}, handler: { module: ./app/noop.ts } }\n`
  using project = benchProject(`bench-route-${replicas}`, { 'agents.yaml': file, 'app/noop.ts': NOOP })
  await project.agentctl(['up', '-d'])
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const control = await openControl(runtime, project.name, abort.signal)
  const redis = await redisOf(runtime, project.name, abort.signal)
  const bare = await bareWorker(runtime, project.name, project.folder, redis.password, abort.signal)

  const ours = async (count: number): Promise<number> => {
    const begin = performance.now()
    const { run } = await control.submit({ agent: 'a', type: 'task', tasks: Array.from({ length: count }, () => null) })
    for (;;) {
      const view = await control.run(run, 30_000)
      if (view.status === 'completed') return performance.now() - begin
      if (view.status !== 'queued' && view.status !== 'running') throw new Error(`run ended ${view.status}`)
    }
  }
  await ours(WARM_UP)
  await bare.round(WARM_UP)
  const ratios: number[] = []
  const times = { ours: [] as number[], bare: [] as number[] }
  const scripts = { ours: [] as number[], bare: [] as number[] }
  const measured = async (into: number[], work: () => Promise<number>): Promise<number> => {
    const before = await redis.evalsha()
    const ms = await work()
    into.push(((await redis.evalsha()) - before) / TASKS)
    return ms
  }
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 0
    const a = first ? await measured(scripts.ours, () => ours(TASKS)) : 0
    const b = await measured(scripts.bare, () => bare.round(TASKS))
    const mine = first ? a : await measured(scripts.ours, () => ours(TASKS))
    ratios.push(b / mine)
    times.ours.push(mine)
    times.bare.push(b)
  }
  bare.close()
  abort.abort()
  const ratio = median(ratios)
  const ok = target === null ? null : ratio >= target
  report(`route ${title}: throughput to that of bare BullMQ`, ratio.toFixed(2), target === null ? '(no target)' : `≥ ${target}`, ok)
  remark(`${rounds} rounds: ${ratios.map((it) => it.toFixed(2)).join(' ')}; the peer is one BullMQ worker × 50 beside the same Redis`)
  remark(`medians of ${TASKS} tasks: agentctl ${Math.round(median(times.ours))} ms, bare ${Math.round(median(times.bare))} ms`)
  const [mine, theirs] = [median(scripts.ours), median(scripts.bare)]
  report(
    `route ${title}: evalsha per task`,
    mine.toFixed(3),
    `≤ ${(theirs + 0.05).toFixed(3)} (bare ${theirs.toFixed(3)})`,
    mine <= theirs + 0.05,
  )
}

async function redisOf(
  runtime: ContainerRuntime,
  project: string,
  signal: AbortSignal,
): Promise<{ password: string; evalsha(): Promise<number> }> {
  const store = await readStore(runtime, project, signal)
  if (store === null) throw new Error('no secrets')
  return {
    password: store.broker_password,
    evalsha: async () => {
      const { stdout } = await runtime.exec(trustedName(project, 'broker'), ['redis-cli', 'info', 'commandstats'], {
        env: [`REDISCLI_AUTH=${store.broker_password}`],
      })
      return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stdout.toString('utf8'))?.[1] ?? 0)
    },
  }
}

/** A producer and worker of BullMQ's own in a container of the engine image, as near to Redis as the gateway is. */
async function bareWorker(
  runtime: ContainerRuntime,
  project: string,
  folder: string,
  password: string,
  signal: AbortSignal,
): Promise<{ round(count: number): Promise<number>; close(): void }> {
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
  const waiting: ((ms: number) => void)[] = []
  stream.stdout.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString('utf8').split('\n')) if (line.startsWith('ms ')) waiting.shift()?.(Number(line.slice(3)))
  })
  stream.stderr.on('data', (chunk: Buffer) => void process.stderr.write(chunk))
  return {
    round: (count) =>
      new Promise((resolve) => {
        waiting.push(resolve)
        stream.stdin.write(`${count}\n`)
      }),
    close: () => stream.close(),
  }
}
