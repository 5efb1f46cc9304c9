/** The broker must not grow without end (`noeviction`): the oldest ended runs go, with their tasks. */
import type { Broker, TaskRef } from '../broker/port.ts'
import { childField, type Definition, type JobRecord, taskId } from './run-record.ts'

const KEPT_RUNS = 1_000
/** Runs of thousands of tasks count by these. */
const KEPT_TASKS = 100_000
const CHILD = childField('')

export interface Retained {
  readonly run: string
  readonly tasks: number
}

export class Retention {
  readonly #broker: Broker
  readonly #log: (message: string) => void
  readonly #ended: Retained[] = []
  #tasks = 0
  #pruning = false

  constructor(broker: Broker, log: (message: string) => void) {
    this.#broker = broker
    this.#log = log
  }

  async load(open: ReadonlySet<string>): Promise<void> {
    const runs = (await this.#broker.listRuns()).filter((run) => !open.has(run)).reverse()
    const counts = await this.#broker.readRunFields(runs, ['count'])
    this.#ended.length = 0
    this.#tasks = 0
    runs.forEach((run, index) => {
      const tasks = Number(counts[index]?.[0] ?? 0)
      this.#ended.push({ run, tasks })
      this.#tasks += tasks
    })
    void this.#prune()
  }

  ended(run: Retained): void {
    this.#ended.push(run)
    this.#tasks += run.tasks
    void this.#prune()
  }

  /** The latest run stays, however large. */
  async #prune(): Promise<void> {
    if (this.#pruning) return
    this.#pruning = true
    try {
      while (this.#ended.length > KEPT_RUNS || (this.#tasks > KEPT_TASKS && this.#ended.length > 1)) {
        const oldest = this.#ended.shift() as Retained
        this.#tasks -= oldest.tasks
        await this.#forget(oldest.run)
      }
    } catch (error) {
      this.#log(`forgetting old runs: ${String(error)}`)
    } finally {
      this.#pruning = false
    }
  }

  async #forget(run: string): Promise<void> {
    const record = await this.#broker.readRun(run)
    const text = record?.get('def')
    if (record !== null && text !== undefined) {
      const { pipeline } = JSON.parse(text) as Definition
      const tasks: TaskRef[] = []
      for (const [field, value] of record) {
        if (field.startsWith(CHILD)) tasks.push({ queue: value, id: field.slice(CHILD.length) })
        if (!field.startsWith('job:')) continue
        const job = field.slice('job:'.length)
        const queue = pipeline.jobs[job]?.agent
        const { items } = JSON.parse(value) as JobRecord
        if (queue !== undefined) for (let item = 0; item < items; item++) tasks.push({ queue, id: taskId(run, job, item) })
      }
      await this.#broker.forget(tasks)
    }
    await this.#broker.forgetRun(run)
  }
}
