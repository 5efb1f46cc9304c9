/**
 * Back-pressure: what is refused before anything is written for it. Two bounds: how many unfinished tasks an agent may have, and how
 * full the broker's memory and the disk may be. The last fifth of the memory is for what goes on then: results, beats, retries.
 */
import { statfs } from 'node:fs/promises'
import type { Agent } from '../../spec/model.ts'
import type { Broker } from '../broker/port.ts'

/** Of maxmemory. */
const MEMORY_SHARE = 0.8
const MIN_FREE_BYTES = 536_870_912
const MIN_FREE_SHARE = 0.02
/** The numbers of a look are good for so long. */
export const LOOK_MS = 1_000
/** Before work is refused for want of room they are read again, but not more often than so. */
const AGAIN_MS = 20
/** What BullMQ keeps of a task besides input and result, measured with 0 bytes of either: 0.6 KiB. */
const TASK_BYTES = 1_024
/** What an unfinished task will need at its end, if its result is small. */
const END_BYTES = 512

export interface Need {
  readonly tasks: number
  /** Of input, as JSON. */
  readonly bytes: number
}
export type Needs = ReadonlyMap<string, Need>

export interface Refusal {
  readonly kind: 'queue' | 'room'
  readonly message: string
}

export interface AdmissionOptions {
  readonly broker: Broker
  /** On the disk that is watched; null: none is. */
  readonly stateDir: string | null
  readonly agent: (name: string) => Agent | null
  /** Tasks of the agent that have not ended. */
  readonly unfinished: (agent: string) => number
  readonly allUnfinished: () => number
  /** Tests. */
  readonly minFreeBytes?: number
}

interface Look {
  readonly at: number
  readonly used: number
  readonly max: number
  readonly free: number
  readonly minFree: number
}

export class Admission {
  readonly #options: AdmissionOptions
  #look: Look | null = null
  #looking: Promise<void> | null = null
  /** Bytes admitted and not yet written, and those that the last look has not seen. */
  #flying = 0
  #unseen = 0
  /** Tasks admitted and not yet counted as unfinished: on their way, or of a run that starts later. */
  readonly #coming = new Map<string, number>()

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /** Bytes of the broker's memory at the last look. */
  get memory(): { readonly used: number; readonly max: number } {
    return this.#look ?? { used: 0, max: 0 }
  }

  /** More than half of the memory is in use. */
  get isTight(): boolean {
    const { used, max } = this.memory
    return max > 0 && used > max / 2
  }

  /** Reads how full everything is. Whoever has nothing to do does not call it. */
  look(): Promise<void> {
    this.#looking ??= this.#read().finally(() => {
      this.#looking = null
    })
    return this.#looking
  }

  async #read(): Promise<void> {
    const { broker, stateDir, minFreeBytes } = this.#options
    this.#unseen = this.#flying
    const [memory, disk] = await Promise.all([broker.memory(), stateDir === null ? null : statfs(stateDir).catch(() => null)])
    this.#look = {
      at: Date.now(),
      ...memory,
      free: disk === null ? Number.POSITIVE_INFINITY : disk.bavail * disk.bsize,
      minFree: minFreeBytes ?? Math.max(disk === null ? 0 : disk.blocks * disk.bsize * MIN_FREE_SHARE, MIN_FREE_BYTES),
    }
  }

  /** null: it may come in. Then `written` and `arrived` are owed. */
  async ask(needs: Needs): Promise<Refusal | null> {
    if (this.#look === null || Date.now() - this.#look.at > LOOK_MS) await this.look()
    const refusal = this.askNow(needs)
    if (refusal?.kind !== 'room' || this.#look === null || Date.now() - this.#look.at < AGAIN_MS) return refusal
    // What is assumed between two looks is more than what is needed.
    await this.look()
    return this.askNow(needs)
  }

  /** With the numbers of the last look: for what may not wait. */
  askNow(needs: Needs): Refusal | null {
    const refusal = this.#queues(needs) ?? this.#room(needs)
    if (refusal !== null) return refusal
    this.expect(needs)
    this.#flying += bytesOf(needs)
    this.#unseen += bytesOf(needs)
    return null
  }

  /** It is in the broker, or will never be. */
  written(needs: Needs): void {
    this.#flying -= bytesOf(needs)
  }

  /** They are in their queues, or will never be. */
  arrived(needs: Needs): void {
    for (const [agent, { tasks }] of needs) {
      const left = (this.#coming.get(agent) ?? 0) - tasks
      if (left > 0) this.#coming.set(agent, left)
      else this.#coming.delete(agent)
    }
  }

  /** Admitted by a gateway before this one, and not in a queue yet. */
  expect(needs: Needs): void {
    for (const [agent, { tasks }] of needs) this.#coming.set(agent, (this.#coming.get(agent) ?? 0) + tasks)
  }

  #queues(needs: Needs): Refusal | null {
    for (const [agent, { tasks }] of needs) {
      const bound = this.#bound(agent)
      const waiting = this.#waiting(agent)
      if (waiting + tasks <= bound) continue
      const more = tasks === 1 ? 'one more is' : `${tasks} more are`
      return { kind: 'queue', message: `agent "${agent}" has ${waiting} unfinished tasks; ${more} over its max_queue of ${bound}` }
    }
    return null
  }

  #bound(agent: string): number {
    return this.#options.agent(agent)?.work?.max_queue ?? Number.POSITIVE_INFINITY
  }

  #waiting(agent: string): number {
    return this.#options.unfinished(agent) + (this.#coming.get(agent) ?? 0)
  }

  /** Is there room in the queue for so many of a run that is in already? `never`: there cannot be. */
  fits(agent: string, tasks: number): 'now' | 'later' | 'never' {
    const bound = this.#bound(agent)
    if (tasks > bound) return 'never'
    return this.#waiting(agent) + tasks <= bound ? 'now' : 'later'
  }

  #room(needs: Needs): Refusal | null {
    const look = this.#look
    if (look === null) return null
    const { used, max, free, minFree } = look
    if (free < minFree)
      return { kind: 'room', message: `the disk of the state volume has ${mib(free)} free; work is taken from ${mib(minFree)} on` }
    if (max === 0) return null
    const floor = MEMORY_SHARE * max
    const room = floor - used - this.#unseen - END_BYTES * this.#options.allUnfinished()
    const bytes = bytesOf(needs)
    if (used < floor && bytes <= room) return null
    return {
      kind: 'room',
      message: `the broker has ${mib(used)} of ${mib(max)} in use and takes work up to ${mib(floor)}; this needs about ${mib(bytes)}, ${mib(Math.max(0, room))} are left`,
    }
  }
}

/** Inputs are held twice until all are queued: in the run's record and in the queues. */
const bytesOf = (needs: Needs): number => [...needs.values()].reduce((sum, { tasks, bytes }) => sum + 2 * bytes + tasks * TASK_BYTES, 0)
const mib = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MiB`
