/** What the tasks of one run have delegated so far, ended or not: it all stays with the run, in the broker and then in the archive. */
import { MAX_RUN_CHILD_BYTES, MAX_RUN_CHILDREN } from '../../spec/protocol.ts'
import { HttpError } from './http.ts'

/** In the run's memory. `tasks` is told again from the run's record after a restart; `bytes`, of their inputs, begins at 0 then. */
export interface RunChildren {
  tasks: number
  bytes: number
}

/** null: there is room for these. */
export function overRun(made: RunChildren, tasks: number, bytes: number): HttpError | null {
  if (made.tasks + tasks > MAX_RUN_CHILDREN)
    return new HttpError(
      429,
      'too_many_children',
      `the tasks of a run delegate at most ${MAX_RUN_CHILDREN} tasks in all, ended ones too; this run has ${made.tasks}`,
      'Submit more runs, or do more in each task.',
    )
  if (made.bytes + bytes > MAX_RUN_CHILD_BYTES)
    return new HttpError(
      429,
      'too_many_children',
      `the inputs of all tasks that a run delegates have at most ${MAX_RUN_CHILD_BYTES} bytes; this run's have ${made.bytes}, and this would add ${bytes}`,
      'Pass large data as artifacts, or submit more runs.',
    )
  return null
}
