/** Dead letters that were dropped and are in the archive all the same: one line each, beside it, so that they stay dropped. */
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { runOf } from './run-record.ts'

const FILE = 'dropped.jsonl'
/** Written anew beyond so many lines more than are of use. */
const SLACK = 1_000

export class Dropped {
  readonly #path: string
  readonly #byRun = new Map<string, Set<string>>()
  readonly #all = new Set<string>()
  #lines = 0
  #writing: Promise<void> = Promise.resolve()

  private constructor(path: string) {
    this.#path = path
  }

  /** `isKnown`: the run is in the archive. One that is not has its letters looked at when it comes there. */
  static async open(stateDir: string, isKnown: (run: string) => boolean): Promise<Dropped> {
    const dropped = new Dropped(join(stateDir, FILE))
    const text = await readFile(dropped.#path, 'utf8').catch(() => '')
    for (const task of text.split('\n')) {
      if (task !== '') dropped.#lines += 1
      if (isKnown(runOf(task))) dropped.#keep(task)
    }
    return dropped
  }

  has(task: string): boolean {
    return this.#byRun.get(runOf(task))?.has(task) === true
  }
  /** None of the run's is left: found out by reading them, and so for good. */
  all(run: string): void {
    this.#all.add(run)
  }
  areAll(run: string): boolean {
    return this.#all.has(run)
  }

  /** It stays so over a restart, or the disk's error is thrown. */
  add(task: string): Promise<void> {
    const added = this.#writing.then(async () => {
      if (this.has(task)) return
      const file = await open(this.#path, 'a', 0o600)
      await file.appendFile(`${task}\n`).finally(() => file.close())
      this.#lines += 1
      this.#keep(task)
      if (this.#lines > 2 * this.#size + SLACK) await this.#rewrite()
    })
    this.#writing = added.catch(() => {})
    return added
  }

  /** The archive has forgotten the run. */
  forget(run: string): void {
    this.#byRun.delete(run)
    this.#all.delete(run)
  }

  get #size(): number {
    return [...this.#byRun.values()].reduce((sum, tasks) => sum + tasks.size, 0)
  }

  #keep(task: string): void {
    const run = runOf(task)
    this.#byRun.set(run, (this.#byRun.get(run) ?? new Set()).add(task))
  }

  async #rewrite(): Promise<void> {
    const tasks = [...this.#byRun.values()].flatMap((it) => [...it])
    const file = await open(`${this.#path}.new`, 'w', 0o600)
    await file.writeFile(tasks.map((task) => `${task}\n`).join('')).finally(() => file.close())
    await rename(`${this.#path}.new`, this.#path)
    this.#lines = tasks.length
  }
}
