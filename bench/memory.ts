/** An idle, connected agent: Private_Clean + Private_Dirty of smaps_rollup, and RSS, median of ten replicas after 30 s. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL } from '../engine/names.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { benchProject, median, remark, report } from './support.ts'

const REPLICAS = 10
const IDLE_MS = 30_000
const MB = 1_000_000
const PRIVATE_MB = 15
const RSS_MB = 60

export async function benchMemory(idle_ms: number = IDLE_MS): Promise<void> {
  using project = benchProject('bench-memory', { 'agents.yaml': `agents:\n  a: { replicas: ${REPLICAS} }\n` })
  await project.agentctl(['up', '-d'])
  await sleep(idle_ms)
  const abort = new AbortController()
  const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
  const agents = (await runtime.containers(project.name)).filter((it) => it.labels[LABEL.kind] === 'agent')
  const figures = await Promise.all(
    agents.map(async (it) => processes(((await runtime.inspect(it.name)) as { State: { Pid: number } }).State.Pid)),
  )
  abort.abort()
  const of = (pick: (figure: Figure) => number): number => median(figures.map(pick))
  const mb = (bytes: number): string => `${(bytes / MB).toFixed(1)} MB`
  const [own, rss] = [of((it) => it.all.private), of((it) => it.all.rss)]
  report('memory of an idle agent: private', mb(own), `≤ ${PRIVATE_MB} MB`, own <= PRIVATE_MB * MB)
  report('memory of an idle agent: RSS', mb(rss), `≤ ${RSS_MB} MB`, rss <= RSS_MB * MB)
  remark(
    `median of ${agents.length} replicas, all processes of the container; its node process alone: ${mb(of((it) => it.node.private))} private, ${mb(of((it) => it.node.rss))} RSS`,
  )
}

interface Memory {
  readonly private: number
  readonly rss: number
}
interface Figure {
  readonly all: Memory
  /** The largest. */
  readonly node: Memory
}

/** The container's init and all below it. */
function processes(root: number): Figure {
  const pids = [root]
  for (const pid of pids) {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const children = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim()
      if (children !== '') pids.push(...children.split(' ').map(Number))
    }
  }
  const sums = pids.map((pid) => {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
    const kb = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024
    return { private: kb('Private_Clean') + kb('Private_Dirty'), rss: kb('Rss') }
  })
  const all = { private: sums.reduce((sum, it) => sum + it.private, 0), rss: sums.reduce((sum, it) => sum + it.rss, 0) }
  return { all, node: sums.reduce((largest, it) => (it.private > largest.private ? it : largest)) }
}
