/**
 * What a module agent programs against:
 *
 *     import type { Context } from '@agentctl/cli/agent'
 *     export default async (input: { text: string }, ctx: Context) => ({ words: input.text.split(' ').length })
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

export interface TaskInfo {
  readonly id: string
  readonly run: string
  readonly type: string
  /** 1 for the first execution. `id:attempt` is a safe idempotency key towards the outside. */
  readonly attempt: number
  /** Unix ms, or null: no deadline. */
  readonly deadline: number | null
}

export interface Progress {
  readonly message?: string
  readonly percent?: number
  readonly data?: Json
  /** What the work has just done. The gateway tells motion from progress by it (docs/protocol.md "Stalled"); without any it watches beats only. */
  readonly step?: {
    readonly name: string
    readonly tool?: string
    /** Of the tool's arguments; it is compared and nothing else. */
    readonly args_hash?: string
    /** Used by this step. */
    readonly tokens?: number
    /** Anything that changes when the work gets further. */
    readonly milestone?: string
  }
}

export interface StepOptions {
  /**
   * The step changes files in `ctx.workspace`: a checkpoint of the folder is stored with its result, and a later execution begins with the
   * latest one. Such steps run one after another. Where no checkpoint could be stored the step runs again, in a workspace without it.
   */
  readonly workspace?: boolean
}

export interface Artifact {
  readonly name: string
  /** sha256:HEX; pass it on in a result or an input: whoever gets it so may read the artifact. */
  readonly digest: string
  readonly size: number
  readonly type: string
  readonly task: string
}

export interface Artifacts {
  /** Text or bytes, a file, or a stream (any iterable of bytes), as an artifact of this task; others see it once the task has completed. Type: of its media, by default application/octet-stream. */
  put(
    name: string,
    source: string | Uint8Array | { readonly path: string } | AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options?: { readonly type?: string },
  ): Promise<Artifact>
  /** The bytes of an artifact of this task, of its children, or named in its input: at most 16 MiB; larger ones go to a file. */
  get(digest: string): Promise<Uint8Array>
  /** Into a file, streamed; the path. */
  get(digest: string, options: { readonly to: string }): Promise<string>
}

export interface DelegateOptions {
  /** Your name for this child: the same key gives the same child, also after a retry of this task. Default: the number of the call in this task. */
  readonly key?: string
  /** The child's `type`. Default: "task". */
  readonly type?: string
}

export interface Context {
  readonly task: TaskInfo
  /** Aborted when the task was cancelled, timed out or lost. */
  readonly signal: AbortSignal
  /** Shown by `agentctl run` and `agentctl runs logs`. Never blocks, never fails. */
  progress(progress: string | Progress): void
  /**
   * A task for another agent (`delegates_to`) and its result. While it waits, this task holds no slot.
   * Throws a DelegationError when the child did not complete.
   */
  delegate<T = Json>(agent: string, input: unknown, options?: DelegateOptions): Promise<T>
  /**
   * A durable step: `fn` runs, and what it returned (JSON, at most 64 KiB) is recorded. A later execution of this task (its agent died, it
   * failed and is tried again) gets the record and does not run `fn`. The N-th step of a name is the same step in each execution, so the
   * calls must come in the same order each time; records that a completed execution did not ask for fail the task (`nondeterministic`).
   * Steps may run in parallel, not inside of one another. An agent that dies after `fn` and before the record runs `fn` again.
   */
  step<T>(name: string, fn: () => T | Promise<T>, options?: StepOptions): Promise<T>
  /** A folder of this execution's own, empty or as the latest checkpoint has it; it goes when the execution ends. */
  readonly workspace: string
  /**
   * Asks a person (`agentctl approvals`), and waits; this task holds no slot meanwhile. The same key is the same question, also in a later
   * execution. Throws an AgentError `rejected`, with what the person said, when the answer is no.
   */
  approve(key: string, message: string, data?: unknown): Promise<{ readonly comment: string | null }>
  readonly artifact: Artifacts
  /** One child per input, in parallel; the results in order. All are waited for; then the first failure in order is thrown. */
  delegateAll<T = Json>(agent: string, inputs: readonly unknown[], options?: DelegateOptions): Promise<T[]>
  /** One line of JSON on stdout, with the ids of the task; also in `agentctl runs logs`. */
  log(message: string, fields?: { readonly [name: string]: unknown }): void
  /** A span of your own in the run's trace, around `work`. Spans nest. */
  span<T>(name: string, work: () => T | Promise<T>): Promise<T>
}

export type Handler<Input = never> = (input: Input, ctx: Context) => unknown

/** Throw it to name the failure; `retryable: true` lets the task run again. */
export class AgentError extends Error {
  readonly code: string
  readonly retryable: boolean
  /** With `retryable`: not before so many ms from now (a provider's Retry-After). */
  readonly after: number | undefined
  constructor(
    code: string,
    message: string,
    options: { readonly retryable?: boolean; readonly after?: number; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'AgentError'
    this.code = code
    this.retryable = options.retryable === true
    this.after = options.after
  }
}

/** A child did not complete: `code` is the child's (or `cancelled`, `dead`, or why it could not be made). */
export class DelegationError extends AgentError {
  /** The child's id; null when it was never made. */
  readonly task: string | null
  readonly agent: string
  constructor(code: string, message: string, options: { readonly task: string | null; readonly agent: string }) {
    super(code, message)
    this.name = 'DelegationError'
    this.task = options.task
    this.agent = options.agent
  }
}
