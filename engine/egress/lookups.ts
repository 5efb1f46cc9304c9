/** Look-ups at once: each holds one of a few threads for as long as a name's servers like, and no agent may hold them all. */
import { Counts } from './live.ts'
import type { Net } from './net.ts'
import { Refused } from './refused.ts'
import type { Client } from './segments.ts'

/** Of different names, of one replica; egress has 32 threads. */
export const MAX_LOOKUPS = 8

export class Lookups {
  readonly #net: Net
  readonly #counts = new Counts(MAX_LOOKUPS)
  readonly #open = new Map<string, Promise<readonly string[]>>()

  constructor(net: Net) {
    this.#net = net
  }

  /** Who asks for a name that is being asked for gets the same answer; each looks at it by its own rules. */
  async resolve(client: Client, host: string): Promise<readonly string[]> {
    const before = this.#open.get(host)
    if (before !== undefined) return await before
    if (!this.#counts.take(client))
      throw new Refused(429, 'limit', `denied: this replica waits for the addresses of ${MAX_LOOKUPS} names, which is the most`)
    const answers = this.#net.resolve(host).finally(() => {
      this.#open.delete(host)
      this.#counts.give(client)
    })
    this.#open.set(host, answers)
    return await answers
  }
}
