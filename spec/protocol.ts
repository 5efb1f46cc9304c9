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
/** Of a lease request of a session that holds nothing: from MAX_WAIT_MS on the gateway chooses the time, by how many such sessions there are. */
export const MAX_IDLE_WAIT_MS = 300_000
/** Most tasks in one lease request. */
export const MAX_WANT = 1_000
/** `data` of a progress, as JSON bytes: what is for people to watch is small. */
export const MAX_PROGRESS_BYTES = 2_048
/** How deep delegation may nest (a task submitted by a run has depth 0). */
export const MAX_DEPTH = 8
/** Most unfinished children of one task. Over it: 429 `too_many_children`. */
export const MAX_CHILDREN = 1_000
/** Most delegated tasks of one run, at any depth, ended ones too: all stay with it. Over it: 429 `too_many_children`. */
export const MAX_RUN_CHILDREN = 100_000
/** Their inputs together, as JSON bytes. Over it: 429 `too_many_children`. */
export const MAX_RUN_CHILD_BYTES = 67_108_864
/** A task whose agent died this often while it held it is `dead`: it is likely the cause. */
export const MAX_DEATHS = 3

/** Request header of a session: a random id the supervisor makes at its start. Absent: sessionless (curl). */
export const SESSION_HEADER = 'agentctl-session'

/** Names in an agent's environment and file system. */
export const AGENT_ENV = {
  gateway: 'AGENTCTL_GATEWAY',
  /** Of a project with several: all of them, with commas between; the first is AGENTCTL_GATEWAY. */
  gateways: 'AGENTCTL_GATEWAYS',
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
  /** With `retryable`: not before so many ms from now (a provider's Retry-After). */
  readonly after_ms?: number
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
  /** Unix ms at which the gateway gives this execution up, or null. */
  readonly deadline: number | null
  readonly traceparent: string | null
  /** Steps that earlier executions recorded (`GET /v1/journal`); absent: none. */
  readonly journal?: number
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
  /** What the work has just done: the gateway tells motion from progress by it (docs/protocol.md "Stalled"). */
  readonly step?: StepBeat
}
export interface StepBeat {
  readonly name: string
  readonly tool?: string
  /** Of the tool's arguments; the gateway compares it and nothing else. */
  readonly args_hash?: string
  /** Used by this step. */
  readonly tokens?: number
  /** Anything that changes when the work gets further. */
  readonly milestone?: string
}

/** `POST /v1/logs {lease, lines}` → {ok}. At most 64 KiB per request; what an agent writes faster than LOG_BYTES_PER_S is cut, and said so. */
export interface LogLine {
  readonly stream: 'stdout' | 'stderr' | 'log'
  readonly text: string
}
export interface LogsRequest {
  readonly lease: string
  readonly lines: readonly LogLine[]
}

/** Many at once: `POST /v1/delegate {lease, tasks}` → {tasks: [id]}, all or none. */
export interface DelegateManyRequest {
  readonly lease: string
  readonly tasks: readonly Omit<DelegateRequest, 'lease'>[]
}
/** `POST /v1/await {lease, tasks, wait_ms}` → {done, tasks: [TaskView]}: held until all have ended or the time is over. */
export interface AwaitRequest {
  readonly lease: string
  readonly tasks: readonly string[]
  readonly wait_ms?: number
}
export interface AwaitReply {
  readonly done: boolean
  readonly tasks: readonly TaskView[]
}

/**
 * A question to a person. `POST /v1/approvals {lease, key, message, data?}` → ApprovalView; the same key is the same question, also for
 * a later execution. `GET /v1/approvals/ID?wait_ms=` → ApprovalView. While it is pending the task is parked.
 */
export interface ApprovalRequest {
  readonly lease: string
  readonly key: string
  readonly message: string
  readonly data?: Json
}
export interface ApprovalView {
  readonly id: string
  readonly task: string
  readonly agent: string
  readonly key: string
  readonly message: string
  readonly data: Json
  readonly status: 'pending' | 'approved' | 'rejected'
  /** ISO 8601. */
  readonly created_at: string
  readonly decided_at: string | null
  /** What the person said. */
  readonly comment: string | null
}

/**
 * `PUT /v1/artifacts/NAME?lease=` with the bytes as body → ArtifactView. What an execution stores becomes visible with its completion, and
 * not at all if it fails or is lost. `GET /v1/artifacts/sha256:HEX?lease=` → the bytes: of the task itself, its children's, or named in its input.
 */
export interface ArtifactView {
  readonly name: string
  /** sha256:HEX */
  readonly digest: string
  readonly size: number
  readonly type: string
  readonly task: string
}

/**
 * `POST /v1/journal {lease, entries}` → {ok}; the first record of a key stays. `GET /v1/journal?lease=` → {entries}.
 * At most JOURNAL_ENTRIES of a task, each at most MAX_PAYLOAD_BYTES, JOURNAL_BYTES together.
 */
export interface JournalEntry {
  /** NAME#N: the N-th step of that name, from 1. */
  readonly key: string
  readonly kind: 'step' | 'checkpoint'
  readonly value: Json
}
export const JOURNAL_ENTRIES = 1_000
export const JOURNAL_BYTES = 4_194_304
export const LOG_BYTES_PER_S = 65_536

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
  /** Absent: none. */
  readonly artifacts?: readonly ArtifactView[]
  readonly times?: WorkTimes
}

/** When and how large. ISO 8601; null: not yet. Sizes in bytes of JSON. */
export interface WorkTimes {
  readonly created_at: string | null
  /** Its last execution. */
  readonly started_at: string | null
  readonly ended_at: string | null
  readonly input_bytes: number
  readonly result_bytes: number | null
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
  /** Of a pipeline's job: how many tasks it has. */
  readonly tasks?: number
  /** Of a pipeline's job: how many tasks were delegated below its own. */
  readonly children?: number
  /** Of a pipeline's job: the first that was created and started, the last that ended, the sizes of all. */
  readonly times?: WorkTimes
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
  readonly created_at?: string
  readonly ended_at?: string | null
  /** Of a run that was to start later. */
  readonly start_at?: string | null
  /** The run that this one repeats. */
  readonly retry_of?: string
  /** Why there is no more of it than this: the broker lost it. */
  readonly error?: WorkError
  /** How many tasks were delegated. */
  readonly children?: number
}
export interface RunSummary {
  readonly run: string
  readonly pipeline: string | null
  readonly status: WorkStatus
  readonly created_at: string
  readonly ended_at: string | null
  /** Of its jobs. */
  readonly agents?: readonly string[]
}
/**
 * POST /v1/runs → {run}. Either a pipeline with inputs, or one agent with inputs of tasks (one task per element).
 * `id`: the caller's own run id (`run_<ulid>`), so that a repeated submit makes no second run.
 */
export type SubmitRequest = SubmitOptions &
  (
    | { readonly pipeline: string; readonly inputs: { readonly [name: string]: Json } }
    | { readonly agent: string; readonly type: string; readonly tasks: readonly Json[] }
  )
export interface SubmitOptions {
  readonly id?: string
  readonly traceparent?: string
  /** -9 to 9, default 0; higher runs first. Children have their parent's. */
  readonly priority?: number
  /** Start no earlier than so many ms from now. */
  readonly delay_ms?: number
  /** A submit with the key of a run that is open, or that was made within `dedup_ttl_ms` (default 0), makes none and gives that run. */
  readonly dedup_key?: string
  readonly dedup_ttl_ms?: number
  /** Over those of the agents. */
  readonly timeouts?: {
    readonly schedule_to_start_ms?: number
    readonly start_to_close_ms?: number
    readonly schedule_to_close_ms?: number
    readonly heartbeat_ms?: number
  }
  /** The run that this one repeats. */
  readonly retry_of?: string
}
export interface SubmitReply {
  readonly run: string
  /** The run was there already (`id` or `dedup_key`). */
  readonly existing?: boolean
}

/** One execution that did not end its task well: what became of it, and the tail of what it wrote. */
export interface AttemptView {
  readonly attempt: number
  /** AGENT.REPLICA */
  readonly replica: string
  readonly started_at: string
  readonly ended_at: string
  /** agent_died, agent_stalled, timeout, or the agent's own. */
  readonly error: WorkError
  readonly log: string
}
/** GET /v1/dlq → {tasks: [DeadLetterSummary]}, newest first; GET /v1/dlq/TASK → DeadLetter. What ended `failed` or `dead`, until it is dropped. */
export interface DeadLetterSummary {
  readonly id: string
  readonly run: string
  readonly agent: string
  readonly type: string
  readonly status: 'failed' | 'dead'
  readonly attempts: number
  readonly error: WorkError | null
  readonly ended_at: string
  readonly trace_id: string | null
  /** Its run has left the broker. */
  readonly archived?: true
}
export interface DeadLetter extends DeadLetterSummary {
  readonly input: Json
  readonly history: readonly AttemptView[]
  readonly events: readonly RunEvent[]
}
/** POST /v1/dlq/TASK/retry {input?} → {run}: a new run of this one task; the dead letter stays until it is dropped. POST /v1/dlq/TASK/drop → {}. */

/** GET /v1/tasks/TASK/explain; of a run GET /v1/runs/RUN/explain → RunExplanation. */
export interface Explanation {
  readonly id: string
  readonly agent: string
  readonly status: WorkStatus
  /** Most immediate first. Ended tasks: one, how they ended. */
  readonly reasons: readonly {
    readonly code:
      | 'ended'
      | 'running'
      | 'delayed'
      | 'retry_delay'
      | 'behind'
      | 'no_replica'
      | 'slots_busy'
      | 'agent_total'
      | 'project_concurrency'
      | 'per_key'
      | 'rate_limit'
      | 'child'
      | 'approval'
      | 'needs'
      | 'run_delayed'
      | 'broker_away'
    readonly message: string
    /** The child, key, limit or task that is meant. */
    readonly ref?: string
  }[]
}
export interface RunExplanation {
  readonly run: string
  readonly status: WorkStatus
  /** What has not ended: a task per job that waits for others, the tasks of those that run, and what they delegated. */
  readonly tasks: readonly Explanation[]
  /** `after` of the next page; null: there is none. */
  readonly next: string | null
}
/** GET /v1/replicas: what the gateway knows of the replicas; the source of `ready` and `tasks` in `ps`. */
export interface ReplicaView {
  readonly agent: string
  readonly replica: number
  /** A session is open, or (sessionless) it was heard within LEASE_MS. */
  readonly connected: boolean
  /** Tasks it holds now. */
  readonly tasks: number
  /** Why it is to be replaced: the controller restarts it, and its next session clears this. Absent: it is well. */
  readonly stalled?: string
  /** The controller has not (yet) found its container as it was declared: it gets no work. */
  readonly unproved?: true
}
/** POST /v1/replicas/proofs: what the controller found. */
export interface Proof {
  readonly agent: string
  readonly replica: number
  readonly proved: boolean
}
/** One line of GET /v1/runs/RUN/events (JSON Lines): progress and transitions, for `run` without --detach and `runs logs`. */
export interface RunEvent {
  /** Unlike that of any other event of the run: `Last-Event-ID` of who comes back. Absent: it is older than the ids. */
  readonly id?: string
  /** ISO 8601. */
  readonly at: string
  readonly task: string
  readonly agent: string
  readonly event: 'queued' | 'leased' | 'progress' | 'log' | 'requeued' | 'stalled' | 'refused' | 'approval' | WorkStatus
  /** Which execution, where it matters. */
  readonly attempt?: number
  readonly message?: string
  readonly percent?: number
  /** Of a progress, as the agent gave it. */
  readonly data?: Json
}
