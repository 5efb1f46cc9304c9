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
  /** One child per input, in parallel; the results in order. All are waited for; then the first failure in order is thrown. */
  delegateAll<T = Json>(agent: string, inputs: readonly unknown[], options?: DelegateOptions): Promise<T[]>
  /** One line of JSON on stdout, with the ids of the task. */
  log(message: string, fields?: { readonly [name: string]: unknown }): void
  /** A span of your own in the run's trace, around `work`. Spans nest. */
  span<T>(name: string, work: () => T | Promise<T>): Promise<T>
}

export type Handler<Input = never> = (input: Input, ctx: Context) => unknown

/** Throw it to name the failure; `retryable: true` lets the task run again. */
export class AgentError extends Error {
  readonly code: string
  readonly retryable: boolean
  constructor(code: string, message: string, options: { readonly retryable?: boolean; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'AgentError'
    this.code = code
    this.retryable = options.retryable === true
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
