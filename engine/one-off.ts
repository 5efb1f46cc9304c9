/** `run --agent AGENT -- CMD`: one container with exactly the agent's posture, networks and secrets, that leases no work and goes when its command ends. */
import { randomInt } from 'node:crypto'
import { desired } from './desired.ts'
import { AgentctlError } from './errors.ts'
import { readRecord } from './lock.ts'
import { LABEL, networkName, PATHS, roleNetwork, secretsFolder } from './names.ts'
import type { ContainerRuntime, ContainerSpec } from './ports.ts'
import { SECCOMP } from './seccomp.ts'
import { readStore, writeSecrets } from './secrets/store.ts'
import { hostAddress } from './subnets.ts'
import { Watch } from './watch.ts'

/** Host parts between our own parts (2–4) and the replicas (from 9). */
const FIRST_HOST = 5
const LAST_HOST = 8

export interface OneOffOptions {
  readonly runtime: ContainerRuntime
  readonly signal: AbortSignal
  readonly project: string
  readonly agent: string
  readonly command: readonly string[]
  readonly output: (stream: 'stdout' | 'stderr', data: Buffer) => void
}

/** Gives the command's exit code. */
export async function runOneOff({ runtime, signal, project, agent, command, output }: OneOffOptions): Promise<number> {
  const record = await readRecord(runtime, project, signal)
  if (record === null)
    throw new AgentctlError('AG4012', `there is no project "${project}" on this engine`, {
      hint: 'Bring it up with `agentctl up`.',
      exit: 2,
    })
  const template = desired({ ...record, scale: { ...record.scale, [agent]: 1 } }, SECCOMP).containers.find(
    (it) => it.spec.labels[LABEL.agent] === agent,
  )
  if (template === undefined)
    throw new AgentctlError('AG6002', `project "${project}" has no agent "${agent}"`, { hint: 'See `agentctl ps`.', exit: 2 })
  const name = `${project}-${agent}-run-${randomInt(0x1000000).toString(16).padStart(6, '0')}`
  const ownFolder = secretsFolder(template.spec.name)
  const spec: ContainerSpec = {
    ...template.spec,
    name,
    labels: { ...template.spec.labels, [LABEL.replica]: '0' },
    entrypoint: command.slice(0, 1),
    command: command.slice(1),
    healthcheck: { test: ['NONE'], interval_ms: 0, timeout_ms: 0, start_period_ms: 0, retries: 0 },
    binds: template.spec.binds.map((bind) =>
      bind.target === PATHS.secrets ? { ...bind, source: bind.source.replace(new RegExp(`${ownFolder}$`), secretsFolder(name)) } : bind,
    ),
    endpoints: template.spec.endpoints.map((endpoint) => {
      const subnet =
        Object.entries(record.subnets).find(([network]) => networkName(project, network) === endpoint.network)?.[1] ??
        record.subnets[roleNetwork(agent)] ??
        ''
      return { ...endpoint, address: hostAddress(subnet, randomInt(FIRST_HOST, LAST_HOST + 1)) }
    }),
  }
  const store = await readStore(runtime, project, signal)
  if (store === null) throw new AgentctlError('AG4012', `project "${project}" is not up`, { hint: 'Bring it up with `agentctl up`.' })
  await writeSecrets(runtime, project, store, [{ ...template, spec, replica: 0 }], signal)
  await runtime.createContainer(spec, signal)
  const watch = new Watch(runtime, project, { containers: [], networks: [], volumes: [] })
  try {
    for (const endpoint of spec.endpoints.slice(1)) await runtime.connect(name, endpoint, signal)
    await runtime.start(name, signal)
    watch.started(name)
    for await (const frame of runtime.logs(name, { follow: true, tail: null, timestamps: false }, signal)) output(frame.stream, frame.data)
    return await watch.exitCode(name, signal)
  } finally {
    watch.close()
    await runtime.remove(name, AbortSignal.timeout(30_000))
  }
}
