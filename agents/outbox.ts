/** Settlements that the gateway has not acknowledged yet, as JSON text. What was sent and not answered comes back, in front. */
import type { WorkError } from '../spec/protocol.ts'

export interface Entry {
  readonly lease: string
  readonly text: string
  readonly completed: boolean
  readonly bytes: number
  /** Must travel alone: a request with it was refused. */
  readonly alone: boolean
}

export const completedEntry = (lease: string, json: string): Entry =>
  entry(lease, `{"lease":${JSON.stringify(lease)},"status":"completed","result":${json}}`, true)
export const failedEntry = (lease: string, error: WorkError): Entry =>
  entry(lease, JSON.stringify({ lease, status: 'failed', error }), false)
const entry = (lease: string, text: string, completed: boolean): Entry => ({ lease, text, completed, bytes: text.length * 2, alone: false })

export class Outbox {
  #entries: Entry[] = []

  get size(): number {
    return this.#entries.length
  }

  /** Of all that waits. */
  get leases(): readonly string[] {
    return this.#entries.map(({ lease }) => lease)
  }

  push(item: Entry): void {
    this.#entries.push(item)
  }

  putBack(entries: readonly Entry[]): void {
    this.#entries = [...entries, ...this.#entries]
  }

  /** The next ones, at most `maxCount`, that fit into a request of `maxBytes`; at least one when there is one. */
  take(maxBytes: number, maxCount: number = Number.POSITIVE_INFINITY): readonly Entry[] {
    let bytes = 0
    let count = 0
    for (const item of this.#entries) {
      if (count === maxCount || (count > 0 && (item.alone || bytes + item.bytes > maxBytes))) break
      bytes += item.bytes
      count += 1
      if (item.alone) break
    }
    return this.#entries.splice(0, count)
  }
}
