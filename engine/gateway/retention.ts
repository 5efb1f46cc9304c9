/** The broker must not grow without end (`noeviction`): the oldest ended runs go, with their tasks. Only what is in the archive comes here. */
import type { Broker } from '../broker/port.ts'
import { tasksOf } from './run-record.ts'

export interface RetentionLimits {
  readonly runs: number
  /** Runs of thousands of tasks count by these. */
  readonly tasks: number
  /** Of the broker's memory. */
  readonly share: number
  /** Of the broker's memory in use, by whatever: beyond it all ended runs may go. */
  readonly pressure: number
}
export const RETENTION_LIMITS: RetentionLimits = { runs: 1_000, tasks: 100_000, share: 0.25, pressure: 0.7 }
/** At once, while there is pressure: then the memory is looked at again. */
const BATCH = 20

export interface Retained {
  readonly run: string
  /** With children. */
  readonly tasks: number
  readonly bytes: number
}
export interface RetentionOptions {
  readonly broker: Broker
  readonly memory: () => { readonly used: number; readonly max: number }
  readonly log: (message: string) => void
  readonly limits?: RetentionLimits
}

export class Retention {
  readonly #options: RetentionOptions
  readonly #limits: RetentionLimits
  readonly #ended = new Map<string, Retained>()
  #tasks = 0
  #bytes = 0
  #pruning: Promise<void> | null = null

  constructor(options: RetentionOptions) {
    this.#options = options
    this.#limits = options.limits ?? RETENTION_LIMITS
  }

  /** Before all are told again. */
  clear(): void {
    this.#ended.clear()
    this.#tasks = 0
    this.#bytes = 0
  }

  ended(run: Retained): void {
    if (this.#ended.has(run.run)) return
    this.#ended.set(run.run, run)
    this.#tasks += run.tasks
    this.#bytes += run.bytes
    void this.prune(false)
  }

  get #isOver(): boolean {
    const { max } = this.#options.memory()
    const { runs, tasks, share } = this.#limits
    return this.#ended.size > runs || (this.#ended.size > 1 && (this.#tasks > tasks || (max > 0 && this.#bytes > share * max)))
  }

  /** `pressing`: the memory was just looked at, and if it is nearly full the oldest go although they are within the limits. */
  prune(pressing: boolean): Promise<void> {
    const { used, max } = this.#options.memory()
    this.#pruning ??= this.#prune(pressing && max > 0 && used > this.#limits.pressure * max ? BATCH : 0).finally(() => {
      this.#pruning = null
    })
    return this.#pruning
  }

  async #prune(extra: number): Promise<void> {
    try {
      for (let left = extra; this.#ended.size > 0 && (this.#isOver || left > 0); left--) {
        const oldest = this.#ended.values().next().value as Retained
        await this.forget(oldest.run)
        this.#ended.delete(oldest.run)
        this.#tasks -= oldest.tasks
        this.#bytes -= oldest.bytes
      }
    } catch (error) {
      this.#options.log(`forgetting old runs: ${String(error)}`)
    }
  }

  /** With its tasks, in the broker. */
  async forget(run: string): Promise<void> {
    const { broker } = this.#options
    const record = await broker.readRun(run)
    if (record !== null) await broker.forget(tasksOf(run, record))
    await broker.forgetRun(run)
  }
}
