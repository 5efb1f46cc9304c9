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
/** Events of one run within FLUSH_MS, beyond which a task's usual ones are left out. */
const MANY = 250
const COMMON: ReadonlySet<RunEvent['event']> = new Set(['queued', 'leased', 'completed'])
/** Of a run's kept lines, so that events cannot fill the broker (logs are events too). */
const KEPT_BYTES = 1_048_576
const MAX_MESSAGE = 2_000
/** Sizes of a run's lines are forgotten when nothing has happened in it for so long; they are read again if need be. */
const QUIET_MS = 60_000

type Of = Pick<Task, 'id' | 'agent' | 'run'> & { readonly lease: { readonly epoch: number } | null }

export interface EventSink {
  add(task: Of, event: RunEvent['event'], message?: string, percent?: number, data?: Json): void
}

interface Pending {
  readonly id: string
  readonly at: number
  readonly task: string
  readonly agent: string
  readonly attempt: number | undefined
  readonly event: RunEvent['event']
  readonly message: string | undefined
  readonly percent: number | undefined
  readonly data: Json | undefined
}

/** What of a run is kept in the broker: the size of each line, oldest first. */
interface Kept {
  readonly sizes: number[]
  bytes: number
  touched: number
}

export class RunEvents implements EventSink {
  readonly #broker: Broker
  readonly #archived: (run: string) => Promise<readonly string[]>
  readonly #kept = new Map<string, Kept>()
  readonly #pending = new Map<string, Pending[]>()
  readonly #watchers = new Map<string, Set<(lines: readonly string[]) => void>>()
  /** With a count: ids of events, which no gateway before or after this one gives. */
  readonly #start = Date.now().toString(36)
  #count = 0
  #swept = Date.now()
  #timer: NodeJS.Timeout | null = null
  #flushing: Promise<void> = Promise.resolve()

  /** `archived`: events of a run that has left the broker. */
  constructor(broker: Broker, archived: (run: string) => Promise<readonly string[]> = async () => []) {
    this.#broker = broker
    this.#archived = archived
  }

  /** Runs that someone watches. */
  get watched(): number {
    return this.#watchers.size
  }

  /** A run that was made just now: nothing of it is kept yet. */
  begin(run: string): void {
    this.#kept.set(run, { sizes: [], bytes: 0, touched: Date.now() })
  }

  add(task: Of, event: RunEvent['event'], message?: string, percent?: number, data?: Json): void {
    const pending = this.#pending.get(task.run)
    // What nobody can read at this pace is not written: it would cost more than the tasks themselves.
    if (pending !== undefined && pending.length >= MANY && COMMON.has(event)) return
    const entry = {
      id: `${this.#start}.${(this.#count++).toString(36)}`,
      at: Date.now(),
      task: task.id,
      agent: task.agent,
      attempt: task.lease?.epoch,
      event,
      message,
      percent,
      data,
    }
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
    this.#forgetQuiet()
    await Promise.all(
      batches.map(async ([run, entries]) => {
        const lines = entries.map(line)
        const keep = this.#fit(run, this.#kept.get(run) ?? (await this.#read(run)), lines)
        await this.#broker.appendEvents(run, lines, keep).catch((error: unknown) => {
          this.#kept.delete(run)
          throw error
        })
        for (const watcher of this.#watchers.get(run) ?? []) watcher(lines)
      }),
    )
  }

  /** How many of a run's latest lines to keep, with these. */
  #fit(run: string, kept: Kept, lines: readonly string[]): number {
    this.#kept.set(run, kept)
    kept.touched = Date.now()
    for (const text of lines) {
      const bytes = Buffer.byteLength(text)
      kept.sizes.push(bytes)
      kept.bytes += bytes
    }
    let gone = 0
    while (kept.sizes.length - gone > 1 && (kept.sizes.length - gone > KEPT || kept.bytes > KEPT_BYTES))
      kept.bytes -= kept.sizes[gone++] ?? 0
    kept.sizes.splice(0, gone)
    return kept.sizes.length
  }

  async #read(run: string): Promise<Kept> {
    const sizes = (await this.#broker.readEvents(run)).map((text) => Buffer.byteLength(text))
    return { sizes, bytes: sizes.reduce((sum, it) => sum + it, 0), touched: Date.now() }
  }

  #forgetQuiet(): void {
    const before = Date.now() - QUIET_MS
    if (this.#swept > before) return
    this.#swept = Date.now()
    for (const [run, { touched }] of this.#kept) if (touched < before && !this.#pending.has(run)) this.#kept.delete(run)
  }

  /** Those kept so far, then each batch, until `stop` of the returned function. `after`: only what came after the event of this id, if it is still kept. */
  async watch(run: string, tell: (lines: readonly string[]) => void, after: string | null = null): Promise<() => void> {
    await this.flush()
    const early: (readonly string[])[] = []
    let ready = false
    const watcher = (lines: readonly string[]): void => void (ready ? tell(lines) : early.push(lines))
    // Registered before the list is read, within the order of the one connection: nothing is missed, nothing told twice.
    const kept = this.#flushing.then(() => {
      const reading = this.#broker.readEvents(run)
      const watchers = this.#watchers.get(run) ?? new Set()
      this.#watchers.set(run, watchers.add(watcher))
      return reading
    })
    const stop = (): void => {
      const watchers = this.#watchers.get(run)
      if (watchers?.delete(watcher) === true && watchers.size === 0) this.#watchers.delete(run)
    }
    try {
      const lines = await kept
      tell(since(lines.length > 0 ? lines : await this.#archived(run), after))
      ready = true
      for (const lines of early) tell(lines)
      return stop
    } catch (error) {
      stop()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.flush()
    if (this.#timer !== null) clearTimeout(this.#timer)
  }
}

function since(lines: readonly string[], id: string | null): readonly string[] {
  const at = id === null ? -1 : lines.findIndex((text) => text.startsWith(`{"id":${JSON.stringify(id)},`))
  return lines.slice(at + 1)
}

function line({ id, at, task, agent, attempt, event, message, percent, data }: Pending): string {
  const told: RunEvent = {
    id,
    at: new Date(at).toISOString(),
    task,
    agent,
    event,
    ...(attempt === undefined ? {} : { attempt }),
    ...(message === undefined ? {} : { message: message.slice(0, MAX_MESSAGE) }),
    ...(percent === undefined ? {} : { percent }),
    ...(data === undefined ? {} : { data }),
  }
  return JSON.stringify(told)
}
