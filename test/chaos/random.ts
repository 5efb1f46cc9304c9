/** All chance of the chaos suite comes from one printed seed. */
export interface Random {
  readonly seed: number
  /** [0, 1) */
  next(): number
  /** A whole number from `from` to `to`, both included. */
  whole(from: number, to: number): number
  chance(probability: number): boolean
  pick<T>(from: readonly T[]): T
  /** A stream of its own: what one part draws does not change what another gets. */
  fork(name: string): Random
}

/** mulberry32: 32 bits of state are enough to repeat a run by its seed. */
export function random(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
  const whole = (from: number, to: number): number => from + Math.floor(next() * (to - from + 1))
  return {
    seed,
    next,
    whole,
    chance: (probability) => next() < probability,
    pick: (from) => {
      const picked = from[whole(0, from.length - 1)]
      if (picked === undefined) throw new Error('nothing to pick from')
      return picked
    },
    fork: (name) => random([...name].reduce((hash, letter) => (Math.imul(hash, 31) + (letter.codePointAt(0) ?? 0)) >>> 0, seed)),
  }
}

/** SEED of the environment, else one that the caller prints. */
export const seedOf = (environment: { readonly [name: string]: string | undefined }): number =>
  environment['SEED'] === undefined ? Date.now() % 1_000_000_007 : Number(environment['SEED'])
