/** How things are broken: from inside, from the host, and behind the engine's back. Each fault ends by itself and says what it was. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL, networkName, roleNetwork, trustedName } from '../../engine/names.ts'
import type { ContainerRuntime, ObservedContainer } from '../../engine/ports.ts'
import type { Fault } from './history.ts'
import type { Random } from './random.ts'

export interface Struck {
  readonly runtime: ContainerRuntime
  readonly project: string
  readonly random: Random
  readonly signal: AbortSignal
  /** redis-cli in the broker's container. */
  redis(...command: readonly string[]): Promise<string>
}
/** What is being taken back is taken back, whatever the signal says. */
export type Strike = (struck: Struck, container: ObservedContainer) => Promise<void>

export async function pidOf(runtime: ContainerRuntime, container: string): Promise<number> {
  const { State } = (await runtime.inspect(container)) as { State: { Pid: number } }
  if (State.Pid === 0) throw new Error(`${container} does not run`)
  return State.Pid
}
/** All processes below it, the parents first: the engine's init, perhaps a supervisor, the program. */
export function below(pid: number): readonly number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((it) => it.trim() !== '')
    .map(Number)
  return children.flatMap((child) => [child, ...below(child)])
}

/** The gateway itself; its supervisor starts it again. */
function gatewayIn(pid: number): number {
  const last = below(pid).at(-1)
  const command = last === undefined ? '' : readFileSync(`/proc/${last}/cmdline`, 'utf8').replaceAll('\0', ' ')
  if (last === undefined || !command.includes('gateway')) throw new Error(`expected the gateway below ${pid}, got "${command}"`)
  return last
}

const pause = (ms: number, signal: AbortSignal): Promise<void> => sleep(ms, undefined, { signal }).catch(() => {})
/** Above and below the 5 s after which a silent session is given up. */
const some = (struck: Struck): Promise<void> => pause(struck.random.whole(1_000, 9_000), struck.signal)
const ignore = (): void => {}

const freeze: Strike = async (struck, { name }) => {
  const pid = await pidOf(struck.runtime, name)
  const all = [pid, ...below(pid)]
  for (const it of all) process.kill(it, 'SIGSTOP')
  try {
    await some(struck)
  } finally {
    for (const it of all) signalIfThere(it, 'SIGCONT')
  }
}
function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It is gone.
  }
}

const cut =
  (networkOf: (project: string, container: ObservedContainer) => string): Strike =>
  async (struck, container) => {
    const { runtime, project } = struck
    const network = networkOf(project, container)
    const address = container.networks[network] ?? ''
    await runtime.disconnect(container.name, network)
    try {
      await some(struck)
    } finally {
      // The controller may have been quicker, or have made the container anew.
      await runtime.connect(container.name, { network, address: address === '' ? null : address }).catch(ignore)
    }
  }
const control = (project: string): string => networkName(project, 'control')

const kill9: Strike = async ({ runtime }, { name }) => void process.kill(await pidOf(runtime, name), 'SIGKILL')
const remove: Strike = async ({ runtime }, { name }) => await runtime.remove(name)
const CRASH = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = node ] && kill -9 ${p#/proc/}; done'

export const AGENT_FAULTS: { readonly [kind: string]: Strike } = {
  crash: async ({ runtime }, { name }) => void (await runtime.exec(name, ['sh', '-c', CRASH], { timeout_ms: 10_000 }).catch(ignore)),
  'kill -9': kill9,
  SIGSTOP: freeze,
  'network cut': cut((project, { labels }) => networkName(project, roleNetwork(labels[LABEL.agent] ?? ''))),
  'rm -f': remove,
}

const outOfMemory: Strike = async (struck) => {
  const before = (await struck.redis('CONFIG', 'GET', 'maxmemory')).split('\n')[1]?.trim() ?? '0'
  await struck.redis('CONFIG', 'SET', 'maxmemory', '1mb')
  try {
    await some(struck)
  } finally {
    // The broker may be on its way back from another fault; a new process of it has the old value anyway.
    for (let tries = 0; tries < 20; tries++) {
      const done = await struck.redis('CONFIG', 'SET', 'maxmemory', before).then(
        () => true,
        () => false,
      )
      if (done) break
      await sleep(500)
    }
  }
}

/** Of the gateway and of Redis. */
export const CORE_FAULTS: { readonly [kind: string]: { readonly part: 'gateway' | 'broker'; readonly strike: Strike } } = {
  'gateway process: kill -9': {
    part: 'gateway',
    strike: async ({ runtime }, { name }) => {
      process.kill(gatewayIn(await pidOf(runtime, name)), 'SIGKILL')
    },
  },
  'gateway container: kill -9': { part: 'gateway', strike: kill9 },
  'gateway: SIGSTOP': { part: 'gateway', strike: freeze },
  'gateway: rm -f': { part: 'gateway', strike: remove },
  'gateway cut from Redis': { part: 'gateway', strike: cut(control) },
  'Redis: kill -9': { part: 'broker', strike: kill9 },
  'Redis: SIGSTOP': { part: 'broker', strike: freeze },
  'Redis: out of memory': { part: 'broker', strike: outOfMemory },
  'Redis cut off': { part: 'broker', strike: cut(control) },
}

export const partOf = (
  containers: readonly ObservedContainer[],
  project: string,
  part: 'gateway' | 'broker' | 'controller',
): ObservedContainer | null => containers.find((it) => it.name === trustedName(project, part) && it.status === 'running') ?? null

/** One fault from its beginning to when it was taken back; null: there was nothing to break. */
export async function inflict(struck: Struck, kind: string, container: ObservedContainer | null, strike: Strike): Promise<Fault | null> {
  if (container === null) return null
  const at = Date.now()
  const target =
    container.labels[LABEL.agent] === undefined ? container.name : `${container.labels[LABEL.agent]}.${container.labels[LABEL.replica]}`
  const missed = await strike(struck, container).then(
    () => false,
    () => true,
  )
  return { kind, target, at, until: Date.now(), missed }
}
