/** Steps that executions of a task recorded, for its later ones. They are deleted with the task's end; a task without any costs nothing. */
import { JOURNAL_BYTES, JOURNAL_ENTRIES, type JournalEntry } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import { HttpError } from './http.ts'
import type { Lease, Task } from './work.ts'

export interface JournalSize {
  readonly entries: number
  readonly bytes: number
}
const EMPTY: JournalSize = { entries: 0, bytes: 0 }
const LIMITS = { entries: JOURNAL_ENTRIES, bytes: JOURNAL_BYTES }

export class Journals {
  readonly #broker: Broker
  readonly #log: (message: string) => void
  /** Tasks that have one. */
  readonly #known = new Set<string>()

  constructor(broker: Broker, log: (message: string) => void) {
    this.#broker = broker
    this.#log = log
  }

  /** At the start. Those of tasks that have ended are deleted. */
  async recover(isTask: (id: string) => boolean): Promise<void> {
    this.#known.clear()
    const orphans: string[] = []
    for (const id of await this.#broker.journals()) {
      if (isTask(id)) this.#known.add(id)
      else orphans.push(id)
    }
    await this.#broker.dropJournals(orphans)
  }

  /** false: the execution has lost its task. */
  async write(lease: Lease, entries: readonly JournalEntry[], isTask: (id: string) => boolean): Promise<boolean> {
    const { task, epoch, holder } = lease
    const fence = { queue: task.agent, id: task.id, epoch, token: holder }
    const fields = entries.map(({ key, kind, value }) => [key, JSON.stringify({ kind, value })] as const)
    this.#known.add(task.id)
    const outcome = await this.#broker.writeJournal(fence, fields, LIMITS)
    // It ended while this was on its way.
    if (!isTask(task.id)) this.#drop(task.id)
    if (outcome === 'full')
      throw new HttpError(
        413,
        'payload_too_large',
        `a task records at most ${JOURNAL_ENTRIES} steps of ${JOURNAL_BYTES} bytes together`,
        'Record fewer and larger steps, or store data as artifacts.',
      )
    return outcome === 'ok'
  }

  async size(task: Task): Promise<JournalSize> {
    if (!this.#known.has(task.id)) return EMPTY
    return (await this.#broker.journalSizes([task.id]))[0] ?? EMPTY
  }

  async read(task: string): Promise<readonly JournalEntry[]> {
    return (await this.#broker.readJournal(task)).map(([key, text]) => ({ key, ...(JSON.parse(text) as Omit<JournalEntry, 'key'>) }))
  }

  /** Those of these executions that are not their task's first and whose task has a journal. */
  having(leases: readonly Lease[]): readonly Lease[] {
    if (this.#known.size === 0) return NONE
    return leases.filter((lease) => lease.epoch > 1 && this.#known.has(lease.task.id))
  }

  /** In one command for all. */
  async sizes(leases: readonly Lease[]): Promise<ReadonlyMap<Lease, JournalSize>> {
    const sizes = await this.#broker.journalSizes(leases.map((lease) => lease.task.id))
    return new Map(leases.map((lease, index) => [lease, sizes[index] ?? EMPTY]))
  }

  taskEnded(task: Task): void {
    if (this.#known.has(task.id)) this.#drop(task.id)
  }

  #drop(id: string): void {
    this.#known.delete(id)
    this.#broker.dropJournals([id]).catch((error: unknown) => this.#log(`journal of ${id}: ${String(error)}`))
  }
}

const NONE: readonly Lease[] = []
