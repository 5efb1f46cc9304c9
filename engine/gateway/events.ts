/**
 * What happens in a run, for people who watch: the latest events of each run are kept in the broker, in batches, and told to watchers
 * once they are kept, so that a watcher who comes back after a restart finds the same list. Losing some loses no work.
 */
import type { Json, RunEvent } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import type { Task } from './work.ts'

const FLUSH_MS = 100
/** Per run; a run of thousands of tasks is watched live. */
const KEPT = 2_000
const MAX_MESSAGE = 2_000

export interface EventSink {
  add(task: Task, event: RunEvent['event'], message?: string, percent?: number, data?: Json): void
}

interface Pending {
  readonly id: string
  readonly at: number
  readonly task: string
  readonly agent: string
  readonly event: RunEvent['event']
  readonly message: string | undefined
  readonly percent: number | undefined
  readonly data: Json | undefined
}

export class RunEvents implements EventSink {
  readonly #broker: Broker
  readonly #pending = new Map<string, Pending[]>()
  readonly #watchers = new Map<string, Set<(lines: readonly string[]) => void>>()
  /** With a count: ids of events, which no gateway before or after this one gives. */
  readonly #start = Date.now().toString(36)
  #count = 0
  #timer: NodeJS.Timeout | null = null
  #flushing: Promise<void> = Promise.resolve()

  constructor(broker: Broker) {
    this.#broker = broker
  }

  add(task: Task, event: RunEvent['event'], message?: string, percent?: number, data?: Json): void {
    const pending = this.#pending.get(task.run)
    const entry = { id: `${this.#start}.${(this.#count++).toString(36)}`, at: Date.now(), task: task.id, agent: task.agent, event, message, percent, data }
    if (pending === undefined) this.#pending.set(task.run, [entry])
    else if (pending.length < KEPT) pending.push(entry)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  flush(): Promise<void> {
    this.#flushing = this.#flushing.then(() => this.#flush()).catch(() => {})
    return this.#flushing
  }

  async #flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    // While the broker is away they wait here, at most KEPT per run.
    if (!this.#broker.connected) {
      if (this.#pending.size > 0) this.#timer = setTimeout(() => void this.flush(), 10 * FLUSH_MS)
      return
    }
    const batches = [...this.#pending]
    this.#pending.clear()
    await Promise.all(
      batches.map(async ([run, entries]) => {
        const lines = entries.map(line)
        await this.#broker.appendEvents(run, lines, KEPT)
        for (const watcher of this.#watchers.get(run) ?? []) watcher(lines)
      }),
    )
  }

  /** Those kept so far, then each batch, until `stop` of the returned function. */
  async watch(run: string, tell: (lines: readonly string[]) => void): Promise<() => void> {
    await this.flush()
    const watchers = this.#watchers.get(run) ?? new Set()
    const early: (readonly string[])[] = []
    let ready = false
    const watcher = (lines: readonly string[]): void => void (ready ? tell(lines) : early.push(lines))
    // Registered before the list is read, within the order of the one connection: nothing is missed, nothing told twice.
    const kept = this.#flushing.then(() => {
      const reading = this.#broker.readEvents(run)
      watchers.add(watcher)
      this.#watchers.set(run, watchers)
      return reading
    })
    tell(await kept)
    ready = true
    for (const lines of early) tell(lines)
    return () => {
      watchers.delete(watcher)
      if (watchers.size === 0) this.#watchers.delete(run)
    }
  }

  async close(): Promise<void> {
    await this.flush()
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}

function line({ id, at, task, agent, event, message, percent, data }: Pending): string {
  const told: RunEvent = {
    id,
    at: new Date(at).toISOString(),
    task,
    agent,
    event,
    ...(message === undefined ? {} : { message: message.slice(0, MAX_MESSAGE) }),
    ...(percent === undefined ? {} : { percent }),
    ...(data === undefined ? {} : { data }),
  }
  return JSON.stringify(told)
}
