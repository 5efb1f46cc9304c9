/**
 * One gateway against two, each capped at a quarter of a CPU so that it is the gateway that is measured: no-op tasks from the submit to
 * the last result, half of them submitted to each gateway's own socket. Two projects stand side by side, the rounds are interleaved.
 */
import { shardOf } from '../engine/gateway/shards/front.ts'
import { trustedName } from '../engine/names.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { newRunId } from '../engine/ulid.ts'
import { type Side, submitter } from './route.ts'
import { type BenchProject, benchProject, median, remark, report, run } from './support.ts'

const TASKS = 4_000
/** Per gateway, as each compiles for itself, and under the cap would do so for long. */
const WARM_UP = 6_000
const WARM_UP_CAPPED = 1_000
const CPUS = '0.25'
const TARGET = 1.8
/** Of a container, in ns: cgroup v1, else v2. */
const CPU_TIME = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
const NOOP = 'export default async () => null\n'
const FILE = (gateways: number): string => `gateway: { replicas: ${gateways} }
agents:
  a: { replicas: 2, concurrency: 50, handler: { module: ./app/noop.ts } }
`

export async function benchGateways(rounds: number): Promise<void> {
  using one = benchProject('bench-gateways-1', { 'agents.yaml': FILE(1), 'app/noop.ts': NOOP })
  using two = benchProject('bench-gateways-2', { 'agents.yaml': FILE(2), 'app/noop.ts': NOOP })
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const open = async (project: BenchProject, gateways: number): Promise<readonly Side[]> => {
    await project.agentctl(['up', '-d'])
    const names = Array.from({ length: gateways }, (_, index) => trustedName(project.name, 'gateway', index + 1))
    // Before the cap: the programs that submit live in the same containers, and their start would be slow.
    const sides = await Promise.all(names.map((name) => submitter(runtime, name, abort.signal)))
    await drain(sides, WARM_UP * gateways)
    for (const name of names) await run('docker', ['update', '--cpus', CPUS, name])
    return sides
  }
  const sides = { one: await open(one, 1), two: await open(two, 2) }
  const times = { one: [] as number[], two: [] as number[] }
  const ratios: number[] = []
  const bounds: number[] = []
  const cpuOf = async (which: 'one' | 'two'): Promise<number> => {
    const gateways = which === 'one' ? [trustedName(one.name, 'gateway')] : [1, 2].map((it) => trustedName(two.name, 'gateway', it))
    const all = await Promise.all(gateways.map((name) => runtime.exec(name, ['sh', '-c', CPU_TIME])))
    return all.reduce((sum, { stdout }) => sum + Number(stdout.toString('utf8')), 0)
  }
  await drain(sides.one, WARM_UP_CAPPED)
  await drain(sides.two, WARM_UP_CAPPED * 2)
  for (let round = 0; round < rounds; round++) {
    const took = { one: Number.NaN, two: Number.NaN }
    const cpu = { one: 0, two: 0 }
    for (const which of round % 2 === 0 ? (['one', 'two'] as const) : (['two', 'one'] as const)) {
      const before = await cpuOf(which)
      took[which] = await drain(sides[which], TASKS)
      cpu[which] = (await cpuOf(which)) - before
      times[which].push(took[which])
    }
    ratios.push(took.one / took.two)
    bounds.push((2 * cpu.one) / cpu.two)
  }
  const ratio = median(ratios)
  report(`gateways: throughput of two to that of one, ${CPUS} CPU each`, ratio.toFixed(2), `≥ ${TARGET}`, ratio >= TARGET)
  remark(`${rounds} rounds: ${ratios.map((it) => it.toFixed(2)).join(' ')}; 2 replicas × 50 slots`)
  remark(`by the CPU time of the gateways alone, which other work on the machine does not change: ${median(bounds).toFixed(2)}`)
  const rate = (all: readonly number[]): string => `${Math.round(TASKS / (median(all) / 1_000))} tasks/s`
  remark(`medians of ${TASKS} tasks: one ${rate(times.one)}, two ${rate(times.two)}`)
  for (const side of [...sides.one, ...sides.two]) side.close()
  abort.abort()
}

/** Each gateway gets its part of the tasks; the time until the last of them has ended, in ms. */
async function drain(sides: readonly Side[], tasks: number): Promise<number> {
  const ids = sides.map((_, index) => idFor(index, sides.length))
  const each = await Promise.all(sides.map((side, index) => side.ask(`drain ${tasks / sides.length} 0 ${ids[index]}`)))
  if (process.env['BENCH_DEBUG'] === '1')
    process.stderr.write(
      `${sides.length} gateway(s): ${tasks} tasks in ${each.map(([ms = Number.NaN]) => Math.round(ms)).join(' and ')} ms\n`,
    )
  return Math.max(...each.map(([ms = Number.NaN]) => ms))
}

/** The first gateway gives each run to the one that its id leads to. */
function idFor(gateway: number, gateways: number): string {
  let id = newRunId()
  while (shardOf(id, gateways) !== gateway) id = newRunId()
  return id
}
