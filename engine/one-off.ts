/** `run --agent AGENT -- CMD`: one container with exactly the agent's posture, networks and secrets, that leases no work and goes when its command ends. */
import { randomInt } from 'node:crypto'
import { type DesiredContainer, desired } from './desired.ts'
import { AgentctlError, EXIT } from './errors.ts'
import { readRecord } from './lock.ts'
import { LABEL, PATHS } from './names.ts'
import type { ContainerRuntime, ContainerSpec, Endpoint } from './ports.ts'
import type { ProjectRecord } from './record.ts'
import { SECCOMP } from './seccomp.ts'
import { forgetFolder, readStore, writeSecrets } from './secrets/store.ts'
import { Watch } from './watch.ts'

/** Host parts between our own parts (2–4) and the replicas (from 9): as many one-offs of an agent at once. */
const HOSTS = [5, 6, 7, 8] as const
const CLEAN_UP_MS = 30_000

export interface OneOffOptions {
  readonly runtime: ContainerRuntime
  readonly signal: AbortSignal
  readonly project: string
  readonly agent: string
  readonly command: readonly string[]
  /** The next piece is read when this one has been taken. */
  readonly output: (stream: 'stdout' | 'stderr', data: Buffer) => Promise<void>
}

export interface OneOffResult {
  readonly container: string
  /** Of the command. */
  readonly exit_code: number
}

export async function runOneOff({ runtime, signal, project, agent, command, output }: OneOffOptions): Promise<OneOffResult> {
  const record = await readRecord(runtime, project, signal)
  if (record === null)
    throw new AgentctlError('AG4012', `there is no project "${project}" on this engine`, {
      hint: 'Bring it up with `agentctl up`.',
      exit: EXIT.usage,
    })
  const template = templateOf(record, agent)
  const name = `${project}-${agent}-run-${randomInt(0x1000000).toString(16).padStart(6, '0')}`
  const host = await freeHost(runtime, project, agent, template.spec.endpoints, signal)
  const spec = oneOffSpec(template.spec, name, command, host)
  const store = await readStore(runtime, project, signal)
  if (store === null) throw new AgentctlError('AG4012', `project "${project}" is not up`, { hint: 'Bring it up with `agentctl up`.' })
  const watch = new Watch(runtime, project, { containers: [], networks: [], volumes: [] })
  try {
    await writeSecrets({ runtime, project, signal, kept: store, store, live: new Set() }, [{ ...template, spec, replica: 0 }])
    await runtime.createContainer(spec, signal)
    for (const endpoint of spec.endpoints.slice(1)) await runtime.connect(name, endpoint, signal)
    const frames = await runtime.attach(name, signal)
    await runtime.start(name, signal)
    watch.started(name)
    for await (const { stream, data } of frames) await output(stream, data)
    return { container: name, exit_code: await watch.exitCode(name, signal) }
  } finally {
    watch.close()
    // Not under `signal`: an interrupted command goes, too.
    const late = AbortSignal.timeout(CLEAN_UP_MS)
    await runtime.remove(name, late)
    await forgetSecrets(runtime, project, name, late)
  }
}

function templateOf(record: ProjectRecord, agent: string): DesiredContainer {
  const { project } = record
  const known = Object.keys(project.agents).sort()
  if (!Object.hasOwn(project.agents, agent))
    throw new AgentctlError('AG6002', `project "${project.name}" has no agent "${agent}"`, {
      hint: known.length === 0 ? 'Its file has no agents.' : `Its agents: ${known.join(', ')}.`,
      exit: EXIT.usage,
    })
  const [template] = desired({ ...record, scale: { ...record.scale, [agent]: 1 } }, SECCOMP).containers.filter(
    (it) => it.spec.labels[LABEL.agent] === agent,
  )
  if (template === undefined) throw new Error(`no container is desired for agent ${agent}`)
  return template
}

/** The agent's first replica in all but name, command, addresses and token. Label replica 0: nobody counts it, recreates it or removes it as surplus. */
function oneOffSpec(template: ContainerSpec, name: string, command: readonly string[], host: number): ContainerSpec {
  // Its own folder, and the one beside it.
  const folder = template.binds.find((bind) => bind.target === PATHS.secrets)?.source ?? '-'
  return {
    ...template,
    name,
    labels: { ...template.labels, [LABEL.replica]: '0' },
    entrypoint: command.slice(0, 1),
    command: command.slice(1),
    healthcheck: { test: ['NONE'], interval_ms: 0, timeout_ms: 0, start_period_ms: 0, retries: 0 },
    binds: template.binds.map((bind) =>
      bind.source.startsWith(folder)
        ? { ...bind, source: `${bind.source.slice(0, folder.length - template.name.length)}${name}${bind.source.slice(folder.length)}` }
        : bind,
    ),
    endpoints: template.endpoints.map((endpoint) => ({ ...endpoint, address: withHost(endpoint.address ?? '', host) })),
  }
}

const withHost = (address: string, host: number): string => address.replace(/\d+$/, String(host))

/** Addresses are static: one that another one-off has is not free. */
async function freeHost(
  runtime: ContainerRuntime,
  project: string,
  agent: string,
  endpoints: readonly Endpoint[],
  signal: AbortSignal,
): Promise<number> {
  const containers = await runtime.containers(project, signal)
  const taken = new Set(containers.flatMap((container) => Object.values(container.networks)))
  const free = HOSTS.filter((host) => endpoints.every(({ address }) => !taken.has(withHost(address ?? '', host))))
  const chosen = free[randomInt(Math.max(1, free.length))]
  if (chosen !== undefined) return chosen
  throw new AgentctlError('AG4005', `agent "${agent}" has ${HOSTS.length} one-off containers already, which is the most`, {
    hint: 'Wait until one of them has ended, or use `agentctl exec` in a running replica.',
  })
}

async function forgetSecrets(runtime: ContainerRuntime, project: string, name: string, signal: AbortSignal): Promise<void> {
  try {
    await forgetFolder(runtime, project, name, signal)
  } catch {
    // Taken down meanwhile: the volume is gone, or goes.
  }
}
