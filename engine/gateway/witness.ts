/**
 * What the gateway remembers outside the broker: one line per submit and per end of a run, with the broker's count of such writes. A
 * broker that has counted less than is written here has lost data. Lines are in the file before a submit or an end is told to anyone;
 * they survive any kill of the gateway, and are synced to the disk sooner than the broker's log (100 ms against 1 s).
 */
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { WorkStatus } from '../../spec/protocol.ts'

export const WITNESS_FILE = 'witness.jsonl'
const SYNC_MS = 100
/** Lines that the disk did not take are written as soon as it does. */
const AGAIN_MS = 2_000
/** The file is written anew, with what is still of use, beyond this. */
const COMPACT_BYTES = 4_194_304
/** Times of writes: how exactly the beginning of a loss can be named. */
const MARKS = 5_000
/** Answers of one connection may be handled in another order, but not by so much. */
const SEEN = 1_024

export interface Witnessed {
  readonly run: string
  readonly seq: number
  readonly at: number
  /** null: plain tasks. */
  readonly pipeline: string | null
  /** Agent by job. */
  readonly jobs: { readonly [job: string]: string }
  readonly traceparent: string
}
export interface Loss {
  /** volume: all of it; truncated: the latest writes. */
  readonly kind: 'volume' | 'truncated'
  /** ISO 8601: the last moment that is known to be there, and the last that is known to be missing. */
  readonly from: string
  readonly to: string
  /** Those that are lost, or whose results are. */
  readonly runs: readonly string[]
  readonly at: string
}
type Line =
  | { readonly t: 'instance'; readonly id: string; readonly seq: number; readonly at: number }
  | ({ readonly t: 'submit' } & Witnessed)
  | { readonly t: 'end'; readonly run: string; readonly seq: number; readonly at: number; readonly status: WorkStatus }
  | { readonly t: 'archived'; readonly run: string }
  | { readonly t: 'mark'; readonly seq: number; readonly at: number }
  | { readonly t: 'loss'; readonly loss: Loss }

export interface EndedRun extends Witnessed {
  readonly status: WorkStatus
  readonly ended: number
}

export class Witness {
  readonly #path: string | null
  readonly #log: (message: string) => void
  #file: FileHandle | null = null
  #size = 0
  /** Bytes of what was still of use when it was last written anew: with many open runs that is much, and must not be written each time. */
  #least = 0
  /** The file is behind, and may end inside a line: it is to be written anew. */
  #behind = false
  #again: NodeJS.Timeout | null = null
  #pending: { readonly text: string; readonly done: () => void }[] = []
  #writing: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null
  /** Submitted, and not ended. */
  readonly open: Map<string, Witnessed> = new Map()
  /** Ended, and not in the archive yet. */
  readonly ended: Map<string, EndedRun> = new Map()
  instance: string | null = null
  #last = 0
  #marks: { readonly seq: number; readonly at: number }[] = []
  readonly #seen = new Set<number>()
  loss: Loss | null = null
  /** The broker counts what it has counted before. */
  onBehind: () => void = () => {}

  private constructor(path: string | null, log: (message: string) => void) {
    this.#path = path
    this.#log = log
  }

  /** `directory` null: nothing is remembered. `file`: each broker of a project has its own, as another broker is no loss. */
  static async open(directory: string | null, log: (message: string) => void, file: string = WITNESS_FILE): Promise<Witness> {
    const witness = new Witness(directory === null ? null : join(directory, file), log)
    await witness.#load()
    return witness
  }

  get isOn(): boolean {
    return this.#path !== null
  }
  get last(): number {
    return this.#last
  }

  async #load(): Promise<void> {
    if (this.#path === null) return
    const text = await readFile(this.#path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw error
    })
    let torn = 0
    for (const line of text.split('\n')) {
      if (line === '') continue
      try {
        this.#take(JSON.parse(line) as Line)
      } catch {
        torn += 1
      }
    }
    if (torn > 0) this.#log(`${this.#path}: ${torn} line(s) cannot be read and are left out`)
    this.#seen.clear()
    await this.#rewrite().catch((error: unknown) => this.#refused(error))
  }

  /** A disk that is full, for example. What is to be remembered is in memory meanwhile, and on the disk as far as it got. */
  #refused(error: unknown): void {
    if (!this.#behind) this.#log(`${this.#path}: ${String(error)}; it is written when it can be`)
    this.#behind = true
    this.#again ??= setTimeout(() => {
      this.#again = null
      this.#flushSoon()
    }, AGAIN_MS).unref()
  }

  #take(line: Line): void {
    if (line.t === 'instance') {
      this.instance = line.id
      this.#count(line.seq, line.at)
    } else if (line.t === 'submit') {
      const { t: _, ...run } = line
      this.open.set(line.run, run)
      this.#count(line.seq, line.at)
    } else if (line.t === 'end') {
      const run = this.open.get(line.run)
      this.open.delete(line.run)
      if (run !== undefined) this.ended.set(line.run, { ...run, status: line.status, ended: line.at })
      this.#count(line.seq, line.at)
    } else if (line.t === 'archived') {
      this.ended.delete(line.run)
      this.open.delete(line.run)
    } else if (line.t === 'mark') this.#count(line.seq, line.at)
    else this.loss = line.loss
  }

  #count(seq: number, at: number): void {
    if (this.#seen.has(seq) || seq < this.#last - SEEN) this.onBehind()
    this.#seen.add(seq)
    if (this.#seen.size > SEEN) this.#seen.delete(this.#seen.values().next().value as number)
    if (seq <= this.#last) return
    this.#last = seq
    this.#marks.push({ seq, at })
    if (this.#marks.length > 2 * MARKS) this.#marks = this.#marks.slice(-MARKS)
  }

  /** The time of the last write that is among the broker's first `seq`. */
  timeOf(seq: number): number | null {
    return this.#marks.findLast((it) => it.seq <= seq)?.at ?? null
  }
  get lastTime(): number | null {
    return this.#marks.at(-1)?.at ?? null
  }

  /** Resolves when a kill of the gateway cannot undo it. */
  submitted(run: Witnessed): Promise<void> {
    return this.#write({ t: 'submit', ...run })
  }
  endedRun(run: string, seq: number, status: WorkStatus): Promise<void> {
    return this.#write({ t: 'end', run, seq, at: Date.now(), status })
  }
  archived(run: string): void {
    if (this.open.has(run) || this.ended.has(run)) void this.#write({ t: 'archived', run })
  }
  mark(seq: number): void {
    void this.#write({ t: 'mark', seq, at: Date.now() })
  }
  adopt(id: string, seq: number): Promise<void> {
    this.#seen.clear()
    return this.#write({ t: 'instance', id, seq, at: Date.now() })
  }
  lost(loss: Loss): Promise<void> {
    return this.#write({ t: 'loss', loss })
  }

  async #write(line: Line): Promise<void> {
    this.#take(line)
    if (this.#path === null) return
    const done = Promise.withResolvers<void>()
    this.#pending.push({ text: `${JSON.stringify(line)}\n`, done: done.resolve })
    this.#flushSoon()
    await done.promise
  }

  #flushSoon(): void {
    this.#writing ??= this.#flush().finally(() => {
      this.#writing = null
    })
  }

  /** All that waits in one write. A disk that refuses is reported; work goes on, as the broker has it. */
  async #flush(): Promise<void> {
    await Promise.resolve()
    if (this.#behind && this.#pending.length === 0) await this.#rewrite().catch((error: unknown) => this.#refused(error))
    while (this.#pending.length > 0) {
      const batch = this.#pending
      this.#pending = []
      const text = batch.map((it) => it.text).join('')
      try {
        if (this.#behind || this.#size > COMPACT_BYTES + 2 * this.#least) await this.#rewrite()
        await this.#file?.appendFile(text)
        this.#size += text.length
        this.#timer ??= setTimeout(() => this.#sync(), SYNC_MS)
      } catch (error) {
        this.#refused(error)
      }
      for (const { done } of batch) done()
    }
  }

  #sync(): void {
    this.#timer = null
    void this.#file?.datasync().catch((error: unknown) => this.#log(`${this.#path}: ${String(error)}`))
  }

  /** What is still of use, beside the file, then in its place. */
  async #rewrite(): Promise<void> {
    if (this.#path === null) return
    const lines: Line[] = []
    const first = this.#marks[0]
    if (this.instance !== null) lines.push({ t: 'instance', id: this.instance, seq: first?.seq ?? 0, at: first?.at ?? Date.now() })
    for (const mark of this.#marks.slice(-MARKS)) lines.push({ t: 'mark', ...mark })
    for (const run of this.open.values()) lines.push({ t: 'submit', ...run })
    for (const { status, ended, ...run } of this.ended.values())
      lines.push({ t: 'submit', ...run }, { t: 'end', run: run.run, seq: run.seq, at: ended, status })
    if (this.loss !== null) lines.push({ t: 'loss', loss: this.loss })
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
    const temporary = `${this.#path}.new`
    const file = await open(temporary, 'w', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
      await rename(temporary, this.#path)
    } catch (error) {
      await file.close()
      await rm(temporary, { force: true }).catch(() => {})
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#behind = false
    this.#size = text.length
    this.#least = text.length
  }

  async close(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#again !== null) clearTimeout(this.#again)
    await this.#writing
    await this.#file?.datasync().catch(() => {})
    await this.#file?.close()
    this.#file = null
  }
}
