/** record → everything that should exist: networks, volumes, containers, each with its config hash. Pure. */
import { posix } from 'node:path'
import type { Agent, Project, SecretUse, Service, Workload } from '../spec/model.ts'
import { type BrokerSettings, DEFAULT_BROKER, DEFAULTS, gatewaysOf } from '../spec/model.ts'
import { AGENT_ENV, GATEWAY_PORT } from '../spec/protocol.ts'
import { hashOf } from './canonical.ts'
import { agentPosture, type Ground, servicePosture } from './harden.ts'
import {
  BROKER_VOLUME,
  containerName,
  gatewayDoor,
  gatewayHost,
  HOST,
  isRoaming,
  LABEL,
  linkNetwork,
  networkName,
  OWN_NETWORKS,
  PATHS,
  PROXY_PORT,
  roleNetwork,
  SECRETS_VOLUME,
  secretPath,
  secretsFolder,
  STATE_VOLUME,
  TRUSTED_SECRETS,
  volumeName,
} from './names.ts'
import type { ContainerSpec, Endpoint, NetworkSpec, VolumeSpec } from './ports.ts'
import type { ProjectRecord } from './record.ts'
import { hostAddress } from './subnets.ts'
import { type TrustedFacts, trustedSpecs } from './trusted.ts'

export interface DesiredContainer {
  readonly spec: ContainerSpec
  readonly hash: string
  /** Agent or service name; "agentctl-…" for our own. */
  readonly group: string
  readonly replica: number
  /** How it is known to have come up. */
  readonly until: 'running' | 'healthy' | 'completed' | 'ready'
  readonly timeout_ms: number
  /** Start after these groups reached that state. */
  readonly after: readonly { readonly group: string; readonly until: 'running' | 'healthy' | 'completed' | 'ready' }[]
  /** Secrets of the file that it is given. */
  readonly secrets: readonly SecretUse[]
  readonly stopped: boolean
}

export interface Desired {
  readonly project: string
  readonly networks: readonly NetworkSpec[]
  readonly volumes: readonly VolumeSpec[]
  /** Named volumes that belong to an agent's user. */
  readonly owners: { readonly [volume: string]: { readonly uid: number; readonly gid: number } }
  readonly containers: readonly DesiredContainer[]
  /** Agents and services of the file, also those without a container (`replicas: 0`): what is theirs is no orphan. */
  readonly declared: ReadonlySet<string>
}

/** A part of ours is up in a second or two; a loaded machine is given time. */
const PART_TIMEOUT_MS = 60_000
/** Compose waits for a healthy dependency without end; we do not. */
const SERVICE_TIMEOUT_MS = 300_000

export const secretsMount = (record: Pick<ProjectRecord, 'project' | 'data_root'>): string =>
  posix.join(record.data_root, 'volumes', volumeName(record.project.name, SECRETS_VOLUME), '_data')

const gatewayState = (record: ProjectRecord): string =>
  posix.join(record.data_root, 'volumes', volumeName(record.project.name, STATE_VOLUME), '_data', posix.basename(PATHS.gatewayState))

const usersOf = (project: Project, service: string): readonly Agent[] =>
  sorted(project.agents).filter((agent) => agent.uses.includes(service))
const sorted = <T>(map: { readonly [name: string]: T }): readonly T[] =>
  Object.keys(map)
    .sort()
    .map((name) => map[name] as T)
const onDefaultNetwork = (project: Project, service: Service): boolean =>
  service.ports.length > 0 || usersOf(project, service.name).length === 0

/** Short names of the networks that the project needs; subnets are chosen for these. */
export function networkNames(project: Project): readonly string[] {
  const names = ['control', 'outside', ...Object.keys(project.agents).sort().map(roleNetwork)]
  for (const agent of sorted(project.agents)) names.push(...[...agent.uses].sort().map((service) => linkNetwork(agent.name, service)))
  if (sorted(project.services).some((service) => onDefaultNetwork(project, service))) names.push('default')
  return names
}

export function desired(record: ProjectRecord, seccomp: string): Desired {
  const { project } = record
  // A record of a version that did not know the key.
  const broker = project.broker ?? DEFAULT_BROKER
  const labels = (extra: Record<string, string>): Record<string, string> => ({ [LABEL.project]: project.name, ...extra })
  const facts: TrustedFacts = {
    project: project.name,
    image: record.images.engine,
    seccomp,
    secretsMount: secretsMount(record),
    gatewayState: gatewayState(record),
    engineSocket: record.engine_socket,
    subnets: record.subnets,
    cpus: record.cpus ?? 0,
    brokerUrl: broker.url,
    durability: broker.durability,
    gateways: gatewaysOf(project),
    roleNetworks: Object.keys(project.agents).sort().map(roleNetwork),
    egressNetworks: sorted(project.agents)
      .filter(hasEgress)
      .map((agent) => roleNetwork(agent.name)),
  }
  const trusted = trustedSpecs(facts).map(
    (spec): DesiredContainer => ({
      spec: finish(spec, record.revision),
      hash: hashOfSpec(spec),
      group: `agentctl-${spec.kind}`,
      replica: Number(spec.labels[LABEL.replica]),
      until: spec.healthcheck === null ? 'running' : 'healthy',
      timeout_ms: PART_TIMEOUT_MS,
      after: [],
      secrets: spec.kind === 'gateway' ? brokerSecrets(broker) : [],
      // The lock lies in the holder: without it nothing could be started again.
      stopped: spec.kind !== 'secrets' && record.stopped.includes(spec.name),
    }),
  )
  const ground: Ground = { seccomp, cpus: record.cpus ?? 0, profiles: record.seccomp_profiles ?? {} }
  const agents = sorted(project.agents).flatMap((agent) =>
    range(record.scale[agent.name] ?? agent.replicas).map((replica) => agentContainer(record, agent, replica, ground)),
  )
  const services = sorted(project.services).flatMap((service) =>
    range(record.scale[service.name] ?? service.replicas).map((replica) => serviceContainer(record, service, replica, ground)),
  )
  return {
    project: project.name,
    declared: new Set([...Object.keys(project.agents), ...Object.keys(project.services)]),
    networks: networkNames(project).map((name) => ({
      name: networkName(project.name, name),
      internal: name !== 'outside' && name !== 'default',
      subnet: record.subnets[name] ?? '',
      labels: labels({}),
    })),
    volumes: [
      { name: volumeName(project.name, STATE_VOLUME), labels: labels({}), tmpfs: null },
      { name: volumeName(project.name, SECRETS_VOLUME), labels: labels({}), tmpfs: 16_777_216 },
      ...(broker.url === null ? [{ name: volumeName(project.name, BROKER_VOLUME), labels: labels({}), tmpfs: null }] : []),
      ...Object.keys(project.volumes)
        .sort()
        .map((name) => ({ name: volumeName(project.name, name), labels: labels({}), tmpfs: null })),
    ],
    owners: volumeOwners(project),
    containers: [...trusted, ...services, ...agents],
  }
}

/** Files of the gateway: what a broker of the user's own asks for. */
const brokerSecrets = ({ password, ca }: BrokerSettings): DesiredContainer['secrets'] => [
  ...(password === null ? [] : [{ source: password, target: TRUSTED_SECRETS.brokerPassword }]),
  ...(ca === null ? [] : [{ source: ca, target: TRUSTED_SECRETS.brokerCa }]),
]

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index + 1)

/** The hash covers all that `spec` says except the networks of roles that gateways and egress are on: those are joined and left while they run. */
const hashOfSpec = (spec: ContainerSpec): string =>
  hashOf(isRoaming(spec.kind) ? { ...spec, endpoints: spec.endpoints.slice(0, OWN_NETWORKS[spec.kind]) } : spec)
const finish = (spec: ContainerSpec, revision: number): ContainerSpec => ({
  ...spec,
  labels: { ...spec.labels, [LABEL.configHash]: hashOfSpec(spec), [LABEL.revision]: String(revision) },
})

function uidOf(agent: Agent): { readonly uid: number; readonly gid: number } {
  const [uid = 0, gid = uid] = (agent.user ?? DEFAULTS.agent.user).split(':').map(Number)
  return { uid, gid }
}

function volumeOwners(project: Project): Desired['owners'] {
  const owners: Record<string, { uid: number; gid: number }> = { [volumeName(project.name, BROKER_VOLUME)]: { uid: 10_002, gid: 10_002 } }
  // Who writes comes first: an agent that only reads does not take a volume from its writer.
  for (const read_only of [false, true]) {
    for (const agent of sorted(project.agents)) {
      for (const mount of agent.mounts) {
        if (mount.type === 'volume' && mount.read_only === read_only) owners[volumeName(project.name, mount.source)] ??= uidOf(agent)
      }
    }
  }
  return owners
}

function mountsOf(project: string, workload: Workload): Pick<ContainerSpec, 'binds' | 'volumes' | 'tmpfs'> {
  const { mounts } = workload
  return {
    binds: mounts.flatMap((mount) =>
      mount.type === 'bind' ? [{ source: mount.source, target: mount.target, read_only: mount.read_only }] : [],
    ),
    volumes: mounts.flatMap((mount) =>
      mount.type === 'volume' ? [{ source: volumeName(project, mount.source), target: mount.target, read_only: mount.read_only }] : [],
    ),
    tmpfs: mounts.flatMap((mount) =>
      mount.type === 'tmpfs' ? [{ target: mount.target, size: mount.size, exec: true, mode: 0o1777 }] : [],
    ),
  }
}

/** The folder, in which files can be exchanged while the container runs; and file by file what lies elsewhere. */
const secretBinds = (record: ProjectRecord, container: string, secrets: readonly SecretUse[]): ContainerSpec['binds'] => [
  { source: `${secretsMount(record)}/${secretsFolder(container)}`, target: PATHS.secrets, read_only: true },
  ...secrets
    .filter((use) => use.target.startsWith('/'))
    .map((use) => ({ source: `${secretsMount(record)}/${secretPath(container, use.target)}`, target: use.target, read_only: true })),
]

const healthcheckOf = (workload: Workload): ContainerSpec['healthcheck'] =>
  workload.healthcheck === null
    ? null
    : {
        test: workload.healthcheck.test,
        // Compose's defaults.
        interval_ms: workload.healthcheck.interval_ms ?? 30_000,
        timeout_ms: workload.healthcheck.timeout_ms ?? 30_000,
        start_period_ms: workload.healthcheck.start_period_ms ?? 0,
        retries: workload.healthcheck.retries ?? 3,
      }

const hasCheck = (workload: Workload): boolean => workload.healthcheck !== null && workload.healthcheck.test[0] !== 'NONE'

function dependencies(project: Project, workload: Workload): DesiredContainer['after'] {
  return Object.keys(workload.depends_on)
    .sort()
    .map((group) => {
      const condition = workload.depends_on[group]?.condition
      const agent = project.agents[group] !== undefined
      if (condition === 'service_completed_successfully') return { group, until: 'completed' as const }
      if (condition === 'service_healthy') return { group, until: agent ? ('ready' as const) : ('healthy' as const) }
      return { group, until: 'running' as const }
    })
}

const hasEgress = (agent: Agent): boolean => (agent.egress ?? []).length > 0

/** What curl, git, pip, npm, Python and Node's fetch look at. Both ways of writing them: curl reads http_proxy in lower case alone. */
function proxyVariables(door: string, direct: readonly string[]): ContainerSpec['environment'] {
  const [proxy, without] = [`http://${door}:${PROXY_PORT}`, ['localhost', '127.0.0.1', '::1', ...[...direct].sort()].join(',')]
  return {
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    NO_PROXY: without,
    http_proxy: proxy,
    https_proxy: proxy,
    no_proxy: without,
    NODE_USE_ENV_PROXY: '1',
  }
}

function agentContainer(record: ProjectRecord, agent: Agent, replica: number, ground: Ground): DesiredContainer {
  const { project } = record
  const name = containerName(project.name, agent.name, replica)
  const host = HOST.firstReplica + replica - 1
  const role = record.subnets[roleNetwork(agent.name)] ?? ''
  const endpoints: Endpoint[] = [{ network: networkName(project.name, roleNetwork(agent.name)), address: hostAddress(role, host) }]
  // A service may be called gateway: then our door has another name for its users.
  const gateways = range(gatewaysOf(project))
  const door = gateways.some((gateway) => agent.uses.includes(gatewayDoor(gateway))) ? 'agentctl-gateway' : 'gateway'
  const extraHosts: Record<string, string> = Object.fromEntries(
    gateways.map((gateway) => [gatewayDoor(gateway, door), hostAddress(role, gatewayHost(gateway))]),
  )
  // As with the gateway.
  const egressDoor = agent.uses.includes('egress') ? 'agentctl-egress' : 'egress'
  if (hasEgress(agent)) extraHosts[egressDoor] = hostAddress(role, HOST.egress)
  const direct = Object.keys(extraHosts)
  for (const service of [...agent.uses].sort()) {
    const link = linkNetwork(agent.name, service)
    endpoints.push({ network: networkName(project.name, link), address: hostAddress(record.subnets[link] ?? '', host) })
    extraHosts[service] = hostAddress(record.subnets[link] ?? '', serviceHost(1))
  }
  const mounts = mountsOf(project.name, agent)
  const taken = new Set(agent.mounts.map((mount) => mount.target))
  const tmpfs = [
    // Both are charged to the container's memory: filling them must not be what kills it.
    { target: '/tmp', size: Math.min(DEFAULTS.tmpfs.tmp, Math.floor(agent.mem_limit / 8)), exec: false, mode: 0o1777 },
    { target: '/workspace', size: Math.min(DEFAULTS.tmpfs.workspace, Math.floor(agent.mem_limit / 2)), exec: true, mode: 0o755 },
  ].filter((entry) => !taken.has(entry.target))
  const owner = uidOf(agent)
  const handler = agent.handler
  const binds = [...mounts.binds, ...secretBinds(record, name, agent.secrets)]
  if (handler.kind === 'module') binds.push({ source: posix.dirname(handler.path), target: '/app', read_only: true })
  const spec: ContainerSpec = {
    name,
    kind: 'agent',
    image: agent.image ?? record.images.agent,
    entrypoint: agent.entrypoint,
    command: agent.command,
    environment: {
      HOME: '/workspace',
      ...agent.environment,
      ...(hasEgress(agent)
        ? proxyVariables(
            egressDoor,
            [...direct, ...agent.uses].filter((name) => name !== egressDoor),
          )
        : {}),
      [AGENT_ENV.gateway]: `http://${door}:${GATEWAY_PORT}`,
      ...(gateways.length === 1
        ? {}
        : { [AGENT_ENV.gateways]: gateways.map((gateway) => `http://${gatewayDoor(gateway, door)}:${GATEWAY_PORT}`).join(',') }),
      [AGENT_ENV.agent]: agent.name,
      [AGENT_ENV.replica]: String(replica),
      [AGENT_ENV.concurrency]: String(agent.concurrency),
      ...(handler.kind === 'image'
        ? {}
        : { [AGENT_ENV.handler]: handler.kind === 'exec' ? 'exec' : `module:/app/${posix.basename(handler.path)}` }),
      ...(project.telemetry === null ? {} : { AGENTCTL_TRACES: '1' }),
    },
    labels: {
      ...agent.labels,
      [LABEL.project]: project.name,
      [LABEL.kind]: 'agent',
      [LABEL.agent]: agent.name,
      [LABEL.replica]: String(replica),
    },
    user: agent.user ?? DEFAULTS.agent.user,
    working_dir: agent.working_dir,
    stop_grace_s: 10,
    healthcheck: healthcheckOf(agent),
    endpoints,
    extra_hosts: extraHosts,
    dns: ['127.0.0.1'],
    ports: [],
    binds,
    volumes: mounts.volumes,
    tmpfs: [...tmpfs, ...mounts.tmpfs].map((entry) => (entry.target === '/tmp' ? entry : { ...entry, mode: 0o755, owner })),
    ...agentPosture(agent, ground),
    mem_limit: agent.mem_limit,
    cpus: agent.cpus,
    pids_limit: agent.pids_limit,
    restart: 'no',
  }
  return {
    spec: finish(spec, record.revision),
    hash: hashOfSpec(spec),
    group: agent.name,
    replica,
    until: 'ready',
    timeout_ms: agent.ready_timeout_ms + (hasCheck(agent) ? SERVICE_TIMEOUT_MS : 0),
    after: dependencies(project, agent),
    secrets: agent.secrets,
    stopped: record.stopped.includes(name),
  }
}

/** Services sit at the end of a link network, replicas at its start. */
const serviceHost = (replica: number): number => HOST.maxReplica + replica

function serviceContainer(record: ProjectRecord, service: Service, replica: number, ground: Ground): DesiredContainer {
  const { project } = record
  const name = containerName(project.name, service.name, replica)
  const endpoints: Endpoint[] = []
  if (onDefaultNetwork(project, service))
    endpoints.push({ network: networkName(project.name, 'default'), address: null, aliases: [service.name] })
  for (const agent of usersOf(project, service.name)) {
    const link = linkNetwork(agent.name, service.name)
    endpoints.push({ network: networkName(project.name, link), address: hostAddress(record.subnets[link] ?? '', serviceHost(replica)) })
  }
  const mounts = mountsOf(project.name, service)
  const spec: ContainerSpec = {
    name,
    kind: 'service',
    image: service.image ?? '',
    entrypoint: service.entrypoint,
    command: service.command,
    environment: service.environment,
    labels: {
      ...service.labels,
      [LABEL.project]: project.name,
      [LABEL.kind]: 'service',
      [LABEL.service]: service.name,
      [LABEL.replica]: String(replica),
    },
    user: service.user,
    working_dir: service.working_dir,
    stop_grace_s: 10,
    healthcheck: healthcheckOf(service),
    endpoints,
    extra_hosts: {},
    dns: endpoints.some((endpoint) => endpoint.aliases !== undefined) ? [] : ['127.0.0.1'],
    ports: service.ports,
    ...mounts,
    binds: service.secrets.length === 0 ? mounts.binds : [...mounts.binds, ...secretBinds(record, name, service.secrets)],
    ...servicePosture(service, ground),
    mem_limit: service.mem_limit,
    cpus: service.cpus,
    pids_limit: service.pids_limit,
    restart: 'no',
  }
  const completes = [...sorted(project.agents), ...sorted(project.services)].some(
    (other) => other.depends_on[service.name]?.condition === 'service_completed_successfully',
  )
  return {
    spec: finish(spec, record.revision),
    hash: hashOfSpec(spec),
    group: service.name,
    replica,
    until: completes ? 'completed' : hasCheck(service) ? 'healthy' : 'running',
    timeout_ms: SERVICE_TIMEOUT_MS,
    after: dependencies(project, service),
    secrets: service.secrets,
    stopped: record.stopped.includes(name),
  }
}
