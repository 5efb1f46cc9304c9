/**
 * What the gateway needs from a broker. One queue per agent; a task's truth is its job here. Calls wait while the broker is away
 * (`connected` says so) and go on when it is back; a call that was under way when the connection broke is sent again, so every
 * call is safe to repeat: what it has done already is found and told as done.
 */
export interface NewTask {
  readonly queue: string
  readonly id: string
  readonly data: string
}
export interface TaskRef {
  readonly queue: string
  readonly id: string
}

/** One execution of a task. `epoch` counts executions from 1 and fences out the earlier ones. */
export interface Execution {
  readonly id: string
  readonly epoch: number
  readonly data: string
}
export interface ActiveTask extends Execution {
  /** The lock's token; null: it expired. */ readonly holder: string | null
}

export interface TaskState {
  readonly epoch: number
  readonly data: string
  /** JSON of the result, or of the failure (`Failure`); both null while unfinished. */
  readonly result: string | null
  readonly failure: string | null
  readonly finished: boolean
  /** Epoch of the last execution that failed and was put back to be tried again; 0: none. */
  readonly retried: number
}

/** `lost`: the job is not active under this token any more. */
export type Ended = { readonly ok: true; readonly next: Execution | null } | { readonly ok: false }

export type HashField = readonly [field: string, value: string]

export interface Broker {
  readonly connected: boolean
  /** First readiness and each reconnect; called once at once if connected. Returns the unsubscriber. */
  onConnected(listener: () => void): () => void

  add(tasks: readonly NewTask[]): Promise<void>
  /** The next waiting task, locked with `token`. */
  fetch(queue: string, token: string): Promise<Execution | null>
  /** End an execution, and with `next` take the queue's next task under the same token in the same script. */
  complete(queue: string, id: string, token: string, result: string, next: boolean): Promise<Ended>
  fail(queue: string, id: string, token: string, failure: string, next: boolean): Promise<Ended>
  /** Back to the head of its queue. `token` null: if nobody holds it. False: another holds it, or nobody. */
  requeue(queue: string, id: string, token: string | null): Promise<boolean>
  /** Marks, before `requeue`, that this execution failed and is to be tried again. The number of such marks. */
  countFailure(task: TaskRef, epoch: number): Promise<number>
  /** One more agent died with this task. The number of deaths. */
  countDeath(task: TaskRef): Promise<number>
  /** One script for all; the ids whose lock is gone or another's. */
  extend(queue: string, locks: readonly { readonly id: string; readonly token: string }[]): Promise<readonly string[]>
  /** Take back a lock that expired while the broker was away; false: another's. */
  relock(queue: string, id: string, token: string): Promise<boolean>

  /** In one pipeline; null: no such job. */
  read(tasks: readonly TaskRef[]): Promise<readonly (TaskState | null)[]>
  active(queue: string): Promise<readonly ActiveTask[]>
  waiting(queue: string): Promise<readonly { readonly id: string; readonly data: string }[]>
  lengths(queues: readonly string[]): Promise<readonly { readonly waiting: number; readonly active: number }[]>
  /** Remove tasks that wait (a leased one stays). */
  remove(tasks: readonly TaskRef[]): Promise<void>
  /** Forget ended tasks altogether. */
  forget(tasks: readonly TaskRef[]): Promise<void>
  /** Every queue that ever had a task. */
  queues(): Promise<readonly string[]>

  /** Make the run's record; false: there is one already. */
  createRun(run: string, created_ms: number, fields: readonly HashField[]): Promise<boolean>
  writeRun(run: string, fields: readonly HashField[]): Promise<void>
  /** Write, and take the run off the list of open ones. */
  closeRun(run: string, fields: readonly HashField[]): Promise<void>
  /** Set a field unless it is set; the value it then has. */
  claimRunField(run: string, field: string, value: string): Promise<string>
  dropRunFields(run: string, fields: readonly string[]): Promise<void>
  readRun(run: string): Promise<ReadonlyMap<string, string> | null>
  readRunFields(runs: readonly string[], fields: readonly string[]): Promise<readonly (readonly (string | null)[])[]>
  openRuns(): Promise<readonly string[]>
  /** Newest first. */
  listRuns(): Promise<readonly string[]>
  forgetRun(run: string): Promise<void>

  appendEvents(run: string, lines: readonly string[], keep: number): Promise<void>
  readEvents(run: string): Promise<readonly string[]>

  close(): Promise<void>
}
