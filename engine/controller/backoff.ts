/** A container that keeps dying is started again ever later, so that a broken image does not keep the engine busy. Pure but for the clock that is passed in. */

/** The engine's own steps for `unless-stopped` double from 100 ms; ours start at once because a first death is most often a kill. */
const FIRST_MS = 500
const MAX_MS = 30_000
/** Up for this long: the next death counts as the first again. */
const STABLE_MS = 30_000

interface History {
  deaths: number
  last: number
  notBefore: number
}

export class Backoff {
  readonly #histories = new Map<string, History>()

  /** A death was seen. */
  died(container: string, now: number): void {
    const history = this.#histories.get(container)
    const deaths = history === undefined || now - history.last > STABLE_MS ? 1 : history.deaths + 1
    this.#histories.set(container, {
      deaths,
      last: now,
      notBefore: deaths === 1 ? now : now + Math.min(MAX_MS, FIRST_MS * 2 ** (deaths - 2)),
    })
  }

  isHeld(container: string, now: number): boolean {
    return (this.#histories.get(container)?.notBefore ?? 0) > now
  }

  /** When the next held container is due; null: none is held. */
  next(now: number): number | null {
    const times = [...this.#histories.values()].map((history) => history.notBefore).filter((time) => time > now)
    return times.length === 0 ? null : Math.min(...times)
  }
}
