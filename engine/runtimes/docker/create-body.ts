/** ContainerSpec, NetworkSpec, VolumeSpec → the engine's create bodies. Pure; what is not said here is not asked of the engine. */
import { type ContainerSpec, type Endpoint, type NetworkSpec, type Reader, SHM_SIZE, type VolumeSpec } from '../../ports.ts'

export interface EngineFeatures {
  /** Engine ≥ 28: bridges without an address of the host. */
  readonly hasIsolatedGateway: boolean
}

type Body = { readonly [key: string]: unknown }

const NS_PER_MS = 1_000_000

export function containerBody(spec: ContainerSpec): Body {
  const [first] = spec.endpoints
  return {
    Image: spec.image,
    Env: Object.keys(spec.environment)
      .sort()
      .map((name) => `${name}=${spec.environment[name]}`),
    Labels: spec.labels,
    StopTimeout: spec.stop_grace_s,
    ...(spec.entrypoint === null ? {} : { Entrypoint: spec.entrypoint }),
    ...(spec.command === null ? {} : { Cmd: spec.command }),
    ...(spec.user === null ? {} : { User: spec.user }),
    ...(spec.working_dir === null ? {} : { WorkingDir: spec.working_dir }),
    ...(spec.healthcheck === null ? {} : { Healthcheck: healthBody(spec.healthcheck) }),
    ...(spec.ports.length === 0
      ? {}
      : { ExposedPorts: Object.fromEntries(spec.ports.map((port) => [`${port.container_port}/${port.protocol}`, {}])) }),
    HostConfig: hostBody(spec),
    ...(first === undefined ? {} : { NetworkingConfig: { EndpointsConfig: { [first.network]: endpointBody(first) } } }),
  }
}

export function endpointBody(endpoint: Endpoint): Body {
  return endpoint.address === null ? {} : { IPAMConfig: { IPv4Address: endpoint.address } }
}

function healthBody(check: NonNullable<ContainerSpec['healthcheck']>): Body {
  return {
    Test: check.test,
    Interval: check.interval_ms * NS_PER_MS,
    Timeout: check.timeout_ms * NS_PER_MS,
    // Zero would be the image's own, of another check; a millisecond is the least.
    StartPeriod: Math.max(check.start_period_ms, 1) * NS_PER_MS,
    Retries: check.retries,
  }
}

function hostBody(spec: ContainerSpec): Body {
  const [first] = spec.endpoints
  return {
    NetworkMode: first?.network ?? 'none',
    RestartPolicy: { Name: spec.restart, MaximumRetryCount: 0 },
    Privileged: false,
    ReadonlyRootfs: spec.read_only,
    CapDrop: spec.cap_drop,
    CapAdd: spec.cap_add,
    SecurityOpt: [
      ...(spec.no_new_privileges ? ['no-new-privileges=true'] : []),
      ...(spec.seccomp === null ? [] : [`seccomp=${spec.seccomp}`]),
      ...(spec.apparmor === undefined ? [] : [`apparmor=${spec.apparmor}`]),
    ],
    ...(spec.runtime === undefined ? {} : { Runtime: spec.runtime }),
    // null is the engine's own list; [] would unmask everything.
    ...(spec.masked_paths === null ? {} : { MaskedPaths: spec.masked_paths }),
    ...(spec.readonly_paths === null ? {} : { ReadonlyPaths: spec.readonly_paths }),
    Memory: spec.mem_limit,
    // Equal to Memory: no swap.
    MemorySwap: spec.mem_limit,
    NanoCpus: Math.round(spec.cpus * 1e9),
    PidsLimit: spec.pids_limit,
    OomScoreAdj: spec.oom_score_adj,
    Ulimits: spec.ulimits.map(({ name, soft, hard }) => ({ Name: name, Soft: soft, Hard: hard })),
    Sysctls: spec.sysctls,
    Init: spec.init,
    ShmSize: spec.shm_size ?? SHM_SIZE,
    // The engine's default on cgroup v1 is the host's.
    CgroupnsMode: 'private',
    IpcMode: 'private',
    ExtraHosts: Object.keys(spec.extra_hosts)
      .sort()
      .map((host) => `${host}:${spec.extra_hosts[host]}`),
    Dns: spec.dns,
    PortBindings: portBindings(spec),
    Mounts: mounts(spec),
    Tmpfs: Object.fromEntries(spec.tmpfs.map((mount) => [mount.target, tmpfsOptions(mount)])),
    LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
  }
}

/** Nothing but two namespaces of the other: no capability, no mount, no way to write. */
export function readerBody(container: string, { image, command, user, seccomp, labels }: Reader): Body {
  return {
    Image: image,
    Entrypoint: command.slice(0, 1),
    Cmd: command.slice(1),
    User: user,
    Env: [],
    Labels: labels,
    Healthcheck: { Test: ['NONE'] },
    HostConfig: {
      NetworkMode: `container:${container}`,
      PidMode: `container:${container}`,
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges=true', `seccomp=${seccomp}`],
      Memory: READER_MEMORY,
      MemorySwap: READER_MEMORY,
      NanoCpus: 1e9,
      PidsLimit: 8,
      CgroupnsMode: 'private',
      IpcMode: 'private',
      LogConfig: { Type: 'none', Config: {} },
    },
  }
}
const READER_MEMORY = 33_554_432

function portBindings(spec: ContainerSpec): { [port: string]: Body[] } {
  const bindings: { [port: string]: Body[] } = {}
  for (const port of spec.ports) {
    const key = `${port.container_port}/${port.protocol}`
    bindings[key] ??= []
    bindings[key].push({ HostIp: port.host_ip, HostPort: port.host_port === 0 ? '' : String(port.host_port) })
  }
  return bindings
}

/** Mounts, not Binds: a bind source that is missing is an error there, and not an empty folder made by the engine. */
function mounts(spec: ContainerSpec): readonly Body[] {
  return [
    ...spec.binds.map(({ source, target, read_only }) => ({
      Type: 'bind',
      Source: source,
      Target: target,
      ReadOnly: read_only,
      BindOptions: {
        // The engine insists on rslave for what lies in its own data root (a folder of the secrets volume); nothing is mounted below it.
        Propagation: /\/volumes\/[^/]+\/_data\//.test(source) ? 'rslave' : 'rprivate',
        // Before API 1.44 read-only is the source alone: what is mounted below it could be written. Left out, it is the same on every engine.
        ...(read_only ? { NonRecursive: true } : {}),
      },
    })),
    ...spec.volumes.map(({ source, target, read_only }) => ({ Type: 'volume', Source: source, Target: target, ReadOnly: read_only })),
  ]
}

const tmpfsOptions = ({ size, exec, mode, owner }: ContainerSpec['tmpfs'][number]): string =>
  `rw,nosuid,nodev,${exec ? 'exec' : 'noexec'},size=${size},mode=${mode.toString(8)}${owner === undefined ? '' : `,uid=${owner.uid},gid=${owner.gid}`}`

export function networkBody(spec: NetworkSpec, features: EngineFeatures): Body {
  // An internal bridge still has the host's address on it; these two take it away.
  const isolation: Body = features.hasIsolatedGateway
    ? { 'com.docker.network.bridge.gateway_mode_ipv4': 'isolated' }
    : { 'com.docker.network.bridge.inhibit_ipv4': 'true' }
  return {
    Name: spec.name,
    CheckDuplicate: true,
    Driver: 'bridge',
    Internal: spec.internal,
    Attachable: false,
    EnableIPv6: false,
    IPAM: { Driver: 'default', Config: [{ Subnet: spec.subnet }] },
    Options: spec.internal ? isolation : {},
    Labels: spec.labels,
  }
}

export function volumeBody(spec: VolumeSpec): Body {
  const options = spec.tmpfs === null ? {} : { type: 'tmpfs', device: 'tmpfs', o: `size=${spec.tmpfs},mode=0755,noexec,nosuid,nodev` }
  return { Name: spec.name, Driver: 'local', DriverOpts: options, Labels: spec.labels }
}

/** Warnings at create that say nothing about a limit. The swap one says itself that the memory limit holds. */
const HARMLESS = [/limited without swap/i, /requested image's platform/i, /ipv4 forwarding is disabled/i, /^$/]

export const seriousWarnings = (warnings: readonly string[]): readonly string[] =>
  warnings.filter((warning) => !HARMLESS.some((pattern) => pattern.test(warning)))
