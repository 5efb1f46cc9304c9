/**
 * The task protocol between an agent and the gateway, version 1 (HTTP/JSON), and the shapes of work that the CLI prints.
 * Shared by the gateway, the runtime in `agents/` and the CLI; it imports nothing. `docs/protocol.md` is its prose.
 */

export const PROTOCOL_VERSION = 1

/** Port of the gateway on every role network. */
export const GATEWAY_PORT = 7070
/** Input and result of a task, each as JSON bytes (UTF-8). Over it: 413 `payload_too_large`. */
export const MAX_PAYLOAD_BYTES = 65_536
/** A request body: `want` results of the maximal size would be too much in one go; agents send several. */
export const MAX_BODY_BYTES = 4_194_304
/** A sessionless lease lives this long after its last beat. */
export const LEASE_MS = 30_000
/** A session that is silent for this long (frozen, cut off) is dead; the runtime beats at a fifth of it. */
export const SESSION_SILENCE_MS = 5_000
/** Longest `wait_ms` of a request; above it is clamped. */
export const MAX_WAIT_MS = 30_000
/** Most tasks in one lease request. */
export const MAX_WANT = 1_000
/** `data` of a progress, as JSON bytes: what is for people to watch is small. */
export const MAX_PROGRESS_BYTES = 2_048
/** How deep delegation may nest (a task submitted by a run has depth 0). */
export const MAX_DEPTH = 8
/** Most unfinished children of one task. Over it: 429 `too_many_children`. */
export const MAX_CHILDREN = 1_000
/** A task whose agent died this often while it held it is `dead`: it is likely the cause. */
export const MAX_DEATHS = 3

/** Request header of a session: a random id the supervisor makes at its start. Absent: sessionless (curl). */
export const SESSION_HEADER = 'agentctl-session'

/** Names in an agent's environment and file system. */
export const AGENT_ENV = {
  gateway: 'AGENTCTL_GATEWAY',
  agent: 'AGENTCTL_AGENT',
  replica: 'AGENTCTL_REPLICA',
  concurrency: 'AGENTCTL_CONCURRENCY',
  handler: 'AGENTCTL_HANDLER',
  tokenFile: '/run/secrets/agentctl-token',
} as const

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

export type WorkStatus = 'queued' | 'running' | 'completed' | 'failed' | 'cancelled' | 'dead'
export const TERMINAL: ReadonlySet<WorkStatus> = new Set(['completed', 'failed', 'cancelled', 'dead'])

/** Why a task failed, as an agent reports it and as everyone sees it. */
export interface WorkError {
  readonly code: string
  readonly message: string
  readonly retryable?: boolean
}

/** One leased task. `lease` is its secret: whoever shows it may settle this attempt and no other. */
export interface LeasedTask {
  readonly lease: string
  readonly id: string
  readonly run: string
  readonly agent: string
  readonly type: string
  readonly input: Json
  /** 1 for the first execution. `id:attempt` is a safe idempotency key towards the outside. */
  readonly attempt: number
  /** Unix ms, or null: no deadline. */
  readonly deadline: number | null
  readonly traceparent: string | null
}

export type Settlement =
  | { readonly lease: string; readonly status: 'completed'; readonly result: Json }
  | { readonly lease: string; readonly status: 'failed'; readonly error: WorkError }

export interface LeaseRequest {
  /** How many tasks at most; 0 settles and beats only. */
  readonly want: number
  /** How long the gateway may hold the request while there is nothing to hand out. Default 0. */
  readonly wait_ms?: number
  /** Leases that are still being worked on. */
  readonly beat?: readonly string[]
  readonly done?: readonly Settlement[]
}

export interface Settled {
  readonly lease: string
  readonly ok: boolean
  /** `lease_lost` (dead, foreign or unknown lease; 409 in the one-element forms), `payload_too_large`, `bad_request`. */
  readonly code?: string
}

export interface LeaseReply {
  readonly tasks: readonly LeasedTask[]
  readonly settled: readonly Settled[]
  /** Leases of yours to stop now: cancelled, past their deadline, or lost. */
  readonly cancel: readonly string[]
}

export interface ProgressRequest {
  readonly lease: string
  readonly message?: string
  readonly percent?: number
  readonly data?: Json
}

export interface DelegateRequest {
  readonly lease: string
  /** The parent's name for this child: the same key again returns the same child, also after a retry of the parent. */
  readonly key: string
  readonly agent: string
  readonly type?: string
  readonly input: Json
}
export interface DelegateReply {
  readonly task: string
}

/** A task as `GET /v1/tasks/ID`, `task` and `runs show` give it. */
export interface TaskView {
  readonly id: string
  readonly agent: string
  readonly type: string
  readonly status: WorkStatus
  readonly attempts: number
  readonly result: Json
  readonly error: WorkError | null
  readonly trace_id: string | null
}

export interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly hint?: string }
}

// ---- the control API (CLI ⇄ gateway, on a unix socket inside the gateway's container) ----

export interface JobView {
  readonly id: string
  readonly agent: string
  readonly status: WorkStatus
  readonly attempts: number
  readonly result: Json
  readonly error: WorkError | null
}
export interface RunView {
  readonly run: string
  /** null: a single task (`agentctl task`). */
  readonly pipeline: string | null
  readonly status: WorkStatus
  readonly inputs: { readonly [name: string]: Json }
  /** `{job: result}` of the jobs that nobody needs; null until the run has ended well. */
  readonly result: Json
  readonly jobs: readonly JobView[]
  readonly trace_id: string | null
}
export interface RunSummary {
  readonly run: string
  readonly pipeline: string | null
  readonly status: WorkStatus
  readonly created_at: string
  readonly ended_at: string | null
}
/**
 * POST /v1/runs → {run}. Either a pipeline with inputs, or one agent with inputs of tasks (one task per element).
 * `id`: the caller's own run id (`run_<ulid>`), so that a repeated submit makes no second run.
 */
export type SubmitRequest =
  | { readonly id?: string; readonly pipeline: string; readonly inputs: { readonly [name: string]: Json }; readonly traceparent?: string }
  | { readonly id?: string; readonly agent: string; readonly type: string; readonly tasks: readonly Json[]; readonly traceparent?: string }
export interface SubmitReply {
  readonly run: string
}
/** GET /v1/replicas: what the gateway knows of the replicas; the source of `ready` and `tasks` in `ps`. */
export interface ReplicaView {
  readonly agent: string
  readonly replica: number
  /** A session is open, or (sessionless) it was heard within LEASE_MS. */
  readonly connected: boolean
  /** Tasks it holds now. */
  readonly tasks: number
}
/** One line of GET /v1/runs/RUN/events (JSON Lines): progress and transitions, for `run` without --detach and `runs logs`. */
export interface RunEvent {
  /** ISO 8601. */
  readonly at: string
  readonly task: string
  readonly agent: string
  readonly event: 'queued' | 'leased' | 'progress' | 'requeued' | WorkStatus
  readonly message?: string
  readonly percent?: number
  /** Of a progress, as the agent gave it. */
  readonly data?: Json
}
