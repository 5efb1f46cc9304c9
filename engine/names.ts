/** Names, labels, paths and addresses of everything we make (CONTRACT "Names, labels, networks"). Pure; the only place that spells them. */

import { hashOf } from './canonical.ts'

export type Kind = 'agent' | 'service' | 'gateway' | 'egress' | 'controller' | 'broker' | 'secrets'
export type TrustedKind = Exclude<Kind, 'agent' | 'service'>

/** Kind of what reads in the namespaces of a replica; nobody counts it. */
export const PROBE = 'probe'

export const LABEL = {
  project: 'agentctl.project',
  kind: 'agentctl.kind',
  agent: 'agentctl.agent',
  service: 'agentctl.service',
  replica: 'agentctl.replica',
  configHash: 'agentctl.config-hash',
  revision: 'agentctl.revision',
} as const

export const containerName = (project: string, name: string, replica: number): string => `${project}-${name}-${replica}`
export const trustedName = (project: string, kind: TrustedKind, replica = 1): string => `${project}-agentctl-${kind}-${replica}`
/** Networks: control, outside, default (services), agent-ROLE (a role's own), link-AGENT-SERVICE. */
export const networkName = (project: string, network: string): string => `${project}_${network}`
export const roleNetwork = (agent: string): string => `agent-${agent}`
export const linkNetwork = (agent: string, service: string): string => `link-${agent}.${service}`
export const volumeName = (project: string, volume: string): string => `${project}_${volume}`

export const STATE_VOLUME = 'agentctl-state'
export const SECRETS_VOLUME = 'agentctl-secrets'
export const BROKER_VOLUME = 'agentctl-broker'

/** Host parts of the static addresses in a /24. `.1` is the engine's (inhibited on internal networks). */
export const HOST = { gateway: 2, egress: 3, broker: 4, firstReplica: 9, maxReplica: 240, lastReplica: 248 } as const
/** The first gateway, and the others above the replicas: all on each network of agents and on `control`. */
export const gatewayHost = (replica: number): number => (replica === 1 ? HOST.gateway : HOST.lastReplica + replica - 1)
/** The port of the egress container that agents' HTTP_PROXY names. */
export const PROXY_PORT = 3128
/** What egress is told: the control network, from which alone it takes telemetry. */
export const CONTROL_ENV = 'AGENTCTL_CONTROL'
/** Its name within our containers. A service may be called `gateway`, so agents may know it by another. */
export const gatewayDoor = (replica: number, name = 'gateway'): string => (replica === 1 ? name : `${name}-${replica}`)

/** Parts that join and leave the networks of roles while they run, and the networks that they are made with: control, and outside for egress. */
export const OWN_NETWORKS = { gateway: 1, egress: 2 } as const
export const isRoaming = (kind: string): kind is keyof typeof OWN_NETWORKS => Object.hasOwn(OWN_NETWORKS, kind)

/** Paths inside our own containers. */
export const PATHS = {
  /** The state volume: holder (rw, writes), controller and gateway and egress (ro). */
  state: '/state',
  record: '/state/record.json',
  /** The gateway's own folder of the state volume, the only part of it that it writes. */
  gatewayState: '/state/gateway',
  /** The whole secrets volume: holder and controller only; everyone else sees their own folder at /run/secrets. */
  secretsRoot: '/secrets',
  secrets: '/run/secrets',
  controlSocket: '/run/agentctl/control.sock',
  lock: '/run/agentctl/lock',
  /** The bundles of the images. */
  app: '/opt/agentctl',
} as const

/** Folder of a container in the secrets volume, by container name. */
export const secretsFolder = (container: string): string => container
/** Beside it, what is mounted file by file: no container has such a name. */
export const fixedFolder = (container: string): string => `${container}~`
/** A secret's file in the volume: in the folder, or one that is mounted at an absolute path of its own. */
export const secretPath = (container: string, target: string): string =>
  target.startsWith('/') ? `${fixedFolder(container)}/${hashOf(target)}` : `${secretsFolder(container)}/${target}`

/** Secret files of our own parts, below /run/secrets. */
export const TRUSTED_SECRETS = {
  /** Signs replicas' tokens and leases; gateway only. 32 random bytes, hex. */
  projectKey: 'project-key',
  /** gateway and broker. */
  brokerPassword: 'broker-password',
  /** gateway: PEM, where the file names one for its own broker. */
  brokerCa: 'broker-ca',
  /** broker: a redis.conf with the password in it, so that no argv holds it. */
  brokerConf: 'redis.conf',
} as const

export const queueName = (agent: string): string => agent
/** One hash slot per project. */
export const queuePrefix = (project: string): string => `{agentctl:${project}}`
/** Of a gateway among several. `peers`: URLs of the others, which only the first is told. */
export const SHARD_ENV = { shard: 'AGENTCTL_SHARD', peers: 'AGENTCTL_PEERS' } as const
/** The gateway gives work to those replicas alone whose posture the controller has proved. */
export const GUARD_ENV = 'AGENTCTL_GUARDED'
/** What a gateway calls its project in the broker: each has keys of its own. */
export const shardProject = (project: string, shard: number): string => (shard === 1 ? project : `${project}:${shard}`)
export const shardState = (state: string, shard: number): string => (shard === 1 ? state : `${state}/shard-${shard}`)
