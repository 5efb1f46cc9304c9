/**
 * Proves the posture of replicas: before their first task, when the engine tells of a change, and slowly otherwise. One that is not as it
 * was declared gets no more work and is made anew; the gateway gives work to none that was not proved.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Proof, ReplicaView } from '../../spec/protocol.ts'
import { type DesiredContainer, desired } from '../desired.ts'
import { type Fields, fields, text, texts } from '../fields.ts'
import { parseRecord } from '../lock.ts'
import { containerName, LABEL } from '../names.ts'
import type { ContainerRuntime, EngineEvent } from '../ports.ts'
import { compare, renderDifference } from '../posture/controls.ts'
import { compareProbe } from '../posture/probe.ts'
import { effectiveOf, Images, imageVolumes, probe } from '../posture/prove.ts'
import type { ProjectRecord } from '../record.ts'
import { SECCOMP } from '../seccomp.ts'

/** All are looked at again after so long; with more than sixty replicas one a second, as each look costs the engine an exec. */
const SLOW_MS = 60_000
const PER_REPLICA_MS = 1_000
/** The gateway's list: who was heard of without a proof (a gateway that has just started knows none). */
const ASK_MS = 1_000
/** While containers are being started a proof would only slow the start; a project's first tasks wait for the first proof anyway. */
const QUIET_MS = 500
/** Something may start all the time, and a replica that died is to work again within five seconds. */
const MOST_QUIET_MS = 2_000
const PARALLEL = 2
/** Made anew at once, then after 2 s, 4 s, … while it stays in quarantine. */
const FIRST_PAUSE_MS = 2_000
const MAX_PAUSE_MS = 60_000
const RETRY_MS = 1_000

type Runtime = Pick<ContainerRuntime, 'containers' | 'inspect' | 'image' | 'exec' | 'join' | 'remove'>

export interface ProvingOptions {
  readonly runtime: Runtime
  readonly project: string
  /** Text of the record; null: there is none yet. */
  readonly record: () => Promise<string | null>
  readonly control: {
    replicas(options: { readonly unproved: true }): Promise<readonly ReplicaView[]>
    prove(proofs: readonly Proof[]): Promise<void>
  }
  /** Runs it under the project lock; false: a verb has it. */
  readonly locked: (act: () => Promise<void>) => Promise<boolean>
  readonly log: (line: { readonly [key: string]: unknown }) => void
  readonly signal: AbortSignal
  readonly quiet_ms?: number
  readonly slow_ms?: number
}

interface Aim {
  readonly text: string
  readonly record: ProjectRecord
  readonly wanted: ReadonlyMap<string, DesiredContainer>
}
interface Trouble {
  readonly times: number
  readonly until: number
}

export class Proving {
  readonly #options: ProvingOptions
  readonly #images: Images
  /** container → the start that was proved. */
  readonly #proved = new Map<string, string>()
  readonly #names = new Map<string, string>()
  readonly #queue = new Set<string>()
  readonly #trouble = new Map<string, Trouble>()
  readonly #told = new Map<string, string>()
  #aimed: Aim | null = null
  #quietFrom = 0
  #queuedSince = 0
  #isUrgent = false
  #lookedAt = 0
  #wake: () => void = () => undefined

  constructor(options: ProvingOptions) {
    this.#options = options
    this.#images = new Images(options.runtime)
  }

  event({ action, name, labels }: EngineEvent): void {
    const now = Date.now()
    if (action === 'create' || action === 'start') this.#quietFrom = now + (this.#options.quiet_ms ?? QUIET_MS)
    if (labels[LABEL.kind] !== 'agent' || labels[LABEL.replica] === '0') return
    if (action === 'die' || action === 'destroy') {
      this.#proved.delete(name)
      const identity = { agent: labels[LABEL.agent] ?? '', replica: Number(labels[LABEL.replica]) }
      void this.#options.control.prove([{ ...identity, proved: false }]).catch(() => undefined)
    } else if (action === 'start') this.#add(name)
    else if (action === 'update' || action === 'rename') this.#changed(name)
  }

  /** Some container of the engine's joined or left a network. */
  network(container: string): void {
    const name = this.#names.get(container)
    if (name !== undefined) this.#changed(name)
  }

  /** What has been proved is another now: that does not wait. One that starts may, as it gets no work before. */
  #changed(name: string): void {
    this.#isUrgent = true
    this.#add(name)
  }

  #add(name: string): void {
    this.#queue.add(name)
    this.#wake()
  }

  async run(): Promise<void> {
    const { signal, log } = this.#options
    while (!signal.aborted) {
      try {
        await this.turn()
      } catch (error) {
        if (!signal.aborted) log({ event: 'proving failed', message: message(error) })
      }
      const woken = new Promise<void>((resolve) => (this.#wake = resolve))
      const due = this.#queue.size > 0 ? Math.max(50, this.#quietFrom - Date.now()) : ASK_MS
      await Promise.race([sleep(Math.min(due, ASK_MS), undefined, { signal }).catch(() => undefined), woken])
      await sleep(20, undefined, { signal }).catch(() => undefined)
    }
  }

  /** One look; `run` makes them. */
  async turn(): Promise<void> {
    const { project, runtime, signal } = this.#options
    const aim = await this.#aim()
    if (aim === null || Object.keys(aim.record.project.agents).length === 0) return
    const now = Date.now()
    const views = await this.#options.control.replicas({ unproved: true }).catch(() => [])
    const { wanted } = aim
    const agents = [...wanted.values()].filter((want) => want.spec.kind === 'agent')
    const unproved = views.filter((view) => view.unproved === true && wanted.has(containerName(project, view.agent, view.replica)))
    if (unproved.length > 0) await this.#again(unproved)
    if (now - this.#lookedAt > Math.max(this.#options.slow_ms ?? SLOW_MS, agents.length * PER_REPLICA_MS)) {
      this.#lookedAt = now
      for (const { name, status } of await runtime.containers(project, signal)) {
        const want = wanted.get(name)
        if (status !== 'running' || want === undefined) continue
        if (want.spec.kind === 'agent') this.#queue.add(name)
        else await this.#tell(want)
      }
    }
    // Not while others start, but not for ever: something may start all the time.
    if (!this.#isUrgent && now < this.#quietFrom && now < this.#firstQueued(now) + MOST_QUIET_MS) return
    this.#queuedSince = 0
    this.#isUrgent = false
    const due = [...this.#queue].filter((name) => (this.#trouble.get(name)?.until ?? 0) <= now)
    for (const name of due) this.#queue.delete(name)
    const next = due.values()
    const work = async (): Promise<void> => {
      for (const name of next) await this.#prove(name, wanted.get(name), aim.record)
    }
    await Promise.all(Array.from({ length: PARALLEL }, work))
  }

  /** Heard of without a proof: told again when it is the very container that was proved, else it is proved. */
  async #again(views: readonly ReplicaView[]): Promise<void> {
    const { project, runtime, signal, control } = this.#options
    const looks = views.map(async ({ agent, replica }): Promise<readonly Proof[]> => {
      const name = containerName(project, agent, replica)
      const proved = this.#proved.get(name)
      const inspect = proved === undefined ? {} : fields(await runtime.inspect(name, signal).catch(() => null))
      if (proved !== undefined && proved === startOf(inspect)) return [{ agent, replica, proved: true }]
      this.#queue.add(name)
      return []
    })
    const proofs = (await Promise.all(looks)).flat()
    if (proofs.length > 0) await control.prove(proofs)
  }

  /** What is to be, made anew only when the record has changed. */
  async #aim(): Promise<Aim | null> {
    const text = await this.#options.record()
    if (text === null) return null
    if (this.#aimed?.text === text) return this.#aimed
    const record = parseRecord(this.#options.project, text)
    const wanted = new Map(desired(record, SECCOMP).containers.map((want) => [want.spec.name, want]))
    this.#aimed = { text, record, wanted }
    return this.#aimed
  }

  #firstQueued(now: number): number {
    if (this.#queue.size === 0) return now
    if (this.#queuedSince === 0) this.#queuedSince = now
    return this.#queuedSince
  }

  async #prove(name: string, want: DesiredContainer | undefined, record: ProjectRecord): Promise<void> {
    if (want === undefined || want.stopped) return
    const { runtime, signal, log, control } = this.#options
    const begin = performance.now()
    try {
      const effective = await effectiveOf(runtime, this.#images, name, signal)
      const { inspect } = effective
      const state = fields(inspect['State'])
      // A verb is about to replace it, or it is down: there is nothing to prove.
      if (state['Running'] !== true || texts(fields(inspect['Config'])['Labels'])[LABEL.configHash] !== want.hash) return
      const start = startOf(inspect)
      this.#names.set(text(inspect['Id']), name)
      const told = compare(want.spec, effective)
      const inspected = performance.now()
      const found =
        told.length > 0 ? told : compareProbe(want.spec, await probe(runtime, want.spec, record.images, signal), imageVolumes(effective))
      if (found.length > 0) return await this.#quarantine(want, found.map(renderDifference))
      const isNew = this.#proved.get(name) !== start
      this.#proved.set(name, start)
      this.#told.delete(name)
      if (!isNew) return
      const ms = { inspect_ms: Math.round(inspected - begin), probe_ms: Math.round(performance.now() - inspected) }
      log({ event: 'posture proved', container: name, ...ms })
      await control.prove([proofOf(want, true)]).catch(() => undefined)
    } catch (error) {
      if (signal.aborted) return
      // It went while it was looked at, or cannot be read: without a proof it gets no work.
      this.#pause(name, RETRY_MS)
      this.#queue.add(name)
      this.#note(name, { event: 'posture not proved', container: name, message: message(error) })
    }
  }

  /** First no more work, then away with it: the repair that follows makes it as it was declared. */
  async #quarantine(want: DesiredContainer, differences: readonly string[]): Promise<void> {
    const { name } = want.spec
    const { control, log, locked, runtime, signal } = this.#options
    this.#proved.delete(name)
    await control.prove([proofOf(want, false)]).catch(() => undefined)
    this.#note(name, { event: 'posture differs', code: 'AG3006', container: name, differences, action: 'quarantined' })
    const times = this.#trouble.get(name)?.times ?? 0
    const removed = await locked(async () => {
      await runtime.remove(name, signal)
      log({ event: 'posture differs', code: 'AG3006', container: name, differences, action: 'recreate' })
    })
    if (removed) {
      this.#told.delete(name)
      const pause = times === 0 ? 0 : Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (times - 1))
      this.#trouble.set(name, { times: times + 1, until: Date.now() + pause })
      // Well for long enough: the next trouble is a new one.
      setTimeout(() => this.#trouble.delete(name), MAX_PAUSE_MS * 2).unref()
    } else {
      this.#pause(name, RETRY_MS)
      this.#queue.add(name)
    }
  }

  #pause(name: string, ms: number): void {
    this.#trouble.set(name, { times: this.#trouble.get(name)?.times ?? 0, until: Date.now() + ms })
  }

  /** A service or a part of ours: told, and left to people. It may serve others, and is not what runs an attacker's code. */
  async #tell(want: DesiredContainer): Promise<void> {
    const { runtime, signal } = this.#options
    const { name } = want.spec
    const effective = await effectiveOf(runtime, this.#images, name, signal).catch(() => null)
    if (effective === null || texts(fields(effective.inspect['Config'])['Labels'])[LABEL.configHash] !== want.hash) return
    const differences = compare(want.spec, effective).map(renderDifference)
    if (differences.length === 0) this.#told.delete(name)
    else this.#note(name, { event: 'posture differs', code: 'AG3006', container: name, differences, action: 'none' })
  }

  /** Once for as long as it stays the same. */
  #note(name: string, line: { readonly [key: string]: unknown }): void {
    const whole = JSON.stringify(line)
    if (this.#told.get(name) === whole) return
    this.#told.set(name, whole)
    this.#options.log(line)
  }
}

/** A container that is started again has another posture to prove: the engine may have been changed. */
const startOf = (inspect: Fields): string => `${text(inspect['Id'])} ${text(fields(inspect['State'])['StartedAt'])}`

const proofOf = ({ spec, replica }: DesiredContainer, proved: boolean): Proof => ({
  agent: spec.labels[LABEL.agent] ?? '',
  replica,
  proved,
})
const message = (error: unknown): string => (error instanceof Error ? error.message : String(error))
