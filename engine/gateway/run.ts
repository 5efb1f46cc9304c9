/** A run in memory: its record's content, and how far its jobs are. */
import type { WorkError, WorkStatus } from '../../spec/protocol.ts'
import type { TaskState } from '../broker/port.ts'
import type { JobPhase } from '../pipeline.ts'
import type { RunChildren } from './run-children.ts'
import type { Definition, JobRecord } from './run-record.ts'
import type { RunSpan } from './tracing.ts'
import { parseFailure } from './work.ts'

export interface Job {
  phase: JobPhase
  items: number
  ended: number
  /** The distinct statuses of the tasks that have ended. */
  readonly statuses: Set<WorkStatus>
  error: WorkError | undefined
}

export interface Run extends RunSpan {
  readonly definition: Definition
  readonly jobs: Map<string, Job>
  /** Ids of its unfinished tasks, delegated ones too. */
  readonly tasks: Set<string>
  readonly watchers: Set<() => void>
  readonly children: RunChildren
  status: WorkStatus
  ending: boolean
  /** All was read anew after a loss of the broker's data, and another object stands for the run: this one writes nothing more. */
  stale: boolean
  advancing: Promise<void>
}

export function makeRun(id: string, definition: Definition, created: number): Run {
  const { pipeline, name, parent, traceparent } = definition
  const job = (): Job => ({ phase: 'waiting', items: 0, ended: 0, statuses: new Set(), error: undefined })
  return {
    id,
    definition,
    created,
    jobs: new Map(Object.keys(pipeline.jobs).map((it) => [it, job()])),
    workflow: pipeline.name,
    pipeline: name,
    parent,
    traceparent,
    tasks: new Set(),
    watchers: new Set(),
    children: { tasks: 0, bytes: 0 },
    status: 'running',
    ending: false,
    stale: false,
    advancing: Promise.resolve(),
  }
}

export const phasesOf = (run: Run): ReadonlyMap<string, JobPhase> => new Map([...run.jobs].map(([id, { phase }]) => [id, phase]))
export const jobRecord = ({ phase, items, error }: Job): JobRecord => ({ phase, items, ...(error === undefined ? {} : { error }) })
export const statusOf = (state: TaskState): WorkStatus => (state.failure === null ? 'completed' : parseFailure(state.failure).status)
