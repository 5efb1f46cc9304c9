/**
 * What the gateway needs from a broker. One queue per agent; a task's truth is its job here. Calls wait while the broker is away
 * (`connected` says so) and go on when it is back; a call that was under way when the connection broke is sent again, so every
 * call is safe to repeat: what it has done already is found and told as done.
 */
/** Tasks that one call of `add` sends at once; more follow while the broker works on those before. */
export const ADD_CHUNK = 500

export interface NewTask {
  readonly queue: string
  readonly id: string
  readonly data: string
  /** -9 to 9, higher first; set (0 too) for every task of a queue that is in ordered mode (`order`), and for none of one that is not. */
  readonly priority?: number
  /** Not fetched earlier. With `held` it is the gateway that keeps the time. */
  readonly delay_ms?: number
  /** Not fetched until it is promoted. */
  readonly held?: boolean
}

/** It joins the end of the line at once. */
export const isPlain = ({ priority, delay_ms = 0, held = false }: NewTask): boolean => priority === undefined && delay_ms <= 0 && !held

export interface TaskRef {
  readonly queue: string
  readonly id: string
}

/** One execution of a task. `epoch` counts executions from 1 and fences out the earlier ones. */
export interface Execution {
  readonly id: string
  readonly epoch: number
  readonly data: string
  /** Unix ms at which it was fetched; absent: now. */
  readonly since?: number
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
  /** Unix ms: when it was added, last fetched, and ended; null: not yet. */
  readonly added_ms: number | null
  readonly fetched_ms: number | null
  readonly ended_ms: number | null
}

/** A task that is not to be fetched yet. `due`: Unix ms; of a held one null, or the time before which it need not be promoted. */
export interface DelayedTask {
  readonly id: string
  readonly data: string
  readonly due: number | null
  readonly held: boolean
  /** It has been executed before: this is the wait for its next try. */
  readonly retry: boolean
}

export interface QueueLengths {
  /** In line now: those in order of arrival, those in order of priority, and delayed ones that are due. */
  readonly waiting: number
  readonly active: number
  /** With a time that is still to come; without the held ones. */
  readonly delayed: number
}

/** A task that ended `failed` or `dead`. */
export interface FailedTask extends TaskRef {
  readonly ended_ms: number
  readonly epoch: number
  readonly data: string
  /** JSON of `Failure`. */
  readonly failure: string
}
/** The last task of a page: the next page begins after it. */
export interface FailedCursor {
  readonly ended_ms: number
  readonly id: string
}

/** `lost`: the job is not active under this token any more. */
export type Ended = { readonly ok: true; readonly next: Execution | null } | { readonly ok: false }

export type HashField = readonly [field: string, value: string]

/** An execution as the broker knows it. */
export interface Fence extends TaskRef {
  readonly epoch: number
  /** The lock's. */
  readonly token: string
}

/** What belongs to a task beside its job. Writes that take a Fence write nothing once the execution has lost its task. */
export interface TaskStore {
  /** The first record of a key stays. full: nothing was written. */
  writeJournal(
    fence: Fence,
    entries: readonly HashField[],
    limits: { readonly entries: number; readonly bytes: number },
  ): Promise<'ok' | 'lost' | 'full'>
  /** In the order in which they were recorded. */
  readJournal(task: string): Promise<readonly HashField[]>
  journalSizes(tasks: readonly string[]): Promise<readonly { readonly entries: number; readonly bytes: number }[]>
  /** Tasks that have one. */
  journals(): Promise<readonly string[]>
  dropJournals(tasks: readonly string[]): Promise<void>
  /** A field of the run's record; false: the execution has lost its task. */
  nameArtifact(fence: Fence, run: string, field: string, value: string): Promise<boolean>
  /** Runs with such fields that have not been dropped. */
  artifactRuns(): Promise<readonly string[]>
  dropArtifactRun(run: string): Promise<void>
  readApprovals(): Promise<ReadonlyMap<string, string>>
  writeApproval(id: string, text: string): Promise<void>
  dropApprovals(ids: readonly string[]): Promise<void>
}

/** AG5002: it does not answer (yet). AG5003: it does, and its settings are refused. */
export interface BrokerProblem {
  readonly code: 'AG5002' | 'AG5003'
  readonly message: string
}

export interface Broker extends TaskStore {
  readonly connected: boolean
  /** Why it is not. */
  readonly problem: BrokerProblem | null
  /** First readiness and each reconnect; called once at once if connected. Returns the unsubscriber. */
  onConnected(listener: () => void): () => void

  /** `landed`: so many more of them, in order, are in their queues. Up to ADD_CHUNK plain ones are sent before this returns. */
  add(tasks: readonly NewTask[], landed?: (count: number) => void): Promise<void>
  /** The next waiting task, locked with `token`. */
  fetch(queue: string, token: string): Promise<Execution | null>
  /** End an execution, and with `next` take the queue's next task under the same token in the same script. */
  complete(queue: string, id: string, token: string, result: string, next: boolean): Promise<Ended>
  fail(queue: string, id: string, token: string, failure: string, next: boolean): Promise<Ended>
  /** Takes this task, which waits (in line or not), to end it with `token`. False: it does not wait (any more). */
  seize(queue: string, id: string, token: string): Promise<boolean>
  /** Back to the head of its queue. `token` null: if nobody holds it. False: another holds it, or nobody. */
  requeue(queue: string, id: string, token: string | null): Promise<boolean>
  /**
   * Marks, before `requeue` or `retryLater`, that this execution failed and is to be tried again, and keeps its record (AttemptView as JSON)
   * in the same script. The number of such marks: one for each execution, however often it is told.
   */
  countFailure(task: TaskRef, epoch: number, attempt?: string): Promise<number>
  /** One more agent died with this task; its record as above. The number of deaths. */
  countDeath(task: TaskRef, epoch: number, attempt?: string): Promise<number>
  /** Keeps the record of an execution that counts as neither. */
  recordAttempt(task: TaskRef, epoch: number, attempt: string): Promise<void>
  /** The records of earlier executions, oldest first. */
  readAttempts(task: TaskRef): Promise<readonly string[]>
  /**
   * From active to delayed, for a retry after a pause; call `Dealer.later` with the same pause after it. `held`: it has a key, so its turn is
   * given by the gateway. False: another holds it, or nobody.
   */
  retryLater(queue: string, id: string, token: string, delay_ms: number, held: boolean): Promise<boolean>
  /** One script for all; the ids whose lock is gone or another's. */
  extend(queue: string, locks: readonly { readonly id: string; readonly token: string }[]): Promise<readonly string[]>
  /** Take back a lock that expired while the broker was away; false: another's. */
  relock(queue: string, id: string, token: string): Promise<boolean>

  /** In one pipeline; null: no such job. */
  read(tasks: readonly TaskRef[]): Promise<readonly (TaskState | null)[]>
  active(queue: string): Promise<readonly ActiveTask[]>
  /** In line now, whether by arrival or by priority; without delayed and held ones. */
  waiting(queue: string): Promise<readonly { readonly id: string; readonly data: string; readonly epoch: number }[]>
  /** Earliest first, held ones at the end in the order in which they were added. */
  delayed(queue: string): Promise<readonly DelayedTask[]>
  lengths(queues: readonly string[]): Promise<readonly QueueLengths[]>
  /** How many tasks are before it in line; null: it is not in line. */
  position(task: TaskRef): Promise<number | null>
  /** Put held tasks in line, in this order. One that is not held stays where it is. */
  promote(tasks: readonly TaskRef[]): Promise<void>
  /** Put the queue in the order of priorities: those in line keep their order, with priority 0; `others` (not in line) get it for when they return. */
  order(queue: string, others: readonly string[]): Promise<void>
  /** At most `max` tasks start per `per_ms`; null: no limit. */
  setRate(queue: string, rate: { readonly max: number; readonly per_ms: number } | null): Promise<void>
  /** Unix ms until which the last fetch (also one with `complete` or `fail`) was told to wait by the rate limit; 0: it was not. */
  limitedUntil(queue: string): number
  /** What ended `failed` or `dead` (not the cancelled), in all queues, newest first. */
  deadLetters(limit: number, after?: FailedCursor): Promise<readonly FailedTask[]>
  /** null: it is none (any more). */
  deadLetter(task: TaskRef): Promise<FailedTask | null>
  /** Its job stays, as its run's record. False: it was none. */
  dropDeadLetter(task: TaskRef): Promise<boolean>
  /** Remove tasks that wait, in line or not (a leased one stays). */
  remove(tasks: readonly TaskRef[]): Promise<void>
  /** Forget ended tasks altogether. */
  forget(tasks: readonly TaskRef[]): Promise<void>
  /** Every queue that ever had a task. */
  queues(): Promise<readonly string[]>

  /**
   * Make the run's record, and with `dedup` let that key name it; the count of writes (`identity`), or null: there is one already.
   * `isNew`: there cannot be one. Then it is sent before this returns, and what is sent after it comes after it.
   */
  createRun(run: string, created_ms: number, fields: readonly HashField[], dedup?: string, isNew?: boolean): Promise<number | null>
  writeRun(run: string, fields: readonly HashField[]): Promise<void>
  /** Write, and take the run off the list of open ones; its key lives for `ttl_ms` more. The count of writes. */
  closeRun(run: string, fields: readonly HashField[], dedup?: { readonly key: string; readonly ttl_ms: number }): Promise<number>
  /** Set a field unless it is set; the value it then has, and whether this call set it. */
  claimRunField(run: string, field: string, value: string): Promise<{ readonly value: string; readonly made: boolean }>
  dropRunFields(run: string, fields: readonly string[]): Promise<void>
  readRun(run: string): Promise<ReadonlyMap<string, string> | null>
  readRunFields(runs: readonly string[], fields: readonly string[]): Promise<readonly (readonly (string | null)[])[]>
  openRuns(): Promise<readonly string[]>
  /** Newest first. */
  listRuns(): Promise<readonly string[]>
  forgetRun(run: string): Promise<void>

  /** The run that a key names. `expires`: that run has ended. */
  dedupRun(key: string): Promise<{ readonly run: string; readonly expires: boolean } | null>

  /** Which data this is, and how often it was written to by a submit, an end of a run or `countWrite`: who remembers more knows of a loss. */
  identity(): Promise<{ readonly instance: string | null; readonly writes: number }>
  setIdentity(instance: string, writes: number): Promise<void>
  countWrite(): Promise<number>
  /** Bytes. `max` 0: no limit. */
  memory(): Promise<{ readonly used: number; readonly max: number }>

  appendEvents(run: string, lines: readonly string[], keep: number): Promise<void>
  readEvents(run: string): Promise<readonly string[]>

  close(): Promise<void>
}
