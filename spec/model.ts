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
  /** File name below /run/secrets. */
  readonly target: string
}

export interface PortMapping {
  /** Default 127.0.0.1. */
  readonly host_ip: string
  /** 0: any free port. */
  readonly host_port: number
  readonly container_port: number
  readonly protocol: 'tcp' | 'udp'
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
}

export type Handler =
  | { readonly kind: 'exec' }
  | { readonly kind: 'module' /** absolute path on the host */; readonly path: string }
  | { readonly kind: 'image' }

export interface Agent extends Workload {
  readonly role: 'orchestrator' | 'worker'
  readonly handler: Handler
  readonly concurrency: number
  readonly delegates_to: readonly string[]
  readonly uses: readonly string[]
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
}

/** Defaults of the file, in one place: the schema's descriptions, `normalize` and the docs name these. */
export const DEFAULTS = {
  agent: { user: '10001:10001', mem_limit: 536_870_912, cpus: 1, pids_limit: 256, concurrency: 1, replicas: 1, ready_timeout_ms: 30_000 },
  service: { mem_limit: 1_073_741_824, cpus: 1, pids_limit: 512, replicas: 1 },
  tmpfs: { tmp: 67_108_864, workspace: 268_435_456 },
} as const
