/** What is open, and for whom: how much each replica may have at once, and what must close when its policy changes. */
import type { Ask } from './decide.ts'
import type { Client } from './segments.ts'

/** At once, of one replica: tunnels and requests that are answered. A package manager opens some dozen. */
export const MAX_OPEN = 256
/** Connections of one replica, idle ones too. */
export const MAX_CONNECTIONS = 512

export interface Live {
  readonly client: Client
  readonly ask: Ask
  /** Where it leads; null while that is being found out. */
  address: string | null
  /** Ends it at once. */
  readonly close: () => void
}

export const keyOf = ({ agent, replica }: Client): string => `${agent}/${replica}`

export class Counts {
  readonly #counts = new Map<string, number>()
  readonly #most: number

  constructor(most: number) {
    this.#most = most
  }

  /** false: it has as many as it may have. */
  take(client: Client): boolean {
    const count = this.#counts.get(keyOf(client)) ?? 0
    if (count >= this.#most) return false
    this.#counts.set(keyOf(client), count + 1)
    return true
  }

  give(client: Client): void {
    const count = (this.#counts.get(keyOf(client)) ?? 1) - 1
    if (count === 0) this.#counts.delete(keyOf(client))
    else this.#counts.set(keyOf(client), count)
  }
}
