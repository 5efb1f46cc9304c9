/** A container that keeps dying is started again ever later, so that a broken image does not keep the engine busy. Pure: times are passed in. */

/** The engine's own steps for `unless-stopped` double from 100 ms; ours start at once because a first death is most often a kill. */
const FIRST_MS = 500
export const MAX_MS = 30_000
/** For our own parts: without them the whole project stands, and their images are not what is broken. */
export const MAX_OWN_MS = 2_000
/** Lived for so long, as with the engine's own restarts: the next death counts as the first again. */
const STABLE_MS = 10_000

interface History {
  deaths: number
  /** Unix ms; a start that was not seen is 0. */
  started: number
  died: number
  notBefore: number
}

export class Backoff {
  readonly #histories = new Map<string, History>()

  started(container: string, at: number): void {
    const history = this.#histories.get(container)
    if (history !== undefined) history.started = at
    else this.#histories.set(container, { deaths: 0, started: at, died: 0, notBefore: 0 })
  }

  died(container: string, at: number, max_ms: number = MAX_MS): void {
    const history = this.#histories.get(container) ?? { deaths: 0, started: 0, died: 0, notBefore: 0 }
    // A stream of events that was opened again tells the last second twice.
    if (at <= history.died) return
    const quiet = at - Math.max(history.started, history.died)
    const deaths = quiet >= STABLE_MS ? 1 : history.deaths + 1
    const pause = deaths === 1 ? 0 : Math.min(max_ms, FIRST_MS * 2 ** (deaths - 2))
    this.#histories.set(container, { ...history, deaths, died: at, notBefore: at + pause })
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
