/** The specs of our own parts: one image, one kind of power each (docs/architecture.md "Parts"). Pure. */
import { GATEWAY_PORT } from '../spec/protocol.ts'
import { trustedPosture, ulimits } from './harden.ts'
import {
  BROKER_VOLUME,
  CONTROL_ENV,
  gatewayDoor,
  gatewayHost,
  GUARD_ENV,
  HOST,
  LABEL,
  networkName,
  PATHS,
  SECRETS_VOLUME,
  secretsFolder,
  SHARD_ENV,
  STATE_VOLUME,
  TRUSTED_SECRETS,
  type TrustedKind,
  trustedName,
  volumeName,
} from './names.ts'
import type { ContainerSpec, Endpoint } from './ports.ts'
import { hostAddress } from './subnets.ts'

export interface TrustedFacts {
  readonly project: string
  readonly image: string
  readonly seccomp: string
  /** Path of the secrets volume on the engine. */
  readonly secretsMount: string
  /** Path of the gateway's folder of the state volume on the engine. */
  readonly gatewayState: string
  /** Where the engine's socket lies on its own machine. */
  readonly engineSocket: string
  readonly subnets: { readonly [network: string]: string }
  /** Processors of the engine's machine. */
  readonly cpus: number
  /** The address of a broker that the project brings along; null: we run one. */
  readonly brokerUrl: string | null
  readonly durability: 'none' | 'normal' | 'strict'
  /** How many gateways there are. */
  readonly gateways: number
  /** Role networks that each gateway joins, in order. */
  readonly roleNetworks: readonly string[]
  /** Those of agents with egress rules, which egress joins. */
  readonly egressNetworks: readonly string[]
}

const MIB = 1_048_576
/** uid of the gateway, egress and broker in the engine image. */
export const PART_UID = 10_002
/** "Our own parts use an interval of 1 s" (CONTRACT): a dead part is seen within two. */
const CHECK = { interval_ms: 1_000, timeout_ms: 2_000, start_period_ms: 10_000, retries: 3 } as const

const address = (facts: TrustedFacts, network: string, host: number): Endpoint => ({
  network: networkName(facts.project, network),
  address: hostAddress(facts.subnets[network] ?? '', host),
})

const httpCheck = (path: string, socat: string): readonly string[] => [
  'CMD-SHELL',
  `printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' | socat -t2 - ${socat} | grep -q ' 200 '`,
]

function base(facts: TrustedFacts, kind: TrustedKind, network: boolean, replica = 1): ContainerSpec {
  const name = trustedName(facts.project, kind, replica)
  return {
    name,
    kind,
    image: facts.image,
    entrypoint: null,
    command: null,
    environment: { AGENTCTL_PROJECT: facts.project },
    labels: { [LABEL.project]: facts.project, [LABEL.kind]: kind, [LABEL.replica]: String(replica) },
    user: `${PART_UID}:${PART_UID}`,
    working_dir: null,
    stop_grace_s: 5,
    healthcheck: null,
    endpoints: [],
    extra_hosts: {},
    dns: ['127.0.0.1'],
    ports: [],
    binds: [],
    volumes: [],
    tmpfs: [{ target: '/tmp', size: 16 * MIB, exec: false, mode: 0o1777 }],
    ...trustedPosture(facts.seccomp, network, facts.cpus),
    mem_limit: 256 * MIB,
    cpus: 1,
    pids_limit: 128,
    restart: 'unless-stopped',
  }
}

const ownSecrets = (facts: TrustedFacts, kind: TrustedKind, replica = 1): ContainerSpec['binds'] => [
  { source: `${facts.secretsMount}/${secretsFolder(trustedName(facts.project, kind, replica))}`, target: PATHS.secrets, read_only: true },
]
const stateVolume = (facts: TrustedFacts, read_only: boolean): ContainerSpec['volumes'][number] => ({
  source: volumeName(facts.project, STATE_VOLUME),
  target: PATHS.state,
  read_only,
})
const secretsVolume = (facts: TrustedFacts, read_only: boolean): ContainerSpec['volumes'][number] => ({
  source: volumeName(facts.project, SECRETS_VOLUME),
  target: PATHS.secretsRoot,
  read_only,
})
const run = (uid: number): ContainerSpec['tmpfs'][number] => ({
  target: '/run/agentctl',
  size: MIB,
  exec: false,
  mode: 0o700,
  owner: { uid, gid: uid },
})

/** Holds the two volumes and the lock; runs nothing but `sleep`. Root owns the files that it guards; it has no capability and no network. */
const holder = (facts: TrustedFacts): ContainerSpec => ({
  ...base(facts, 'secrets', false),
  user: '0:0',
  command: ['sleep', 'infinity'],
  stop_grace_s: 0,
  volumes: [secretsVolume(facts, false), stateVolume(facts, false)],
  tmpfs: [run(0)],
  mem_limit: 64 * MIB,
  cpus: 0.5,
})

/**
 * Redis looks into the append-only file when it is on and into the dump when it is off, never into both, so a change of `durability`
 * would come up empty. A dump is a valid base of an append-only file, and the other way round a Redis that nobody reaches makes one.
 * With `none` the dump is written by a stop in good order alone, and read once: an old one would bring back work that is done.
 */
const BROKER_START = `set -e
cd /data
if [ "$AGENTCTL_DURABILITY" = none ]; then
  if [ -e appendonlydir ]; then
    redis-server --port 0 --unixsocket /tmp/moving.sock --dir /data --appendonly yes --save '' &
    until redis-cli -s /tmp/moving.sock ping 2>/dev/null | grep -q PONG; do kill -0 $! || exit 1; sleep 0.1; done
    redis-cli -s /tmp/moving.sock shutdown save
    wait $! || true
    rm -rf appendonlydir
  fi
  (until redis-cli ping 2>&1 | grep -qE 'PONG|NOAUTH'; do sleep 0.1; done; rm -f dump.rdb) &
elif [ -e dump.rdb ] && [ ! -e appendonlydir/appendonly.aof.manifest ]; then
  mv dump.rdb appendonly.aof
fi
exec redis-server "$1"
`

const broker = (facts: TrustedFacts): ContainerSpec => ({
  ...base(facts, 'broker', true),
  command: ['sh', '-c', BROKER_START, 'broker', `${PATHS.secrets}/${TRUSTED_SECRETS.brokerConf}`],
  // What the file beside it says too; here, so that a change makes the container anew.
  environment: { AGENTCTL_PROJECT: facts.project, AGENTCTL_DURABILITY: facts.durability },
  stop_grace_s: 10,
  // Without a password Redis says NOAUTH, which is a living Redis; while it loads it says LOADING, which is not ready.
  healthcheck: { ...CHECK, test: ['CMD-SHELL', "redis-cli ping 2>&1 | grep -qE 'PONG|NOAUTH'"] },
  endpoints: [address(facts, 'control', HOST.broker)],
  volumes: [{ source: volumeName(facts.project, BROKER_VOLUME), target: '/data', read_only: false }],
  binds: ownSecrets(facts, 'broker'),
  // Twice maxmemory (redis.conf): copy-on-write while the AOF is rewritten.
  mem_limit: 1024 * MIB,
})

/** The control API of the first of several says how all are: one that is away would have it restarted too. Agents' asks for itself alone. */
const checkedAt = ({ gateways }: TrustedFacts, replica: number): string =>
  gateways > 1 && replica === 1 ? `TCP:127.0.0.1:${GATEWAY_PORT}` : `UNIX-CONNECT:${PATHS.controlSocket}`
/** With several: which one it is, and of the first, through which the others are reached, where they are. */
function gatewayEnvironment({ project, brokerUrl, gateways }: TrustedFacts, replica: number): ContainerSpec['environment'] {
  const peers = others(gateways).map((other) => `http://${gatewayDoor(other)}:${GATEWAY_PORT}`)
  return {
    AGENTCTL_PROJECT: project,
    [GUARD_ENV]: '1',
    // A broker of the user's own: another address is another gateway, which connects anew.
    ...(brokerUrl === null ? {} : { AGENTCTL_BROKER_URL: brokerUrl }),
    ...(gateways === 1 ? {} : { [SHARD_ENV.shard]: String(replica) }),
    ...(gateways === 1 || replica !== 1 ? {} : { [SHARD_ENV.peers]: peers.join(',') }),
  }
}
const others = (gateways: number): readonly number[] => Array.from({ length: gateways - 1 }, (_, index) => index + 2)

const gateway = (facts: TrustedFacts, replica: number): ContainerSpec => ({
  ...base(facts, 'gateway', true, replica),
  // Up to 300 connections of each replica; not more, as a container's hard limit cannot be above the daemon's.
  ulimits: ulimits(16_384),
  command: ['node', `${PATHS.app}/gateway.mjs`],
  healthcheck: { ...CHECK, test: httpCheck('/v1/health', checkedAt(facts, replica)) },
  endpoints: ['control', ...facts.roleNetworks].map((network) => address(facts, network, gatewayHost(replica))),
  environment: gatewayEnvironment(facts, replica),
  extra_hosts: {
    ...(facts.brokerUrl === null ? { broker: hostAddress(facts.subnets['control'] ?? '', HOST.broker) } : {}),
    egress: hostAddress(facts.subnets['control'] ?? '', HOST.egress),
    ...Object.fromEntries(
      (replica === 1 ? others(facts.gateways) : []).map((other) => [
        gatewayDoor(other),
        hostAddress(facts.subnets['control'] ?? '', gatewayHost(other)),
      ]),
    ),
  },
  volumes: [stateVolume(facts, true)],
  // Archive, artifacts and witness. The rest of the state volume stays read-only to it: the record is what it obeys.
  binds: [...ownSecrets(facts, 'gateway', replica), { source: facts.gatewayState, target: PATHS.gatewayState, read_only: false }],
  tmpfs: [{ target: '/tmp', size: 16 * MIB, exec: false, mode: 0o1777 }, run(PART_UID)],
  mem_limit: 768 * MIB,
})

/** Where the relay listens, and for whom: nobody else is on that network, and it asks all the same. */
const relayOf = ({ subnets, gateways }: TrustedFacts): string =>
  [HOST.egress, HOST.gateway, ...others(gateways).map(gatewayHost)].map((host) => hostAddress(subnets['control'] ?? '', host)).join(',')

/** `UV_THREADPOOL_SIZE`: names are resolved by threads, and a slow answer for one agent must not hold up the others. */
const egressEnvironment = (facts: TrustedFacts): ContainerSpec['environment'] => ({
  AGENTCTL_PROJECT: facts.project,
  [CONTROL_ENV]: facts.subnets['control'] ?? '',
  UV_THREADPOOL_SIZE: '32',
  ...(facts.brokerUrl === null ? {} : { AGENTCTL_RELAY: relayOf(facts) }),
})

const egress = (facts: TrustedFacts): ContainerSpec => ({
  ...base(facts, 'egress', true),
  // Two for a tunnel.
  ulimits: ulimits(16_384),
  command: ['node', `${PATHS.app}/egress.mjs`],
  healthcheck: { ...CHECK, test: httpCheck('/healthz', 'TCP:127.0.0.1:4318') },
  endpoints: [
    address(facts, 'control', HOST.egress),
    { network: networkName(facts.project, 'outside'), address: null },
    ...facts.egressNetworks.map((network) => address(facts, network, HOST.egress)),
  ],
  environment: egressEnvironment(facts),
  dns: [],
  // A collector on the user's own machine has a name: localhost would be this container.
  extra_hosts: { 'host.docker.internal': 'host-gateway' },
  volumes: [stateVolume(facts, true)],
})

/** The engine socket is root's; uid 0 without any capability opens it as its owner and nothing else. No network at all. */
const controller = (facts: TrustedFacts): ContainerSpec => ({
  ...base(facts, 'controller', false),
  user: '0:0',
  command: ['node', `${PATHS.app}/controller.mjs`],
  healthcheck: { ...CHECK, test: ['CMD-SHELL', 'test -n "$(find /run/agentctl/alive -mmin -0.5)"'] },
  volumes: [stateVolume(facts, true), secretsVolume(facts, true)],
  binds: [{ source: facts.engineSocket, target: '/var/run/docker.sock', read_only: true }],
  tmpfs: [{ target: '/tmp', size: 16 * MIB, exec: false, mode: 0o1777 }, run(0)],
})

/** In the order in which they are planned. */
export const trustedSpecs = (facts: TrustedFacts): readonly ContainerSpec[] => [
  holder(facts),
  ...(facts.brokerUrl === null ? [broker(facts)] : []),
  ...[1, ...others(facts.gateways)].map((replica) => gateway(facts, replica)),
  egress(facts),
  controller(facts),
]
