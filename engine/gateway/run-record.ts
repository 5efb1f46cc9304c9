/** What stands in a run's record: fields `def`, `status`, `created`, `ended`, `count`, `tasks` (until they are queued), one `job:ID` per job, one `child:ID` per delegation. */
import type { Pipeline } from '../../spec/model.ts'
import type { Json, WorkError } from '../../spec/protocol.ts'
import type { JobPhase } from '../pipeline.ts'

/** The job of a run of plain tasks. */
export const PLAIN_JOB = 'task'
export const taskId = (run: string, job: string, item: number): string => `${run}.${job}.${item}`
export const jobField = (job: string): string => `job:${job}`
/** Its value is the child's agent. */
export const childField = (task: string): string => `child:${task}`
export const runOf = (task: string): string => task.slice(0, task.indexOf('.') < 0 ? undefined : task.indexOf('.'))

/** Written once, at the submit. */
export interface Definition {
  /** null: plain tasks for one agent. */
  readonly name: string | null
  readonly pipeline: Pipeline
  readonly inputs: { readonly [name: string]: Json }
  readonly parent: string | null
  readonly traceparent: string
}
/** One field per job; absent: it waits. */
export interface JobRecord {
  readonly phase: JobPhase
  readonly items: number
  readonly error?: WorkError
}
