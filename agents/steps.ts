/** `ctx.step` and `ctx.workspace`, inside the thread: what earlier executions recorded, what this one asks for, and whether the two fit. */
import type { AsyncLocalStorage } from 'node:async_hooks'
import { mkdirSync } from 'node:fs'
import { type ArtifactView, type JournalEntry, type Json, MAX_PAYLOAD_BYTES } from '../spec/protocol.ts'
import { AgentError, type StepOptions } from './context.ts'
import type { Ask } from './messages.ts'

const MAX_NAME = 100
/** Of the records that nobody asked for, how many an error names. */
const MAX_NAMED = 10

/** What a journal entry holds. Not the bare value, so that what belongs to it can go along. */
interface Recorded {
  readonly value: Json
  /** Stored by the step. */
  readonly artifacts?: readonly ArtifactView[]
  /** Digest of the workspace after the step. */
  readonly workspace?: string
  /** The latest checkpoint is the one with the highest: a journal has no order. */
  readonly sequence?: number
}

export interface Frame {
  readonly key: string
  /** Children that the step delegated to without a key of their own. */
  children: number
  readonly artifacts: ArtifactView[]
}

export interface StepsOptions {
  readonly folder: string
  readonly ask: (ask: Ask) => Promise<unknown>
  readonly warn: (message: string) => void
}

const nondeterministic = (message: string): AgentError => new AgentError('nondeterministic', message)

export class Steps {
  readonly #options: StepsOptions
  readonly #frames: AsyncLocalStorage<Frame> = new (process.getBuiltinModule('node:async_hooks').AsyncLocalStorage)()
  readonly #counts = new Map<string, number>()
  readonly #recorded = new Map<string, JournalEntry>()
  readonly #asked = new Set<string>()
  #mismatch: AgentError | null = null
  #sequence = 0
  /** The end of the last step that changed the workspace. */
  #lastChange: Promise<unknown> = Promise.resolve()
  /** Records of workspace steps whose checkpoint is gone: they run again. */
  #isClean = false

  constructor(options: StepsOptions) {
    this.#options = options
  }

  get frame(): Frame | undefined {
    return this.#frames.getStore()
  }

  /** Before the handler of a later execution runs: the records, and the workspace as the latest checkpoint has it. */
  async restore(): Promise<void> {
    const entries = (await this.#options.ask({ op: 'journal.read' })) as readonly JournalEntry[]
    let latest: Recorded | null = null
    for (const entry of entries) {
      this.#recorded.set(entry.key, entry)
      const recorded = entry.value as unknown as Recorded
      if (entry.kind === 'checkpoint' && (recorded.sequence ?? 0) > (latest?.sequence ?? 0)) latest = recorded
    }
    if (latest?.workspace === undefined) return
    this.#sequence = latest.sequence ?? 0
    try {
      await this.#options.ask({ op: 'restore', digest: latest.workspace, folder: this.#options.folder })
    } catch (error) {
      this.#isClean = true
      this.#options.warn(`the workspace begins clean: its checkpoint is not to be had (${error instanceof Error ? error.message : error})`)
    }
  }

  /** After the handler: why what it did does not fit what was recorded; null: it does. */
  verdict(): AgentError | null {
    if (this.#mismatch !== null) return this.#mismatch
    const missed = [...this.#recorded.keys()].filter((key) => !this.#asked.has(key)).sort()
    if (missed.length === 0) return null
    const more = missed.length > MAX_NAMED ? ` and ${missed.length - MAX_NAMED} more` : ''
    return nondeterministic(
      `an earlier execution recorded the steps ${missed.slice(0, MAX_NAMED).join(', ')}${more}, which this one never asked for (AG6013): steps must be the same in each execution`,
    )
  }

  // Not async up to the count: the N-th call of a name is the N-th step, whatever the calls before it wait for.
  step<T>(name: string, fn: () => T | Promise<T>, { workspace = false }: StepOptions = {}): Promise<T> {
    const outer = this.frame
    if (typeof name !== 'string' || name === '' || name.length > MAX_NAME)
      return Promise.reject(new AgentError('bad_step', `the name of a step has 1 to ${MAX_NAME} characters`))
    if (outer !== undefined)
      return Promise.reject(
        new AgentError('nested_step', `the step "${name}" is inside of the step "${outer.key}": steps can run side by side, not nested`),
      )
    const count = (this.#counts.get(name) ?? 0) + 1
    this.#counts.set(name, count)
    const key = `${name}#${count}`
    this.#asked.add(key)
    const entry = this.#recorded.get(key)
    const kind = workspace ? 'checkpoint' : 'step'
    if (entry !== undefined && entry.kind !== kind) {
      const [had, has] = workspace ? ['without', 'with'] : ['with', 'without']
      this.#mismatch = nondeterministic(
        `the step ${key} was recorded ${had} a workspace checkpoint and is asked for ${has} one (AG6013): steps must be the same in each execution`,
      )
      return Promise.reject(this.#mismatch)
    }
    if (entry !== undefined && !(workspace && this.#isClean)) return this.#replay<T>(entry.value as unknown as Recorded)
    return workspace ? this.#changing(key, fn) : this.#run(key, fn, false)
  }

  async #replay<T>({ value, artifacts = [] }: Recorded): Promise<T> {
    for (const artifact of artifacts) await this.#options.ask({ op: 'artifact.keep', artifact })
    return value as T
  }

  #changing<T>(key: string, fn: () => T | Promise<T>): Promise<T> {
    const turn = this.#lastChange.then(() => this.#run(key, fn, true))
    this.#lastChange = turn.catch(() => null)
    return turn
  }

  async #run<T>(key: string, fn: () => T | Promise<T>, isChange: boolean): Promise<T> {
    const frame: Frame = { key, children: 0, artifacts: [] }
    const result = await this.#frames.run(frame, fn)
    const text = JSON.stringify(result ?? null) as string | undefined
    if (text === undefined) throw new AgentError('bad_step', `the value of the step ${key} is not JSON: it is a ${typeof result}`)
    const { artifacts } = frame
    const recorded: Recorded = { value: JSON.parse(text) as Json, ...(artifacts.length === 0 ? {} : { artifacts }) }
    const bytes = Buffer.byteLength(text)
    // The frame around the value counts too.
    if (Buffer.byteLength(JSON.stringify(recorded)) > MAX_PAYLOAD_BYTES - 256)
      throw new AgentError(
        'step_too_large',
        `the value of the step ${key} has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES} with what is recorded about it: store it with ctx.artifact.put and return its digest`,
      )
    const checkpoint = isChange ? await this.#checkpoint(key) : {}
    if (checkpoint !== null) {
      const value = { ...recorded, ...checkpoint } as unknown as Json
      await this.#options.ask({ op: 'journal.write', entry: { key, kind: isChange ? 'checkpoint' : 'step', value } })
    }
    // As a later execution would get it: not the Date, but its text.
    return recorded.value as T
  }

  /** null: it could not be stored, so the step is not recorded. */
  async #checkpoint(key: string): Promise<Pick<Recorded, 'workspace' | 'sequence'> | null> {
    const { folder, ask, warn } = this.#options
    const sequence = this.#sequence + 1
    try {
      mkdirSync(folder, { recursive: true })
      const stored = (await ask({ op: 'checkpoint', name: `agentctl/workspace-${sequence}.tar`, folder })) as ArtifactView
      this.#sequence = sequence
      return { workspace: stored.digest, sequence }
    } catch (error) {
      warn(`no checkpoint after the step ${key}, which would run again: ${error instanceof Error ? error.message : error}`)
      return null
    }
  }
}
