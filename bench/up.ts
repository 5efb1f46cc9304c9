/**
 * `agentctl up` against the raw engine: the same create bodies, networks, joins of the gateway and readiness, made by dockerode in
 * parallel. Both clocks run from process start to all replicas connected. Rounds alternate; the figure is the median of the ratios.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { desired } from '../engine/desired.ts'
import { readRecord } from '../engine/lock.ts'
import { LABEL, trustedName } from '../engine/names.ts'
import type { ContainerRuntime } from '../engine/ports.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { SECCOMP } from '../engine/seccomp.ts'
import { type Counter, countingProxy } from './counting-proxy.ts'
import { type BenchProject, benchProject, median, remark, report, ROOT, run } from './support.ts'

const COUNT = 20
const NOOPS = 5
const NOOP_MS = 500
const CALLS = 3
const SHAPES = {
  a: { title: 'A: 1 role × 20 replicas', agents: `  a: { replicas: ${COUNT} }\n`, networks: 1, target: 1.15 },
  b: {
    title: 'B: 20 roles × 1 replica',
    agents: Array.from({ length: COUNT }, (_, index) => `  a${index}: {}\n`).join(''),
    networks: COUNT,
    target: 1.3,
  },
} as const
/** A file has at least one agent; this one never has a container, so that only the trusted parts stay up between the rounds. */
const EMPTY = 'agents:\n  nobody: { replicas: 0 }\n'

export async function benchUp(rounds: number): Promise<void> {
  for (const [key, shape] of Object.entries(SHAPES)) await benchShape(`bench-up-${key}`, shape, rounds)
}

async function benchShape(name: string, shape: (typeof SHAPES)[keyof typeof SHAPES], rounds: number): Promise<void> {
  using project = benchProject(name, { 'agents.yaml': EMPTY })
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const ours = async (environment: Environment = {}): Promise<number> => {
    project.write({ 'agents.yaml': EMPTY })
    await project.agentctl(['up', '-d', '--remove-orphans'])
    project.write({ 'agents.yaml': EMPTY + shape.agents })
    return (await project.agentctl(['up', '-d'], environment)).ms
  }
  // Warms the page cache and Node's compile cache on both sides; leaves the shape up, as every round does.
  await ours()
  await peer(project, runtime)

  const pairs: { readonly ours: number; readonly raw: number }[] = []
  for (let round = 0; round < rounds; round++) {
    // Alternate who goes first, so that drift hits both.
    if (round % 2 === 0) pairs.push({ ours: await ours(), raw: await peer(project, runtime) })
    else {
      const raw = await peer(project, runtime)
      pairs.push({ ours: await ours(), raw })
    }
  }
  const ratios = pairs.map((it) => it.ours / it.raw)
  const ratio = median(ratios)
  report(`up ${shape.title}: time to that of the raw engine`, ratio.toFixed(2), `≤ ${shape.target}`, ratio <= shape.target)
  remark(`${rounds} rounds: ${ratios.map((it) => it.toFixed(2)).join(' ')}`)
  remark(
    `medians: agentctl ${seconds(pairs.map((it) => it.ours))}, dockerode with the same bodies, joins and readiness ${seconds(pairs.map((it) => it.raw))}`,
  )

  await ours()
  const noop: number[] = []
  for (let at = 0; at < NOOPS; at++) noop.push((await project.agentctl(['up', '-d'])).ms)
  report(`up ${shape.title}: again without changes`, `${Math.round(median(noop))} ms`, `≤ ${NOOP_MS} ms`, median(noop) <= NOOP_MS)
  remark(`median of ${NOOPS}, process start to end: ${noop.map((it) => Math.round(it)).join(' ')}`)

  using counter = await countingProxy()
  await ours({ DOCKER_HOST: counter.host })
  using raw = await countingProxy()
  await peer(project, runtime, { DOCKER_HOST: raw.host })
  reportCalls(shape.title, counter, raw)
  abort.abort()
}

type Environment = { readonly [name: string]: string }
const seconds = (ms: readonly number[]): string => `${(median(ms) / 1_000).toFixed(2)} s`

/** The verdict is about all calls; a new network costs any client two of them (made, joined by the gateway), so they are shown apart. */
function reportCalls(title: string, counter: Counter, raw: Counter): void {
  const per = (calls: number): number => calls / counter.calls('POST', /^\/containers\/create$/)
  const networks = counter.calls('POST', /^\/networks\//)
  const calls = per(counter.total())
  report(`up ${title}: engine calls per new container`, calls.toFixed(2), `≤ ${CALLS}`, calls <= CALLS)
  remark(
    `${per(networks).toFixed(2)} of it for networks; the raw engine ${per(raw.total()).toFixed(2)} in all (streams and execs count as calls)`,
  )
  if (process.env['BENCH_DEBUG'] === '1') for (const line of counter.summary()) remark(line)
}

/**
 * Takes the agents and their networks of a project that is up away, with the controller held back, then times how long dockerode takes to
 * make them again. The controller, started again, finds all as recorded.
 */
async function peer(project: BenchProject, runtime: ContainerRuntime, environment: Environment = {}): Promise<number> {
  const record = await readRecord(runtime, project.name, AbortSignal.timeout(10_000))
  if (record === null) throw new Error(`no record of ${project.name}`)
  const all = desired(record, SECCOMP)
  const agents = all.containers.filter((it) => it.spec.kind === 'agent').map((it) => it.spec)
  const gateway = trustedName(project.name, 'gateway')
  const networks = all.networks.filter((network) => agents.some((spec) => spec.endpoints.some((it) => it.network === network.name)))
  const joins = (all.containers.find((it) => it.spec.name === gateway)?.spec.endpoints ?? []).filter((it) =>
    networks.some((network) => network.name === it.network),
  )
  const controller = trustedName(project.name, 'controller')
  await runtime.stop(controller, 0)
  await Promise.all(agents.map(async (spec) => await runtime.remove(spec.name)))
  for (const { network } of joins) await runtime.disconnect(gateway, network)
  for (const { name } of networks) await runtime.removeNetwork(name)
  const work = join(project.folder, 'peer.json')
  const replicas = agents.map((spec) => `${spec.labels[LABEL.agent]}:${spec.labels[LABEL.replica]}`)
  const { version } = await runtime.info()
  const features = { hasIsolatedGateway: Number.parseInt(version, 10) >= 28 }
  writeFileSync(work, JSON.stringify({ project: project.name, gateway, features, networks, joins, agents, replicas }))
  // Our command caches its compiled code, so its peer does too.
  const cache = { NODE_COMPILE_CACHE: join(project.folder, 'compile-cache') }
  const { ms } = await run(process.execPath, [join(ROOT, 'bench/up-peer.ts'), work], { ...cache, ...environment })
  await runtime.start(controller)
  return ms
}
