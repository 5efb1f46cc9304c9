/** What the parts of the dispatcher share. */
import type { Agent, Timeouts } from '../../spec/model.ts'
import type { WorkStatus } from '../../spec/protocol.ts'
import type { Broker, Execution } from '../broker/port.ts'
import type { Audit } from './audit.ts'
import type { Book, Queue } from './book.ts'
import type { Deadlines } from './deadlines.ts'
import type { EventSink } from './events.ts'
import type { Replicas, Session } from './replicas.ts'
import type { Tracing } from './tracing.ts'
import type { Lease, Task } from './work.ts'

export type Log = (message: string, fields?: { readonly [name: string]: unknown }) => void

export interface DispatcherOptions {
  readonly broker: Broker
  readonly key: string
  readonly agent: (name: string) => Agent | null
  readonly tracing: Tracing
  readonly events: EventSink
  /** `broker.concurrency` of the project; null: no limit. */
  readonly concurrency: () => number | null
  /** Is the run still open? A task of a closed run is not started. */
  readonly open: (run: string) => boolean
  /** A task has ended, in the broker too. */
  readonly ended: (task: Task, status: WorkStatus) => void
  /** Is this replica still to be there? False: it was scaled away or stopped on purpose. */
  readonly wanted: (agent: string, replica: number) => Promise<boolean>
  /** Only replicas that the controller has proved get work. */
  readonly guarded?: boolean
  readonly log: Log
}

export interface Desk extends DispatcherOptions {
  readonly book: Book
  readonly replicas: Replicas
  readonly deadlines: Deadlines
  readonly audit: Audit
  /** Deadlines of the task's agent and run; null: it has none. */
  readonly limits: (task: Task) => Timeouts | null
  /** The state of the gateway before is taken over. */
  adopted: boolean
  closing: boolean
}

export interface Dealer {
  /** Give what waits to those who wait for it. */
  deal(queue: Queue): void
  /** Answer the session's waiting requests, so that they carry what is new. */
  wake(session: Session): void
  /**
   * A task went from active to delayed (`Broker.retryLater` with the same pause, after `Book.release`): it counts as waiting when its time has come.
   * `retryLater`'s `held` is `task.key !== undefined`.
   */
  later(task: Task, delay_ms: number): void
  /** A task that waited, in line or not, has ended there. */
  left(task: Task): void
  /** A task was locked for this session. null: it is not to be started. */
  register(session: Session, queue: Queue, execution: Execution): Lease | null
}
