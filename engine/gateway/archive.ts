/**
 * Finished runs on the state volume: one file per run, and an index. A file is written beside its place, synced, and renamed, and its
 * last line has a checksum of all before it: what is there is whole, or is known not to be.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import type { WorkStatus } from '../../spec/protocol.ts'
import type { FailedTask, TaskState } from '../broker/port.ts'
import { Dropped } from './dropped.ts'
import { childField } from './run-record.ts'
import { RUN_ID } from '../ulid.ts'

export const ARCHIVE_FOLDER = 'archive'
/** Characters that go to the compressor at once. */
const TEXT_BLOCK = 65_536
const INDEX = 'index.jsonl'
const SUFFIX = '.json.gz'
const DAY_MS = 86_400_000
/** A small file takes a block. */
const BLOCK = 4_096
/** What the broker keeps of a task besides its input and result. */
const TASK_BYTES = 512

export interface ArchiveLimits {
  readonly age_ms: number
  readonly bytes: number
  /** The index is in memory: 50,000 runs are about 15 MB. */
  readonly runs: number
}
export const ARCHIVE_LIMITS: ArchiveLimits = { age_ms: 30 * DAY_MS, bytes: 1_073_741_824, runs: 50_000 }

/** Dead letters of a run. */
export interface Letters {
  readonly count: number
  readonly agents: readonly string[]
  readonly newest_ms: number
  readonly oldest_ms: number
}
export interface ArchiveEntry {
  readonly run: string
  readonly pipeline: string | null
  readonly status: WorkStatus
  /** Of its jobs. */
  readonly agents: readonly string[]
  /** Unix ms. */
  readonly created: number
  readonly ended: number
  /** With children. */
  readonly tasks: number
  /** What it took in the broker, about. */
  readonly broker_bytes: number
  /** Absent: none. */
  readonly letters?: Letters
  /** Of the file. */
  readonly size: number
}
export interface ArchivedTask {
  readonly id: string
  readonly queue: string
  readonly state: TaskState | null
  /** AttemptView as JSON, of executions that did not end it well; absent: none. */
  readonly attempts?: readonly string[]
  /** It was a dead letter, and was not dropped. */
  readonly letter?: true
}
/** A run as the broker had it. */
export interface ArchivedRun {
  readonly record: ReadonlyMap<string, string>
  readonly tasks: ReadonlyMap<string, ArchivedTask>
  readonly events: readonly string[]
}
export interface ArchiveSource {
  readonly run: string
  readonly pipeline: string | null
  readonly status: WorkStatus
  readonly agents: readonly string[]
  readonly created: number
  readonly ended: number
  readonly record: ReadonlyMap<string, string>
  readonly tasks: AsyncIterable<ArchivedTask>
  readonly events: readonly string[]
}

type Line =
  | { readonly t: 'run'; readonly run: string; readonly record: readonly (readonly [string, string])[] }
  | ({ readonly t: 'task' } & ArchivedTask)
  | { readonly t: 'event'; readonly line: string }
  | { readonly t: 'end'; readonly sha256: string; readonly entry: Omit<ArchiveEntry, 'size'> }

/** What of a run is wanted: one task, or those of its jobs (children may be any number). `bytes`: of results; those beyond are left out. */
export interface Wanted {
  readonly task?: string
  readonly bytes?: number
  readonly events?: boolean
}

export class Archive {
  readonly #folder: string
  readonly #limits: ArchiveLimits
  readonly #log: (message: string) => void
  #dropped: Dropped | null = null
  readonly #entries = new Map<string, ArchiveEntry>()
  #bytes = 0
  #lines = 0
  #indexing: Promise<void> = Promise.resolve()

  private constructor(folder: string, limits: ArchiveLimits, log: (message: string) => void) {
    this.#folder = folder
    this.#limits = limits
    this.#log = log
  }

  static async open(stateDir: string, log: (message: string) => void, limits: ArchiveLimits = ARCHIVE_LIMITS): Promise<Archive> {
    const archive = new Archive(join(stateDir, ARCHIVE_FOLDER), limits, log)
    await archive.#load()
    archive.#dropped = await Dropped.open(stateDir, (run) => archive.has(run))
    return archive
  }

  get dropped(): Dropped {
    if (this.#dropped === null) throw new Error('the archive is not open')
    return this.#dropped
  }

  has(run: string): boolean {
    return this.#entries.has(run)
  }
  entry(run: string): ArchiveEntry | undefined {
    return this.#entries.get(run)
  }
  entries(): IterableIterator<ArchiveEntry> {
    return this.#entries.values()
  }

  #path(run: string): string {
    return join(this.#folder, `${run}${SUFFIX}`)
  }

  /** The index is a help: what it does not have is read from the files, and what has no file is not there. */
  async #load(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const names = new Set<string>()
    for (const name of await readdir(this.#folder)) {
      const run = name.slice(0, -SUFFIX.length)
      if (name.endsWith(SUFFIX) && RUN_ID.test(run)) names.add(run)
      else if (name !== INDEX) await rm(join(this.#folder, name), { force: true, recursive: true })
    }
    const text = await readFile(join(this.#folder, INDEX), 'utf8').catch(() => '')
    for (const line of text.split('\n')) {
      const entry = indexed(line)
      if (entry !== null && names.has(entry.run)) this.#keep(entry)
    }
    for (const run of names) if (!this.#entries.has(run)) await this.#find(run)
    // On a disk that is full it stays as it was.
    await this.#writeIndex().catch((error: unknown) => this.#log(`archive: the index: ${reason(error)}`))
    await this.prune()
  }

  async #find(run: string): Promise<void> {
    try {
      let entry: Omit<ArchiveEntry, 'size'> | null = null
      for await (const line of this.#read(run)) if (line.t === 'end') entry = line.entry
      if (entry === null) throw new Error('it has no end')
      this.#keep({ ...entry, size: (await stat(this.#path(run))).size })
    } catch (error) {
      this.#log(`archive: ${this.#path(run)} is torn and left out: ${reason(error)}`)
    }
  }

  #keep(entry: ArchiveEntry): void {
    this.#bytes += blocks(entry.size) - blocks(this.#entries.get(entry.run)?.size ?? 0)
    this.#entries.set(entry.run, entry)
  }

  /** The same run again is the same file. */
  async write(source: ArchiveSource): Promise<ArchiveEntry> {
    const { run, status, agents, created, ended } = source
    const temporary = join(this.#folder, `${run}.new`)
    const counts: Counts = { tasks: 0, broker_bytes: 0 }
    const entry = (): Omit<ArchiveEntry, 'size'> => ({ run, pipeline: source.pipeline, status, agents, created, ended, ...counts })
    try {
      await pipeline(
        Readable.from(blocksOf(lines(source, counts, entry))),
        createGzip({ level: 4 }),
        createWriteStream(temporary, { mode: 0o600 }),
      )
      const file = await open(temporary, 'r+')
      const { size } = await file.stat()
      await file.sync().finally(() => file.close())
      await rename(temporary, this.#path(run))
      const made = { ...entry(), size }
      this.#keep(made)
      await this.#append(made)
      await this.prune()
      return made
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {})
      throw error
    }
  }

  /** null: there is none, or it is torn (and left out from now on). */
  async read(run: string, wanted: Wanted = {}): Promise<ArchivedRun | null> {
    if (!this.has(run)) return null
    const record = new Map<string, string>()
    const tasks = new Map<string, ArchivedTask>()
    const events: string[] = []
    let left = wanted.bytes ?? Number.POSITIVE_INFINITY
    try {
      for await (const line of this.#read(run)) {
        if (line.t === 'run') for (const [field, value] of line.record) record.set(field, value)
        else if (line.t === 'event' && wanted.events === true) events.push(line.line)
        else if (line.t === 'task' && (wanted.task === undefined ? !record.has(childField(line.id)) : wanted.task === line.id)) {
          const { t: _, ...task } = line
          const { state } = task
          left -= state?.result?.length ?? 0
          tasks.set(task.id, { ...task, state: state !== null && left < 0 ? { ...state, result: null } : state })
        }
      }
      return { record, tasks, events }
    } catch (error) {
      // Too many open files, a disk that does not answer: it is there all the same, and its id is not free.
      if (error instanceof Error && 'syscall' in error && (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      this.#leaveOut(run, error)
      return null
    }
  }

  /** Its dead letters that were not dropped. */
  async *letters(run: string): AsyncGenerator<FailedTask> {
    if (!this.has(run)) return
    try {
      for await (const line of this.#read(run)) {
        const letter = line.t === 'task' && !this.dropped.has(line.id) ? letterOf(line) : null
        if (letter !== null) yield letter
      }
    } catch (error) {
      if (error instanceof Error && 'syscall' in error && (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      this.#leaveOut(run, error)
    }
  }

  #leaveOut(run: string, error: unknown): void {
    this.#log(`archive: ${this.#path(run)} is torn and left out: ${reason(error)}`)
    this.#bytes -= blocks(this.#entries.get(run)?.size ?? 0)
    this.#entries.delete(run)
  }

  /** Its lines; throws at the end if they are not what was written. */
  async *#read(run: string): AsyncGenerator<Line> {
    const source = createReadStream(this.#path(run))
    const unpacked = source.pipe(createGunzip())
    source.once('error', (error) => unpacked.destroy(error))
    const hash = createHash('sha256')
    let whole = false
    try {
      for await (const text of linesOf(unpacked)) {
        const line = JSON.parse(text) as Line
        if (line.t === 'end') whole = line.sha256 === hash.digest('hex')
        else hash.update(`${text}\n`)
        yield line
      }
      if (!whole) throw new Error('the checksum is another')
    } finally {
      source.destroy()
      unpacked.destroy()
    }
  }

  #append(entry: ArchiveEntry): Promise<void> {
    this.#indexing = this.#indexing
      .then(async () => {
        const file = await open(join(this.#folder, INDEX), 'a', 0o600)
        this.#lines += 1
        await file.appendFile(`${JSON.stringify(entry)}\n`).finally(() => file.close())
        if (this.#lines > 2 * this.#entries.size + 1_000) await this.#writeIndex()
      })
      .catch((error: unknown) => this.#log(`archive: the index: ${reason(error)}`))
    return this.#indexing
  }

  async #writeIndex(): Promise<void> {
    const path = join(this.#folder, INDEX)
    const file = await open(`${path}.new`, 'w', 0o600)
    await file.writeFile([...this.#entries.values()].map((entry) => `${JSON.stringify(entry)}\n`).join('')).finally(() => file.close())
    await rename(`${path}.new`, path)
    this.#lines = this.#entries.size
  }

  /** The oldest go. */
  async prune(now: number = Date.now()): Promise<void> {
    // In the order in which they were archived, which is by their ends but for a few.
    for (const [run, entry] of this.#entries) {
      const { age_ms, bytes, runs } = this.#limits
      if (entry.ended > now - age_ms && this.#bytes <= bytes && this.#entries.size <= runs) return
      this.#entries.delete(run)
      this.#bytes -= blocks(entry.size)
      this.#dropped?.forget(run)
      await rm(this.#path(run), { force: true })
    }
  }
}

interface Counts {
  tasks: number
  broker_bytes: number
  letters?: Letters
}

async function* lines(source: ArchiveSource, counts: Counts, entry: () => object): AsyncGenerator<string> {
  const hash = createHash('sha256')
  const line = (it: Line): string => {
    const text = `${JSON.stringify(it)}\n`
    hash.update(text)
    return text
  }
  counts.broker_bytes = [...source.record].reduce((sum, [field, value]) => sum + field.length + value.length, 0)
  yield line({ t: 'run', run: source.run, record: [...source.record] })
  for await (const task of source.tasks) {
    counts.tasks += 1
    const { state } = task
    counts.broker_bytes +=
      TASK_BYTES + (state === null ? 0 : state.data.length + (state.result?.length ?? 0) + (state.failure?.length ?? 0))
    for (const attempt of task.attempts ?? []) counts.broker_bytes += attempt.length
    const letter = letterOf(task)
    if (letter !== null) counts.letters = withLetter(counts.letters, letter)
    yield line({ t: 'task', ...task })
  }
  for (const event of source.events) {
    counts.broker_bytes += event.length
    yield line({ t: 'event', line: event })
  }
  yield `${JSON.stringify({ t: 'end', sha256: hash.digest('hex'), entry: entry() })}\n`
}

/** null: it was none. */
export function letterOf({ id, queue, state, letter }: ArchivedTask): FailedTask | null {
  if (letter !== true || state?.failure === null || state?.failure === undefined) return null
  const { epoch, data, failure, ended_ms } = state
  return { id, queue, epoch, data, failure, ended_ms: ended_ms ?? 0 }
}

const withLetter = (all: Letters | undefined, { queue, ended_ms }: FailedTask): Letters => ({
  count: (all?.count ?? 0) + 1,
  agents: [...new Set([...(all?.agents ?? []), queue])],
  newest_ms: Math.max(all?.newest_ms ?? 0, ended_ms),
  oldest_ms: Math.min(all?.oldest_ms ?? ended_ms, ended_ms),
})

/** A line by itself would cost the compressor more than its bytes do. */
async function* blocksOf(texts: AsyncIterable<string>): AsyncGenerator<string> {
  let block = ''
  for await (const text of texts) {
    block += text
    if (block.length < TEXT_BLOCK) continue
    yield block
    block = ''
  }
  if (block !== '') yield block
}

/** Not readline: its iterator does not end when its input fails. */
async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let parts: string[] = []
  for await (const chunk of input) {
    const pieces = decoder.decode(chunk, { stream: true }).split('\n')
    const last = pieces.pop() ?? ''
    for (const piece of pieces) {
      yield parts.length === 0 ? piece : parts.join('') + piece
      parts = []
    }
    if (last !== '') parts.push(last)
  }
  if (parts.length > 0) yield parts.join('')
}

function indexed(line: string): ArchiveEntry | null {
  if (line === '') return null
  try {
    const entry = JSON.parse(line) as ArchiveEntry
    return RUN_ID.test(entry.run) && Number.isFinite(entry.size) ? entry : null
  } catch {
    // The last line of a kill; its file is found by the look at the folder.
    return null
  }
}

const blocks = (size: number): number => Math.ceil(size / BLOCK) * BLOCK
const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))
