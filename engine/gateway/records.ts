/**
 * What of runs outlives them, and what outlives the broker: archive, witness, retention, and the looks at how full everything is. With
 * no folder to write to, all stays in the broker and a loss of its data cannot be told.
 */
import { access, constants, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Agent } from '../../spec/model.ts'
import type { Broker } from '../broker/port.ts'
import { Admission, LOOK_MS } from './admission.ts'
import { Archive, ARCHIVE_FOLDER, type ArchiveLimits } from './archive.ts'
import { Archiver } from './archiver.ts'
import { reckon } from './loss.ts'
import { Retention, type RetentionLimits } from './retention.ts'
import { type Loss, Witness } from './witness.ts'

/** Open runs in which nothing seems to happen: is the broker's data still there? In looks. */
const QUIET_LOOKS = 5

export interface RecordsOptions {
  readonly broker: Broker
  readonly stateDir: string
  /** Name of the file of the witness. */
  readonly witness?: string
  readonly agent: (name: string) => Agent | null
  readonly unfinished: (agent: string) => number
  readonly allUnfinished: () => number
  /** Whether anything has happened since the last time, and how many runs are open. */
  readonly activity: () => { readonly touched: boolean; readonly open: number }
  readonly flushEvents: () => Promise<void>
  readonly log: (message: string) => void
  readonly limits?: { readonly archive?: ArchiveLimits; readonly retention?: RetentionLimits; readonly minFreeBytes?: number }
}

export class Records {
  readonly archive: Archive | null
  readonly witness: Witness
  readonly admission: Admission
  readonly retention: Retention
  readonly archiver: Archiver
  readonly #options: RecordsOptions
  readonly #timer: NodeJS.Timeout
  #looks = 0
  #busy = false
  #reckoning: Promise<Loss | null> | null = null
  /** Data was found missing while everything ran: what is in memory must be read again. */
  onLoss: () => Promise<void> = async () => {}

  private constructor(options: RecordsOptions, archive: Archive | null, witness: Witness) {
    const { broker, limits = {}, log } = options
    this.#options = options
    this.archive = archive
    this.witness = witness
    this.admission = new Admission({
      ...options,
      stateDir: archive === null ? null : options.stateDir,
      ...(limits.minFreeBytes === undefined ? {} : { minFreeBytes: limits.minFreeBytes }),
    })
    this.retention = new Retention({
      broker,
      log,
      memory: () => this.admission.memory,
      ...(limits.retention === undefined ? {} : { limits: limits.retention }),
    })
    this.archiver = new Archiver({ broker, archive, retention: this.retention, witness, flushEvents: options.flushEvents, log })
    witness.onBehind = () => void this.#lookForLoss()
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
  }

  static async open(options: RecordsOptions): Promise<Records> {
    const { stateDir, log, limits } = options
    // Not recursive: where nothing is mounted, nothing is made.
    for (const folder of [stateDir, join(stateDir, ARCHIVE_FOLDER)]) await mkdir(folder, { mode: 0o700 }).catch(() => {})
    const writable = await access(join(stateDir, ARCHIVE_FOLDER), constants.W_OK).then(
      () => true,
      () => false,
    )
    if (!writable) log(`${stateDir} cannot be written: finished runs stay in the broker, and a loss of its data will not be noticed`)
    const archive = writable ? await Archive.open(stateDir, log, limits?.archive) : null
    return new Records(options, archive, await Witness.open(writable ? stateDir : null, log, options.witness))
  }

  get loss(): Loss | null {
    return this.witness.loss
  }

  /** null: the broker has all that it had. */
  reckon(): Promise<Loss | null> {
    const { broker, log } = this.#options
    this.#reckoning ??= reckon({ broker, witness: this.witness, archive: this.archive, log }).finally(() => {
      this.#reckoning = null
    })
    return this.#reckoning
  }

  async #lookForLoss(): Promise<void> {
    try {
      if ((await this.reckon()) !== null) await this.onLoss()
    } catch (error) {
      this.#options.log(`looking for lost data: ${String(error)}`)
    }
  }

  /** Once a second; it costs something only while something happens. */
  async #look(): Promise<void> {
    const { broker, activity } = this.#options
    if (this.#busy || !broker.connected) return
    const { touched, open } = activity()
    this.archiver.look(!touched || this.admission.isTight)
    this.#looks = touched ? 0 : this.#looks + 1
    if (!touched && (open === 0 || this.#looks % QUIET_LOOKS !== 0)) return
    this.#busy = true
    try {
      await this.admission.look()
      await this.retention.prune(true)
      if (this.witness.isOn && this.witness.instance !== null) this.witness.mark(await broker.countWrite())
    } catch {
      // The broker went away, or is full: the next look tells more.
    } finally {
      this.#busy = false
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.archiver.close()
    await this.witness.close()
  }
}
