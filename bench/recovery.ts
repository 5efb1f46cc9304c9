/**
 * How long nothing moves. The gateway's process is killed (kill -9 from the host) under a steady load of short tasks: from the kill to the
 * first completion that it did not know of before, with 1, 10 and 50 agents. An agent's process is killed in mid task: from the kill to
 * the lease of that task by another replica. A run is cancelled: from the call to the abort of the handler's signal. Times are this machine's; the events are the gateway's own.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ControlClient, openControl } from '../engine/control.ts'
import { containerName, trustedName } from '../engine/names.ts'
import type { ContainerRuntime } from '../engine/ports.ts'
import { connectDocker } from '../engine/runtimes/docker/connect.ts'
import type { RunEvent } from '../spec/protocol.ts'
import { benchProject, median, remark, report } from './support.ts'

const HANDLER = `
import { setTimeout as sleep } from 'node:timers/promises'
export default async (input, ctx) => {
  ctx.signal.addEventListener('abort', () => ctx.progress('stopped ' + Date.now()))
  await sleep(input.ms, undefined, { signal: ctx.signal })
  return null
}
`
const AGENTS = [1, 10, 50] as const
const KILLS = 10
const CANCELS = 20
const LEASE_TARGET_MS = 300
const CANCEL_TARGET_MS = 200

export async function benchRecovery(rounds: number | null): Promise<void> {
  for (const agents of AGENTS) await benchGateway(agents, rounds ?? 5)
  await benchAgent(Math.max(rounds ?? 0, KILLS))
  await benchCancel(Math.max(rounds ?? 0, CANCELS))
}

interface Open {
  readonly name: string
  readonly runtime: ContainerRuntime
  readonly control: ControlClient
}

async function opened(name: string, replicas: number, slots: number, work: (it: Open) => Promise<void>): Promise<void> {
  const limits = 'mem_limit: 128m, pids_limit: 64'
  const file = `agents:\n  a: { replicas: ${replicas}, concurrency: ${slots}, handler: { module: ./app/work.ts }, ${limits} }\n`
  using project = benchProject(name, { 'agents.yaml': file, 'app/work.ts': HANDLER })
  await project.agentctl(['up', '-d'])
  const abort = new AbortController()
  try {
    const runtime = await connectDocker({ environment: process.env, signal: abort.signal })
    const control = await openControl(runtime, project.name, abort.signal)
    await work({ name: project.name, runtime, control })
    control.close()
  } finally {
    abort.abort()
  }
}

async function benchGateway(agents: number, rounds: number): Promise<void> {
  await opened(`bench-recovery-${agents}`, agents, 2, async ({ name, runtime, control }) => {
    const times: number[] = []
    for (let round = 0; round < rounds; round++) {
      // Enough for 12 s of all slots; what is left after the kill is cancelled.
      const tasks = Array.from({ length: agents * 2 * 60 }, () => ({ ms: 200 }))
      const { run } = await control.submit({ agent: 'a', type: 'task', tasks })
      await sleep(1_500)
      const gateway = programOf(await pidOf(runtime, trustedName(name, 'gateway')))
      const killed = Date.now()
      process.kill(gateway, 'SIGKILL')
      times.push((await firstAfter(control, run, killed, 'completed')) - killed)
      await control.cancel(run)
      // Its supervisor starts it again later each time, unless it has lived for 10 s.
      await sleep(11_000)
    }
    report(`recovery of the gateway, ${agents} agent(s): kill -9 to the first end, ms`, median(times).toFixed(0), '(no target)', null)
    remark(`${rounds} rounds: ${times.join(' ')}`)
  })
}

async function benchAgent(rounds: number): Promise<void> {
  await opened('bench-recovery-agent', 2, 1, async ({ name, runtime, control }) => {
    const times: number[] = []
    for (let round = 0; round < rounds; round++) {
      await connected(control, 2)
      const { run } = await control.submit({ agent: 'a', type: 'task', tasks: [{ ms: 2_000 }] })
      const holder = await holding(control)
      const agent = programOf(await pidOf(runtime, containerName(name, 'a', holder)))
      const killed = Date.now()
      process.kill(agent, 'SIGKILL')
      times.push((await firstAfter(control, run, killed, 'leased')) - killed)
      await control.cancel(run)
      // A container that dies again within 10 s is started later.
      await sleep(10_500)
    }
    const middle = median(times)
    report(
      'recovery of a task: kill -9 of its agent to its next lease, ms',
      middle.toFixed(0),
      `≤ ${LEASE_TARGET_MS}`,
      middle <= LEASE_TARGET_MS,
    )
    remark(`${rounds} kills: ${times.join(' ')}`)
  })
}

async function benchCancel(rounds: number): Promise<void> {
  await opened('bench-recovery-cancel', 1, 1, async ({ control }) => {
    const times: number[] = []
    for (let round = 0; round < rounds; round++) {
      const { run } = await control.submit({ agent: 'a', type: 'task', tasks: [{ ms: 60_000 }] })
      await holding(control)
      const begin = Date.now()
      await control.cancel(run)
      times.push((await stopped(control, run)) - begin)
    }
    const longest = Math.max(...times)
    const verdict = longest <= CANCEL_TARGET_MS
    report('cancel: the call to the abort in the handler, longest, ms', longest.toFixed(0), `≤ ${CANCEL_TARGET_MS}`, verdict)
    remark(`${rounds} cancels, median ${median(times).toFixed(0)}: ${times.join(' ')}`)
  })
}

/** What the handler said when its signal was aborted. */
async function stopped(control: ControlClient, run: string): Promise<number> {
  for (let tries = 0; tries < 200; tries++) {
    for await (const { message } of control.events(run)) if (message?.startsWith('stopped ') === true) return Number(message.slice(8))
    await sleep(20)
  }
  throw new Error('the handler has not heard of the cancel')
}

/** Unix ms, by the gateway's clock, which is this machine's. */
async function firstAfter(control: ControlClient, run: string, from: number, event: RunEvent['event']): Promise<number> {
  const until = Date.now() + 30_000
  for (;;) {
    const found = await first(control, run, from, event).catch(() => null)
    if (found !== null) return found
    if (Date.now() > until) throw new Error(`nothing ${event} within 30 s after the kill`)
    await sleep(50)
  }
}
async function first(control: ControlClient, run: string, from: number, event: RunEvent['event']): Promise<number | null> {
  for await (const it of control.events(run)) if (it.event === event && Date.parse(it.at) > from) return Date.parse(it.at)
  return null
}

async function connected(control: ControlClient, replicas: number): Promise<void> {
  const wanted = Array.from({ length: replicas }, (_, index) => ({ agent: 'a', replica: index + 1 }))
  for (let tries = 0; tries < 60; tries++) {
    const views = await control.replicas({ wait_ms: 1_000, connected: wanted }).catch(() => [])
    if (views.filter((it) => it.connected).length >= replicas) return
    await sleep(100)
  }
  throw new Error(`not all of ${replicas} replicas are connected within a minute`)
}

async function holding(control: ControlClient): Promise<number> {
  for (let tries = 0; tries < 200; tries++) {
    const holder = (await control.replicas()).find((it) => it.tasks > 0)
    if (holder !== undefined) return holder.replica
    await sleep(20)
  }
  throw new Error('nobody has leased the task')
}

async function pidOf(runtime: ContainerRuntime, container: string): Promise<number> {
  const { State } = (await runtime.inspect(container)) as { State: { Pid: number } }
  if (State.Pid === 0) throw new Error(`${container} does not run`)
  return State.Pid
}
/** The program: below the engine's init and, in the gateway's container, its supervisor. */
function programOf(pid: number): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((it) => it.trim() !== '')
  return child === undefined ? pid : programOf(Number(child))
}
