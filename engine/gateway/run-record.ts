/**
 * What stands in a run's record: fields `def`, `status`, `created`, `ended`, `count`, `tasks` (until they are queued), one `job:ID` per
 * job, one `child:ID` per delegation, `lost` (why, of a run whose data the broker has lost).
 */
import type { Pipeline } from '../../spec/model.ts'
import type { Json, WorkError } from '../../spec/protocol.ts'
import type { TaskRef } from '../broker/port.ts'
import type { JobPhase } from '../pipeline.ts'
import type { RunTimeouts } from './work.ts'

/** The job of a run of plain tasks. */
export const PLAIN_JOB = 'task'
/** The error of a run whose data the broker has lost, or: */
export const LOST_FIELD = 'lost'
/** The broker came back with less, and the archive knows how the run had ended. */
export const CLOSED_FROM_ARCHIVE = 'archived'
const JOB = 'job:'
const CHILD = 'child:'
export const taskId = (run: string, job: string, item: number): string => `${run}.${job}.${item}`
export const jobField = (job: string): string => `${JOB}${job}`
/** Its value is the child's agent. */
export const childField = (task: string): string => `${CHILD}${task}`
export const runOf = (task: string): string => task.slice(0, task.indexOf('.') < 0 ? undefined : task.indexOf('.'))

/** Written once, at the submit. */
export interface Definition {
  /** null: plain tasks for one agent. */
  readonly name: string | null
  readonly pipeline: Pipeline
  readonly inputs: { readonly [name: string]: Json }
  readonly parent: string | null
  readonly traceparent: string
  /** Absent: 0. */
  readonly priority?: number
  readonly timeouts?: RunTimeouts
  /** Unix ms; absent: at once. */
  readonly start_at?: number
  /** Hash of the submitter's key. */
  readonly dedup?: { readonly key: string; readonly ttl_ms: number }
  readonly retry_of?: string
}
/** One field per job; absent: it waits. */
export interface JobRecord {
  readonly phase: JobPhase
  readonly items: number
  readonly error?: WorkError
}

/** Every task that the run made, children included. */
export function tasksOf(run: string, record: ReadonlyMap<string, string>): readonly TaskRef[] {
  const { pipeline } = JSON.parse(record.get('def') ?? '{"pipeline":{"jobs":{}}}') as Definition
  const tasks: TaskRef[] = []
  for (const [field, value] of record) {
    if (field.startsWith(CHILD)) tasks.push({ queue: value, id: field.slice(CHILD.length) })
    if (!field.startsWith(JOB)) continue
    const job = field.slice(JOB.length)
    const queue = pipeline.jobs[job]?.agent
    const { items } = JSON.parse(value) as JobRecord
    if (queue !== undefined) for (let item = 0; item < items; item++) tasks.push({ queue, id: taskId(run, job, item) })
  }
  return tasks
}

/** How many children were ever asked for. */
export function childCount(record: ReadonlyMap<string, string>): number {
  let count = 0
  for (const field of record.keys()) if (field.startsWith(CHILD)) count += 1
  return count
}

/** How many children each job's tasks have, at any depth. */
export function childrenOf(run: string, record: ReadonlyMap<string, string>): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const field of record.keys()) {
    if (!field.startsWith(CHILD)) continue
    const job = field.slice(CHILD.length + run.length + 1).split('.')[0] ?? ''
    counts.set(job, (counts.get(job) ?? 0) + 1)
  }
  return counts
}
