/** An idle, connected agent: Private_Clean + Private_Dirty of smaps_rollup, and RSS, median of ten replicas after 30 s. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL } from '../engine/names.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import { benchProject, median, report } from './support.ts'

const REPLICAS = 10
const IDLE_MS = 30_000
const MB = 1_000_000

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
  const own = median(figures.map((it) => it.private))
  const rss = median(figures.map((it) => it.rss))
  report('memory of an idle agent, private', `${(own / MB).toFixed(1)} MB`, '≤ 15 MB', own <= 15 * MB)
  report('memory of an idle agent, RSS', `${(rss / MB).toFixed(1)} MB`, '≤ 60 MB', rss <= 60 * MB)
}

/** The container's init and all below it. */
function processes(root: number): { private: number; rss: number } {
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
  return { private: sums.reduce((sum, it) => sum + it.private, 0), rss: sums.reduce((sum, it) => sum + it.rss, 0) }
}
