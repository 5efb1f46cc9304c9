/** What the parts of the dispatcher share. */
import type { Agent } from '../../spec/model.ts'
import type { WorkStatus } from '../../spec/protocol.ts'
import type { Broker, Execution } from '../broker/port.ts'
import type { Book, Queue } from './book.ts'
import type { EventSink } from './events.ts'
import type { Replicas, Session } from './replicas.ts'
import type { Tracing } from './tracing.ts'
import type { Lease, Task } from './work.ts'

export interface DispatcherOptions {
  readonly broker: Broker
  readonly key: string
  readonly agent: (name: string) => Agent | null
  readonly tracing: Tracing
  readonly events: EventSink
  /** Is the run still open? A task of a closed run is not started. */
  readonly open: (run: string) => boolean
  /** A task has ended, in the broker too. */
  readonly ended: (task: Task, status: WorkStatus) => void
  readonly log: (message: string) => void
}

export interface Desk extends DispatcherOptions {
  readonly book: Book
  readonly replicas: Replicas
  /** The state of the gateway before is taken over. */
  adopted: boolean
  closing: boolean
}

export interface Dealer {
  /** Give what waits to those who wait for it. */
  deal(queue: Queue): void
  /** Answer the session's waiting requests, so that they carry what is new. */
  wake(session: Session): void
  /** A task was locked for this session. null: it is not to be started. */
  register(session: Session, queue: Queue, execution: Execution): Lease | null
}
