/** The checked, normalised project: what `load` gives and `agentctl config` prints (snake_case, no secret values). Plain data. */
import type { Json } from './protocol.ts'

export type Condition = 'service_started' | 'service_healthy' | 'service_completed_successfully'

/** Durations are milliseconds, sizes bytes. `config` prints them under the file's own keys (`interval: 30s`), so that its output loads again. */
export interface Healthcheck {
  /** As the engine takes it: ["CMD", …], ["CMD-SHELL", "…"]; disabled: ["NONE"]. */
  readonly test: readonly string[]
  readonly interval_ms?: number
  readonly timeout_ms?: number
  readonly start_period_ms?: number
  readonly retries?: number
}

export type Mount =
  | { readonly type: 'bind'; readonly source: string; readonly target: string; readonly read_only: boolean }
  | { readonly type: 'volume'; readonly source: string; readonly target: string; readonly read_only: boolean }
  | { readonly type: 'tmpfs'; readonly target: string; readonly size: number }

export interface SecretUse {
  /** Name under `secrets:`. */
  readonly source: string
  /** File name below /run/secrets, or an absolute path elsewhere. */
  readonly target: string
  /** Absent: the container's user and group, and what of them can read it. */
  readonly uid?: number
  readonly gid?: number
  readonly mode?: number
}

export interface PortMapping {
  /** Default 127.0.0.1. */
  readonly host_ip: string
  /** 0: any free port. */
  readonly host_port: number
  readonly container_port: number
  readonly protocol: 'tcp' | 'udp'
}

/** `default` and `strict`: ours. */
export type SeccompChoice = 'default' | 'strict' | { /** absolute */ readonly path: string }

/** What the file changes of a posture, under Compose's names. A key that is absent: as engine/harden.ts has it. */
export interface Hardening {
  /** Capabilities without CAP_, sorted. */
  readonly cap_add?: readonly string[]
  readonly cap_drop?: readonly string[]
  readonly no_new_privileges?: boolean
  readonly seccomp?: SeccompChoice
  readonly apparmor?: string
  readonly read_only?: boolean
  readonly ulimits?: { readonly [name: string]: { readonly soft: number; readonly hard: number } }
  readonly shm_size?: number
  readonly init?: boolean
  readonly runtime?: string
  readonly sysctls?: { readonly [name: string]: string }
}

/** What agents and services have in common (Compose's keys). */
export interface Workload {
  readonly name: string
  /** null: agentctl/agent of this version (agents only). */
  readonly image: string | null
  readonly command: readonly string[] | null
  readonly entrypoint: readonly string[] | null
  readonly environment: { readonly [name: string]: string }
  readonly replicas: number
  readonly depends_on: { readonly [name: string]: { readonly condition: Condition } }
  readonly healthcheck: Healthcheck | null
  readonly mounts: readonly Mount[]
  readonly mem_limit: number
  readonly cpus: number
  readonly pids_limit: number
  /** "uid" or "uid:gid", numeric for agents. null: the image's (services). */
  readonly user: string | null
  readonly working_dir: string | null
  readonly labels: { readonly [name: string]: string }
  readonly secrets: readonly SecretUse[]
  /** Absent: nothing is changed. */
  readonly hardening?: Hardening
}

export type Handler =
  | { readonly kind: 'exec' }
  | { readonly kind: 'module' /** absolute path on the host */; readonly path: string }
  | { readonly kind: 'image' }

/** Which failed executions are tried again, and when. An agent's death is no failure of the task and is not counted here. */
export interface RetryPolicy {
  /** Executions that may fail in all; 1: none is tried again. */
  readonly attempts: number
  /** Before the second execution. `exponential` doubles it each time. */
  readonly delay_ms: number
  readonly max_delay_ms: number
  readonly backoff: 'exponential' | 'fixed'
  /** 0 to 1: the share of a delay that is random, so that what failed together is not tried together. */
  readonly jitter: number
  /** Error codes that are tried again; "*": all. null: those that the agent called retryable, and timeouts. */
  readonly on: readonly string[] | null
}

/** Temporal's four words. null: no limit. */
export interface Timeouts {
  /** From the submit to the first execution. Final. */
  readonly schedule_to_start_ms: number | null
  /** One execution. Tried again as `retry` says. */
  readonly start_to_close_ms: number | null
  /** From the submit to the end, all executions and waits. Final. */
  readonly schedule_to_close_ms: number | null
  /** Longest silence of the work itself (progress, step, log, child), not of the process that holds it. */
  readonly heartbeat_ms: number | null
}

/** When motion is no progress. null: never. */
export interface StallPolicy {
  /** The same step (name, tool, hash of arguments) so often in a row. */
  readonly repeats: number | null
  /** Steps since `percent` or `milestone` last changed. */
  readonly steps: number | null
  /** Tokens since then. */
  readonly tokens: number | null
}

/** How the gateway gives an agent its work. It is read from the record as it goes: a change restarts no container. */
export interface WorkPolicy {
  /** Tasks of this agent at once, over all replicas. Parked ones do not count. */
  readonly total: number | null
  /** Fairness: ["input", "tenant"] or ["run"], a path into the task. */
  readonly key: readonly string[] | null
  /** Tasks with the same key at once. null with a key: as many as the agent has slots (fair, not capped). */
  readonly per_key: number | null
  readonly rate: { readonly max: number; readonly per_ms: number } | null
  readonly retry: RetryPolicy
  readonly timeouts: Timeouts
  readonly stall: StallPolicy
  /** Unfinished tasks of this agent; beyond it a submit or a delegation is refused (429). */
  readonly max_queue: number
}

/** `durability`: what Redis has on disk when it says yes. none: nothing; normal: within a second; strict: all. */
export interface BrokerSettings {
  /** null: the one that we run. Without the password. */
  readonly url: string | null
  /** Name under `secrets:`. */
  readonly password: string | null
  /** Name under `secrets:`: the CA of a rediss:// broker whose certificate no public CA signed. */
  readonly ca: string | null
  readonly durability: 'none' | 'normal' | 'strict'
  /** Tasks at once in the whole project. Parked ones do not count. */
  readonly concurrency: number | null
}

export interface ArtifactSettings {
  /** Bytes of one. */
  readonly max_size: number
  /** Bytes of all of a run, and of all that are kept. */
  readonly max_run: number
  readonly max_total: number
  /** Media types that are taken ("text/*"); null: any. */
  readonly types: readonly string[] | null
  /** After its run has ended. */
  readonly retention_ms: number
}

/** `https` is TLS of any kind, also wss; `http` with the upgrade to ws; `ws` that upgrade alone; `tcp` whatever it is. */
export type EgressScheme = 'https' | 'http' | 'ws' | 'tcp'

/** Exactly one of `host` and `cidr` is set. null elsewhere: any; of `ports` and `scheme` in rules that deny alone. */
export interface EgressRule {
  /** Where it stands, as denials name it: "agents.yaml:31". */
  readonly at: string
  /** "api.example.com"; "*.example.com": every name below it, not itself. */
  readonly host: string | null
  readonly cidr: string | null
  readonly ports: readonly number[] | null
  readonly scheme: EgressScheme | null
  readonly methods: readonly string[] | null
  /** "/v1/models"; "/v1/*": all that start so. */
  readonly paths: readonly string[] | null
}

/** What a rule denies is denied whatever others allow; what no rule allows is denied. */
export interface EgressPolicy {
  readonly name: string
  readonly at: string
  readonly allow: readonly EgressRule[]
  readonly deny: readonly EgressRule[]
}

export interface Agent extends Workload {
  readonly work: WorkPolicy
  readonly role: 'orchestrator' | 'worker'
  readonly handler: Handler
  readonly concurrency: number
  readonly delegates_to: readonly string[]
  readonly uses: readonly string[]
  /** Names under `egress:`. Absent: no way out, and no network with the egress container. */
  readonly egress?: readonly string[]
  readonly isolation: { readonly reuse: 'role' }
  /** How long a replica may take to connect to the gateway after its start. Default 30 s. */
  readonly ready_timeout_ms: number
}

export interface Service extends Workload {
  readonly ports: readonly PortMapping[]
}

export type Secret =
  | { readonly name: string; readonly kind: 'file' /** absolute */; readonly path: string }
  | { readonly name: string; readonly kind: 'environment'; readonly variable: string }
  | {
      readonly name: string
      readonly kind: 'command'
      /** The program: an absolute path, or a name to be found on PATH. */
      readonly argv: readonly string[]
      readonly timeout_ms: number
      readonly max_size: number
      readonly pass_env: readonly string[]
      /** absolute */
      readonly working_dir: string
    }

/** A value of `with`: JSON in which whole-value references stand as `{ $ref: ["needs", "plan", "result", "files"] }`. */
export interface Reference {
  readonly $ref: readonly string[]
}
export type Template = Json | Reference | readonly Template[] | { readonly [key: string]: Template }

export type InputType = 'string' | 'number' | 'boolean' | 'object' | 'array'
export interface PipelineInput {
  readonly type: InputType
  readonly default?: Json
  readonly required: boolean
}
export interface PipelineJob {
  readonly id: string
  readonly agent: string
  readonly needs: readonly string[]
  readonly type: string
  readonly with: Template
  /** One task per element; `as` is the name by which `with` refers to the element: {$ref: [as, …]}. The job's result is the list of results, in order. */
  readonly foreach: { readonly in: Template; readonly as: string } | null
}
export interface Pipeline {
  readonly name: string
  readonly inputs: { readonly [name: string]: PipelineInput }
  readonly jobs: { readonly [id: string]: PipelineJob }
}

export interface Project {
  readonly name: string
  readonly agents: { readonly [name: string]: Agent }
  readonly services: { readonly [name: string]: Service }
  readonly secrets: { readonly [name: string]: Secret }
  readonly volumes: { readonly [name: string]: { readonly name: string } }
  readonly pipelines: { readonly [name: string]: Pipeline }
  readonly telemetry: { readonly endpoint: string } | null
  readonly broker: BrokerSettings
  readonly artifacts: ArtifactSettings
  /** Absent: none. */
  readonly egress?: { readonly [name: string]: EgressPolicy }
  /** Absent: one gateway. */
  readonly gateway?: { readonly replicas: number }
}

/** The policies of an agent, in the order in which it names them. Empty: it has no way out. */
export const egressPolicies = (project: Pick<Project, 'egress'>, agent: Pick<Agent, 'egress'>): readonly EgressPolicy[] =>
  (agent.egress ?? []).flatMap((name) => project.egress?.[name] ?? [])

export const MAX_GATEWAYS = 4
export const gatewaysOf = ({ gateway }: Pick<Project, 'gateway'>): number => gateway?.replicas ?? 1

/** Defaults of the file, in one place: the schema's descriptions, `normalize` and the docs name these. */
export const DEFAULTS = {
  agent: { user: '10001:10001', mem_limit: 536_870_912, cpus: 1, pids_limit: 256, concurrency: 1, replicas: 1, ready_timeout_ms: 30_000 },
  service: { mem_limit: 1_073_741_824, cpus: 1, pids_limit: 512, replicas: 1 },
  tmpfs: { tmp: 67_108_864, workspace: 268_435_456 },
  // What is larger is no secret, and the volume that holds all of them is 16 MiB.
  secret: { timeout_ms: 30_000, max_size: 512_000 },
} as const

export const DEFAULT_WORK: WorkPolicy = {
  total: null,
  key: null,
  per_key: null,
  rate: null,
  // 1 s, 2 s, … up to a minute: as long as a provider's 429 or a service's restart lasts. Half of it random.
  retry: { attempts: 3, delay_ms: 1_000, max_delay_ms: 60_000, backoff: 'exponential', jitter: 0.5, on: null },
  timeouts: { schedule_to_start_ms: null, start_to_close_ms: null, schedule_to_close_ms: null, heartbeat_ms: null },
  stall: { repeats: 10, steps: null, tokens: null },
  max_queue: 100_000,
}
export const DEFAULT_BROKER: BrokerSettings = { url: null, password: null, ca: null, durability: 'normal', concurrency: null }
export const DEFAULT_ARTIFACTS: ArtifactSettings = {
  max_size: 268_435_456,
  max_run: 1_073_741_824,
  max_total: 10_737_418_240,
  types: null,
  retention_ms: 604_800_000,
}
