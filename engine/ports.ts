/** What the engine needs from a container runtime. Small on purpose: decisions are made in the plan, adapters only act. */
import type { Kind } from './names.ts'

export interface EngineInfo {
  readonly version: string
  readonly api_version: string
  readonly cgroup_version: 1 | 2
  readonly security_options: readonly string[]
  readonly runtimes: readonly string[]
  readonly rootless: boolean
  readonly endpoint: string
  readonly cpus: number
  readonly memory: number
  readonly data_root: string
  /** Which limits the engine can enforce; absent: it does not say. */
  readonly limits?: { readonly memory: boolean; readonly cpus: boolean; readonly pids: boolean }
}

export type ContainerStatus = 'created' | 'running' | 'restarting' | 'paused' | 'exited' | 'dead' | 'removing'

/** As listed (one call for all): labels tell what it is. `health` is null without a healthcheck. */
export interface ObservedContainer {
  readonly id: string
  readonly name: string
  readonly image: string
  readonly labels: { readonly [name: string]: string }
  readonly status: ContainerStatus
  readonly health: 'starting' | 'healthy' | 'unhealthy' | null
  readonly exit_code: number | null
  readonly created_at: string
  /** Human text of the engine, e.g. "Up 3 minutes (healthy)". */
  readonly status_text: string
  /** network name → IPv4 address ('' when not running). */
  readonly networks: { readonly [network: string]: string }
  /** Ports of the host that it holds: "8080/tcp". */
  readonly published?: readonly string[]
}
export interface ObservedNetwork {
  readonly id: string
  readonly name: string
  readonly labels: { readonly [name: string]: string }
  readonly subnets: readonly string[]
  readonly internal: boolean
}
export interface ObservedVolume {
  readonly name: string
  readonly labels: { readonly [name: string]: string }
  readonly mountpoint: string
}

export interface NetworkSpec {
  readonly name: string
  readonly internal: boolean
  readonly subnet: string
  readonly labels: { readonly [name: string]: string }
}
export interface VolumeSpec {
  readonly name: string
  readonly labels: { readonly [name: string]: string }
  /** A tmpfs volume of that many bytes; null: the engine's default driver. */
  readonly tmpfs: number | null
}
/** `aliases`: names by which others on a network with DNS find it (services on the default network only). */
export interface Endpoint {
  readonly network: string
  readonly address: string | null
  readonly aliases?: readonly string[]
}

/** Everything about a container to be made; `harden.ts` fills it. Mirrors the engine's create body in our own words. */
export interface ContainerSpec {
  readonly name: string
  readonly kind: Kind
  readonly image: string
  readonly entrypoint: readonly string[] | null
  readonly command: readonly string[] | null
  readonly environment: { readonly [name: string]: string }
  readonly labels: { readonly [name: string]: string }
  readonly user: string | null
  readonly working_dir: string | null
  readonly stop_grace_s: number
  readonly healthcheck: {
    readonly test: readonly string[]
    readonly interval_ms: number
    readonly timeout_ms: number
    readonly start_period_ms: number
    readonly retries: number
  } | null
  /** First endpoint is given at create, the others by connect (API 1.41 takes one). Empty: network "none". */
  readonly endpoints: readonly Endpoint[]
  readonly extra_hosts: { readonly [host: string]: string }
  readonly dns: readonly string[]
  readonly ports: readonly {
    readonly host_ip: string
    readonly host_port: number
    readonly container_port: number
    readonly protocol: 'tcp' | 'udp'
  }[]
  readonly binds: readonly { readonly source: string; readonly target: string; readonly read_only: boolean }[]
  readonly volumes: readonly { readonly source: string; readonly target: string; readonly read_only: boolean }[]
  /** With an owner rather than mode 1777: when a container starts again, runc gives the mount the mode of the folder below it (0755), but not its owner. */
  readonly tmpfs: readonly {
    readonly target: string
    readonly size: number
    readonly exec: boolean
    readonly mode: number
    readonly owner?: { readonly uid: number; readonly gid: number }
  }[]
  readonly read_only: boolean
  readonly cap_drop: readonly string[]
  readonly cap_add: readonly string[]
  readonly no_new_privileges: boolean
  /** Seccomp profile as JSON text; null: the engine's default (services only). */
  readonly seccomp: string | null
  /** A profile that the machine has loaded. Absent: the engine's own, where the kernel has AppArmor. */
  readonly apparmor?: string
  /** OCI runtime. Absent: the engine's default. */
  readonly runtime?: string
  /** Bytes of /dev/shm. Absent: SHM_SIZE. */
  readonly shm_size?: number
  readonly masked_paths: readonly string[] | null
  readonly readonly_paths: readonly string[] | null
  readonly sysctls: { readonly [name: string]: string }
  readonly ulimits: readonly { readonly name: string; readonly soft: number; readonly hard: number }[]
  readonly mem_limit: number
  readonly cpus: number
  readonly pids_limit: number
  readonly oom_score_adj: number
  readonly init: boolean
  readonly restart: 'no' | 'unless-stopped'
}

/** One event of the engine that matters here. */
export interface EngineEvent {
  readonly action: 'create' | 'start' | 'die' | 'destroy' | 'healthy' | 'unhealthy' | 'oom' | 'update' | 'disconnect' | 'rename'
  readonly container: string
  readonly name: string
  readonly labels: { readonly [name: string]: string }
  readonly exit_code: number | null
  readonly time_ms: number
}

/** Docker's own default, said aloud: a daemon may be configured with another. */
export const SHM_SIZE = 67_108_864

/** A container joined or left a network: of any project, since the engine tells only ids. */
export interface NetworkEvent {
  readonly container: string
  readonly network: string
}

export interface ExecResult {
  readonly exit_code: number
  readonly stdout: Buffer
  readonly stderr: Buffer
}
export interface File {
  readonly path: string
  readonly content: string | Buffer
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export interface Image {
  readonly id: string
  readonly user: string
  readonly size: number
  /** NAME=value */
  readonly environment: readonly string[]
}

/** Calls throw AgentctlError (AG4xxx) and nothing else. Every call takes a signal and has a timeout of its own. */
export interface ContainerRuntime {
  info(signal?: AbortSignal): Promise<EngineInfo>
  /** The project's objects; `project` null: of every project of ours. Networks: all of the engine's when project is null. */
  containers(project: string | null, signal?: AbortSignal): Promise<readonly ObservedContainer[]>
  networks(project: string | null, signal?: AbortSignal): Promise<readonly ObservedNetwork[]>
  volumes(project: string | null, signal?: AbortSignal): Promise<readonly ObservedVolume[]>
  createNetwork(spec: NetworkSpec, signal?: AbortSignal): Promise<string>
  removeNetwork(name: string, signal?: AbortSignal): Promise<void>
  createVolume(spec: VolumeSpec, signal?: AbortSignal): Promise<ObservedVolume>
  volume(name: string, signal?: AbortSignal): Promise<ObservedVolume | null>
  removeVolume(name: string, signal?: AbortSignal): Promise<void>
  /** Engine warnings ("limit discarded") are AG4006. One engine call. */
  createContainer(spec: ContainerSpec, signal?: AbortSignal): Promise<string>
  connect(container: string, endpoint: Endpoint, signal?: AbortSignal): Promise<void>
  disconnect(container: string, network: string, signal?: AbortSignal): Promise<void>
  start(container: string, signal?: AbortSignal): Promise<void>
  stop(container: string, grace_s: number, signal?: AbortSignal): Promise<void>
  /** Force; also its anonymous volumes. Missing is fine. */
  remove(container: string, signal?: AbortSignal): Promise<void>
  /** Runs a command of another image in the PID and network namespaces of that container, without any power of its own: what it printed. */
  join(container: string, reader: Reader, signal?: AbortSignal): Promise<Buffer>
  /** Raw inspect of the engine, for proofs and tests. */
  inspect(container: string, signal?: AbortSignal): Promise<unknown>
  /** Events from `since` (unix seconds, may be fractional) on, until the signal aborts or the engine goes (throws). */
  events(project: string, since: number, signal: AbortSignal): AsyncIterable<EngineEvent>
  networkEvents(since: number, signal: AbortSignal): AsyncIterable<NetworkEvent>
  /** Frames of stdout and stderr. */
  logs(
    container: string,
    options: { follow: boolean; tail: number | null; timestamps: boolean; since?: string },
    signal: AbortSignal,
  ): AsyncIterable<{ stream: 'stdout' | 'stderr'; data: Buffer }>
  /** The same, whole and at the command's own pace, of a container that is started afterwards. Resolves when it listens. */
  attach(container: string, signal: AbortSignal): Promise<AsyncIterable<{ stream: 'stdout' | 'stderr'; data: Buffer }>>
  exec(
    container: string,
    command: readonly string[],
    options?: { stdin?: Buffer; user?: string; env?: readonly string[]; working_dir?: string; timeout_ms?: number },
    signal?: AbortSignal,
  ): Promise<ExecResult>
  /** A duplex byte stream to a command's stdin and stdout inside the container; closing it ends the command's stdin. */
  execStream(
    container: string,
    command: readonly string[],
    options?: { user?: string; tty?: boolean; env?: readonly string[]; working_dir?: string },
    signal?: AbortSignal,
  ): Promise<ExecStream>
  putFiles(container: string, directory: string, files: readonly File[], signal?: AbortSignal): Promise<void>
  putArchive(container: string, directory: string, tar: NodeJS.ReadableStream, signal?: AbortSignal): Promise<void>
  getArchive(container: string, path: string, signal?: AbortSignal): Promise<NodeJS.ReadableStream>
  image(reference: string, signal?: AbortSignal): Promise<Image | null>
  /** What made each layer of an image ("CreatedBy"). */
  imageHistory(reference: string, signal?: AbortSignal): Promise<readonly string[]>
  pullImage(reference: string, signal?: AbortSignal): Promise<void>
  buildImage(
    options: { context: NodeJS.ReadableStream; tags: readonly string[]; buildargs?: { readonly [name: string]: string } },
    signal?: AbortSignal,
  ): Promise<string>
  importImage(tar: NodeJS.ReadableStream, reference: string, signal?: AbortSignal): Promise<void>
  tagImage(id: string, reference: string, signal?: AbortSignal): Promise<void>
}

export interface Reader {
  readonly image: string
  readonly command: readonly string[]
  readonly user: string
  readonly seccomp: string
  readonly labels: { readonly [name: string]: string }
}

export interface ExecStream {
  readonly stdin: NodeJS.WritableStream
  readonly stdout: NodeJS.ReadableStream
  readonly stderr: NodeJS.ReadableStream
  resize(rows: number, columns: number): Promise<void>
  readonly exit: Promise<number>
  close(): void
}
