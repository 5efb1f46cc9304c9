/** What the gateway holds in memory of unfinished work, and how a task is written into its job. Everything here can be read again from the broker. */
import type { SubmitOptions, WorkError, WorkStatus } from '../../spec/protocol.ts'
import type { Expiry } from './deadlines.ts'
import type { Replica, Session } from './replicas.ts'
import type { Motion } from './stall.ts'

export type RunTimeouts = NonNullable<SubmitOptions['timeouts']>

export interface Task {
  readonly id: string
  readonly agent: string
  readonly run: string
  /** The pipeline's job; null: a child of another task. */
  readonly job: string | null
  readonly parent: string | null
  readonly depth: number
  readonly type: string
  /** traceparent of the span that sent it. */
  readonly sent: string
  /** Unix ms from which its deadlines count: when it was made, or the end of its delay. 0: made by a gateway that did not write it. */
  readonly created: number
  /** -9 to 9, higher first; absent: 0. */
  readonly priority?: number
  /** Value of the agent's `concurrency.key`, as text; absent: none. */
  key?: string
  /** Of the run, over those of the agent. */
  readonly timeouts?: RunTimeouts
  /** Delayed until then: Unix ms. */
  due?: number | undefined
  /** It was executed before, and `due` is the pause until its next try. */
  retry?: boolean
  /** Not in line: the turn of its key has not come. */
  held?: boolean
  /** Of its last execution; absent: none. */
  epoch?: number
  /** Unfinished children and open questions: while there are any, the task is parked and holds no slot. */
  children: number
  lease: Lease | null
}

export const isParked = ({ children }: Task): boolean => children > 0
/** In its queue's line, as far as the gateway knows. */
export const isInLine = ({ lease, due, held }: Task): boolean => lease === null && due === undefined && held !== true

export interface Lease {
  readonly token: string
  readonly task: Task
  readonly epoch: number
  /** AGENT.REPLICA.SESSION: the broker's lock token. */
  readonly holder: string
  readonly session: Session
  readonly replica: Replica
  readonly since: number
  /** JSON text of the task's input, for another delivery. */
  readonly input: string
  /** When the answer that carried it went out; 0: not yet. */
  delivered: number
  /** That answer may have been lost with its connection or its gateway. */
  doubtful: boolean
  /** Beats of its session since then that did not name it. */
  missed: number
  /** Last sign of life of a sessionless holder. */
  heard: number
  /** Last sign of the work itself: progress, step, log, child. */
  sign: number
  /** The end of what it wrote (attempts.ts). */
  tail: string
  /** What its steps say of it (stall.ts); null: nothing yet. */
  motion: Motion | null
  settling: Promise<boolean> | null
  /** The agent is to stop. `why` null: the run is over; else this execution is, and ends with that. */
  cancel: { readonly at: number; told: boolean; readonly why: Expiry | null } | null
}

/** What stands in a job as its failure. */
export interface Failure {
  readonly status: Exclude<WorkStatus, 'queued' | 'running' | 'completed'>
  readonly error: WorkError | null
}

export const parseFailure = (text: string): Failure => {
  try {
    const { status, error } = JSON.parse(text) as Failure
    if (status === 'failed' || status === 'cancelled' || status === 'dead') return { status, error }
  } catch {
    // Not ours: BullMQ's own words.
  }
  return { status: 'failed', error: { code: 'broker', message: text } }
}

export const CANCELLED: Failure = { status: 'cancelled', error: null }

export type Head = Pick<Task, 'run' | 'job' | 'parent' | 'depth' | 'type' | 'sent' | 'created' | 'priority' | 'key' | 'timeouts'>

/** `input` is JSON text and comes last, so that it is passed on without being parsed. */
export const encodeTask = ({ run, job, parent, depth, type, sent, created, priority, key, timeouts }: Head, input: string): string =>
  `${JSON.stringify({ run, job, parent, depth, type, sent, created, priority, key, timeouts }).slice(0, -1)},"input":${input}}`

/** A quote inside a JSON string is escaped, so the first match is the key. */
const inputAt = (data: string): number => data.indexOf(',"input":')
export const inputOf = (data: string): string => data.slice(inputAt(data) + ',"input":'.length, -1)

/** null: not a task of ours. */
export function decodeTask(id: string, agent: string, data: string): Task | null {
  try {
    const head = JSON.parse(`${data.slice(0, inputAt(data))}}`) as Head
    if (typeof head.run !== 'string') return null
    return { id, agent, ...head, created: head.created ?? 0, children: 0, lease: null }
  } catch {
    return null
  }
}
