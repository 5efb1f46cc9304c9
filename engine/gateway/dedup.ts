/** Submits with one key make one run. The key is written in the transaction that makes the run: no kill leaves a key without its run. */
import { createHash } from 'node:crypto'
import type { Broker } from '../broker/port.ts'

/** A caller's key may be long, or say what others should not read in the broker. */
export const dedupHash = (key: string): string => createHash('sha256').update(key).digest('hex').slice(0, 32)

/** The run that a submit with this key is to be given; null: there is none. A key that outlived its run (data was lost) names nothing. */
export async function dedupRun(broker: Broker, key: string, isOpen: (run: string) => boolean): Promise<string | null> {
  const known = await broker.dedupRun(key)
  return known !== null && (known.expires || isOpen(known.run)) ? known.run : null
}

/** One after the other for each key; different keys do not wait for each other. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>()

  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve()
    const mine = before.then(work, work)
    this.#last.set(key, mine)
    try {
      return await mine
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    }
  }
}
