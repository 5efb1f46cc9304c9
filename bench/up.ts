/**
 * `agentctl up` against the raw engine: the same create bodies, networks and readiness, made by dockerode in parallel. Both clocks run
 * from process start to all replicas connected. Rounds alternate; the figure is the median of the ratios.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { desired } from '../engine/desired.ts'
import { readRecord } from '../engine/lock.ts'
import { LABEL, trustedName } from '../engine/names.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { SECCOMP } from '../engine/seccomp.ts'
import { type BenchProject, benchProject, median, report, ROOT, run } from './support.ts'
import { countingProxy } from './counting-proxy.ts'

const COUNT = 20
const SHAPES = {
  A: { title: 'A: 1 role × 20 replicas', file: `agents:\n  a: { replicas: ${COUNT} }\n`, target: 1.15 },
  B: {
    title: 'B: 20 roles × 1 replica',
    file: `agents:\n${Array.from({ length: COUNT }, (_, i) => `  a${i}: {}\n`).join('')}`,
    target: 1.3,
  },
} as const

export async function benchUp(rounds: number): Promise<void> {
  for (const shape of Object.values(SHAPES)) await benchShape(shape, rounds)
}

/** Trusted parts stay up between the rounds; agents and their networks go. */
const EMPTY = 'agents: {}\n'

async function benchShape(shape: (typeof SHAPES)[keyof typeof SHAPES], rounds: number): Promise<void> {
  using project = benchProject(`bench-up-${shape.title[0]?.toLowerCase()}`, { 'agents.yaml': EMPTY })
  const reset = async (): Promise<void> => {
    project.write({ 'agents.yaml': EMPTY })
    await project.agentctl(['up', '-d'])
  }
  const ours = async (environment: { readonly [name: string]: string } = {}): Promise<number> => {
    project.write({ 'agents.yaml': shape.file })
    return (await project.agentctl(['up', '-d'], environment)).ms
  }
  await reset()
  await ours()
  const ratios: number[] = []
  const noop: number[] = []
  for (let round = 0; round < rounds; round++) {
    // Alternate who goes first, so that drift hits both.
    const pair =
      round % 2 === 0 ? [await (await reset(), ours()), await peer(project)] : [null, await peer(project), await (await reset(), ours())]
    const [mine, raw] = round % 2 === 0 ? [pair[0] as number, pair[1] as number] : [pair[2] as number, pair[1] as number]
    ratios.push(mine / raw)
    if (round % 2 === 1 || round === rounds - 1) noop.push((await ensureUp(project, shape.file)).ms)
  }
  const ratio = median(ratios)
  report(
    `up ${shape.title}, ratio to the raw engine`,
    ratio.toFixed(2),
    `≤ ${shape.target}  (${rounds} rounds: ${ratios.map((it) => it.toFixed(2)).join(' ')})`,
    ratio <= shape.target,
  )
  report(`up ${shape.title}, up again without changes`, `${Math.round(median(noop))} ms`, '≤ 500 ms', median(noop) <= 500)
  await reset()
  const counter = await countingProxy()
  await ours({ DOCKER_HOST: counter.host })
  counter.close()
  const containers = counter.calls('POST', /\/containers\/create/)
  report(
    `up ${shape.title}, engine calls per new container`,
    (counter.total() / containers).toFixed(2),
    '≤ 3',
    counter.total() / containers <= 3,
  )
}

async function ensureUp(project: BenchProject, file: string): Promise<{ ms: number }> {
  project.write({ 'agents.yaml': file })
  await project.agentctl(['up', '-d'])
  return await project.agentctl(['up', '-d'])
}

/** Takes the agents (and role networks) of a running project away with the controller held back, then makes them again through dockerode. */
async function peer(project: BenchProject): Promise<number> {
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const controller = trustedName(project.name, 'controller')
  await runtime.stop(controller, 0)
  const record = await readRecord(runtime, project.name, abort.signal)
  if (record === null) throw new Error('no record')
  const all = desired(record, SECCOMP)
  const agents = all.containers.filter((it) => it.spec.kind === 'agent').map((it) => it.spec)
  await Promise.all(agents.map(async (spec) => await runtime.remove(spec.name)))
  const gateway = all.containers.find((it) => it.spec.kind === 'gateway')?.spec
  const joins = gateway?.endpoints.slice(1) ?? []
  // With one role only the containers are new (its network stays, as in our own round it is one call).
  const networks = all.networks.filter((network) => joins.some((join) => join.network === network.name))
  for (const network of networks) {
    await runtime.disconnect(trustedName(project.name, 'gateway'), network.name)
    await runtime.removeNetwork(network.name)
  }
  const work = join(project.folder, 'peer.json')
  writeFileSync(
    work,
    JSON.stringify({
      project: project.name,
      gateway: gateway?.name,
      networks,
      joins,
      agents,
      replicas: agents.map((spec) => `${spec.labels[LABEL.agent]}:${spec.labels[LABEL.replica]}`),
    }),
  )
  const { ms } = await run(process.execPath, [join(ROOT, 'bench/up-peer.ts'), work])
  await runtime.start(controller)
  abort.abort()
  return ms
}
