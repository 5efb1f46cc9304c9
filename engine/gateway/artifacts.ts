/**
 * Artifacts: bytes in the store, names in the run's record (one field per name and execution) while the run is open, and a manifest once
 * it has ended. A name counts when the execution that wrote it completed its task. Who stands nowhere, neither in an open run nor in a
 * manifest, is collected.
 */
import type { FileHandle } from 'node:fs/promises'
import type { ArtifactSettings } from '../../spec/model.ts'
import type { ArtifactView, WorkStatus } from '../../spec/protocol.ts'
import type { Broker, TaskRef } from '../broker/port.ts'
import { Manifests } from './artifact-manifests.ts'
import { ArtifactStore, type Blob, DiskShort } from './artifact-store.ts'
import type { HttpError } from './http.ts'
import { ownerOf } from './ids.ts'
import { refuse } from './submission.ts'
import type { Lease, Task } from './work.ts'

/** Names of one execution, of a run, and of all open runs (they are in memory). */
const MAX_OF_TASK = 1_000
const MAX_OF_RUN = 10_000
const MAX_OF_ALL = 200_000
/** How soon after its end a run gets its manifest. */
const LOOK_MS = 2_000
const COLLECT_MS = 600_000

export interface ArtifactsOptions {
  readonly broker: Broker
  /** Folder of the store. */
  readonly root: string
  readonly settings: () => ArtifactSettings
  readonly isOpen: (run: string) => boolean
  readonly log: (message: string) => void
}

interface Entry {
  readonly epoch: number
  readonly view: ArtifactView
}
interface OfRun {
  /** By field of the record. */
  readonly entries: Map<string, Entry>
  /** Distinct content: a retry that stores the same again costs nothing. */
  readonly sizes: Map<string, number>
  bytes: number
  /** Uploads under way, and their bytes. */
  uploads: number
  uploading: number
  /** Names of an execution. */
  readonly counts: Map<string, number>
  /** The execution that completed a task. */
  readonly completed: Map<string, number>
}

/** `artifact:TASK~EPOCH~NAME`; neither a task's id nor an epoch has a tilde. */
const artifactField = (task: string, epoch: number, name: string): string => `artifact:${task}~${epoch}~${name}`
const ARTIFACT_FIELD = /^artifact:([^~]+)~(\d+)~(.+)$/

/** What the record holds of a name. */
type Recorded = Omit<ArtifactView, 'name' | 'task'> & { readonly agent: string }

export class Artifacts {
  readonly #options: ArtifactsOptions
  readonly #store: ArtifactStore
  readonly #manifests: Manifests
  readonly #open = new Map<string, OfRun>()
  readonly #timers: readonly NodeJS.Timeout[]
  #names = 0
  #finishing: Promise<void> | null = null
  #collecting: Promise<number> = Promise.resolve(0)
  /** Digests of manifests that were written while a collection is under way. */
  #fresh: Set<string> | null = null
  #loaded = false

  constructor(options: ArtifactsOptions) {
    this.#options = options
    this.#store = new ArtifactStore(options.root)
    this.#manifests = new Manifests(options.root)
    this.#timers = [setInterval(() => void this.finish(), LOOK_MS).unref(), setInterval(() => void this.collect(), COLLECT_MS).unref()]
  }

  /** At the start, after the runs are known. */
  async recover(): Promise<void> {
    const { broker } = this.#options
    await this.#store.load()
    await this.#manifests.load()
    this.#open.clear()
    this.#names = 0
    for (const run of await broker.artifactRuns()) {
      const record = await broker.readRun(run)
      if (record === null) await broker.dropArtifactRun(run)
      else await this.#recoverRun(run, record)
    }
    this.#loaded = true
    // Not awaited: nobody's work waits for it.
    void this.finish().then(() => this.collect())
  }

  async #recoverRun(run: string, record: ReadonlyMap<string, string>): Promise<void> {
    const tasks = new Map<string, TaskRef>()
    for (const [field, text] of record) {
      const [, task, epoch, name] = ARTIFACT_FIELD.exec(field) ?? []
      if (task === undefined || name === undefined) continue
      const { agent, digest, size, type } = JSON.parse(text) as Recorded
      tasks.set(task, { queue: agent, id: task })
      this.#add(run, Number(epoch), { name, digest, size, type, task })
    }
    const refs = [...tasks.values()]
    const states = await this.#options.broker.read(refs)
    refs.forEach(({ id }, index) => {
      const state = states[index]
      if (state?.finished === true && state.failure === null) this.#open.get(run)?.completed.set(id, state.epoch)
    })
    if (refs.length === 0) await this.#options.broker.dropArtifactRun(run)
  }

  // ---- storing ----

  /** May an upload of this type and length (null: not told) begin? Throws the refusal. */
  async admit({ task, epoch }: Lease, type: string, bytes: number | null): Promise<void> {
    const { types } = this.#options.settings()
    if (types !== null && !types.some((pattern) => fits(type, pattern)))
      throw refuse(415, 'AG6010', `artifacts of type ${type} are not taken; taken are ${types.join(', ')}`)
    const run = this.#open.get(task.run)
    if ((run?.counts.get(`${task.id}~${epoch}`) ?? 0) >= MAX_OF_TASK) throw tooMany(`a task stores at most ${MAX_OF_TASK} artifacts`)
    if ((run?.entries.size ?? 0) >= MAX_OF_RUN) throw tooMany(`a run stores at most ${MAX_OF_RUN} artifacts`)
    if (this.#names >= MAX_OF_ALL) throw tooMany(`the open runs store at most ${MAX_OF_ALL} artifacts`)
    this.#limit(task.run, 0, bytes ?? 0)
    if (!(await this.#store.roomFor(bytes ?? 0))) throw noRoom()
  }

  /** `size` of which are counted already; throws when `more` would be too many. */
  #limit(id: string, size: number, more: number): void {
    const { max_size, max_run, max_total } = this.#options.settings()
    const run = this.#open.get(id)
    if (size + more > max_size) throw refuse(413, 'AG6010', `the artifact has more than ${max_size} bytes (artifacts.max_size)`)
    if ((run?.bytes ?? 0) + (run?.uploading ?? 0) + more > max_run)
      throw refuse(413, 'AG6010', `the artifacts of the run have more than ${max_run} bytes (artifacts.max_run)`)
    if (this.#store.bytes + more > max_total)
      throw refuse(413, 'AG6010', `all artifacts have more than ${max_total} bytes (artifacts.max_total)`)
  }

  /** null: the execution has lost its task, and nothing is visible of it. */
  async put(lease: Lease, name: string, type: string, chunks: AsyncIterable<Buffer>): Promise<ArtifactView | null> {
    const { task } = lease
    const run = this.#ofRun(task.run)
    let counted = 0
    run.uploads += 1
    try {
      const blob = await this.#store.receive(chunks, (size) => {
        this.#limit(task.run, counted, size - counted)
        run.uploading += size - counted
        counted = size
      })
      try {
        return await this.#name(lease, name, type, blob)
      } finally {
        this.#store.unpin(blob.digest)
      }
    } catch (error) {
      throw error instanceof DiskShort ? noRoom() : error
    } finally {
      run.uploads -= 1
      run.uploading -= counted
      this.#tidy(task.run)
    }
  }

  async #name({ task, epoch, holder }: Lease, name: string, type: string, { digest, size }: Blob): Promise<ArtifactView | null> {
    if (!this.#options.isOpen(task.run)) return null
    const view: ArtifactView = { name, digest, size, type, task: task.id }
    const recorded: Recorded = { digest, size, type, agent: task.agent }
    const fence = { queue: task.agent, id: task.id, epoch, token: holder }
    // From here on in memory, so that it is not collected while the broker writes.
    const undo = this.#add(task.run, epoch, view)
    try {
      const named = await this.#options.broker.nameArtifact(fence, task.run, artifactField(task.id, epoch, name), JSON.stringify(recorded))
      if (named) return view
      undo()
      return null
    } catch (error) {
      undo()
      throw error
    }
  }

  #ofRun(id: string): OfRun {
    const known = this.#open.get(id)
    if (known !== undefined) return known
    const made: OfRun = {
      entries: new Map(),
      sizes: new Map(),
      bytes: 0,
      uploads: 0,
      uploading: 0,
      counts: new Map(),
      completed: new Map(),
    }
    this.#open.set(id, made)
    return made
  }

  /** Returns what takes it back. */
  #add(id: string, epoch: number, view: ArtifactView): () => void {
    const run = this.#ofRun(id)
    const field = artifactField(view.task, epoch, view.name)
    const before = run.entries.get(field)
    const execution = `${view.task}~${epoch}`
    run.entries.set(field, { epoch, view })
    if (before === undefined) {
      run.counts.set(execution, (run.counts.get(execution) ?? 0) + 1)
      this.#names += 1
    }
    if (!run.sizes.has(view.digest)) {
      run.sizes.set(view.digest, view.size)
      run.bytes += view.size
    }
    // What nobody could name takes no room of the run.
    const release = (): void => {
      if ([...run.entries.values()].some((entry) => entry.view.digest === view.digest) || !run.sizes.delete(view.digest)) return
      run.bytes -= view.size
    }
    return () => {
      if (run.entries.get(field)?.view !== view) return
      if (before !== undefined) run.entries.set(field, before)
      else {
        run.entries.delete(field)
        run.counts.set(execution, (run.counts.get(execution) ?? 1) - 1)
        this.#names -= 1
      }
      release()
    }
  }

  #tidy(id: string): void {
    const run = this.#open.get(id)
    if (run !== undefined && run.entries.size === 0 && run.uploads === 0) this.#open.delete(id)
  }

  // ---- reading ----

  /** Visible ones of an open or ended run. */
  async ofRun(run: string): Promise<readonly ArtifactView[]> {
    const open = this.#open.get(run)
    return open === undefined ? this.#manifests.ofRun(run) : visible(open)
  }

  /** null: there is no such artifact. The caller closes the file. */
  open(digest: string): Promise<{ readonly file: FileHandle; readonly size: number } | null> {
    return this.#store.open(digest)
  }

  has(digest: string): boolean {
    return this.#store.has(digest)
  }

  /** Stored by any execution of the task, or by a child of it that completed. */
  isOf(run: string, task: string, digest: string): boolean {
    const open = this.#open.get(run)
    if (open === undefined || !open.sizes.has(digest)) return false
    for (const { epoch, view } of open.entries.values()) {
      if (view.digest !== digest) continue
      if (view.task === task || (ownerOf(view.task) === task && open.completed.get(view.task) === epoch)) return true
    }
    return false
  }

  isVisibleIn(run: string, digest: string): boolean {
    const open = this.#open.get(run)
    return open !== undefined && open.sizes.has(digest) && visible(open).some((view) => view.digest === digest)
  }

  // ---- ends ----

  taskEnded(task: Task, status: WorkStatus): void {
    if (status === 'completed' && task.epoch !== undefined) this.#open.get(task.run)?.completed.set(task.id, task.epoch)
  }

  /** Runs that have ended get their manifest. One that cannot be written (a full disk) is tried again. */
  finish(): Promise<void> {
    this.#finishing ??= this.#finish().finally(() => {
      this.#finishing = null
    })
    return this.#finishing
  }

  async #finish(): Promise<void> {
    if (!this.#loaded) return
    try {
      for (const [id, run] of this.#open) if (!this.#options.isOpen(id) && run.uploads === 0) await this.#finishRun(id, run)
    } catch (error) {
      this.#options.log(`artifacts of ended runs: ${String(error)}`)
    }
  }

  async #finishRun(id: string, run: OfRun): Promise<void> {
    const artifacts = visible(run)
    for (const { digest } of artifacts) this.#fresh?.add(digest)
    if (artifacts.length > 0) await this.#manifests.write(id, Date.now(), artifacts)
    await this.#options.broker.dropArtifactRun(id)
    this.#names -= run.entries.size
    this.#open.delete(id)
  }

  /** Deletes what nobody names any more, one collection after the other. How many files. */
  collect(now: number = Date.now(), grace_ms?: number): Promise<number> {
    this.#collecting = this.#collecting.then(() => this.#collect(now, grace_ms))
    return this.#collecting
  }

  async #collect(now: number, grace_ms?: number): Promise<number> {
    if (!this.#loaded) return 0
    const fresh = new Set<string>()
    this.#fresh = fresh
    try {
      const kept = await this.#manifests.keep(now - this.#options.settings().retention_ms)
      const named = (digest: string): boolean =>
        kept.has(digest) || fresh.has(digest) || [...this.#open.values()].some((run) => run.sizes.has(digest))
      return await this.#store.sweep(named, now, grace_ms)
    } catch (error) {
      this.#options.log(`collecting artifacts: ${String(error)}`)
      return 0
    } finally {
      this.#fresh = null
    }
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer)
  }
}

const visible = ({ entries, completed }: OfRun): readonly ArtifactView[] =>
  [...entries.values()].filter(({ epoch, view }) => completed.get(view.task) === epoch).map(({ view }) => view)

/** "text/*" takes text/plain. */
const fits = (type: string, pattern: string): boolean => {
  const wanted = pattern.toLowerCase()
  return wanted === '*/*' || (wanted.endsWith('/*') ? type.startsWith(wanted.slice(0, -1)) : type === wanted)
}

const tooMany = (message: string): HttpError => refuse(413, 'AG6010', message, 'Store fewer and larger ones: an archive, for example.')
const noRoom = (): HttpError => refuse(503, 'AG6009', 'the disk of the gateway is short of room for artifacts')
