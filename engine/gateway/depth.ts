/** How deep JSON from an agent may nest: `JSON.parse` takes any depth, what is done with it later (`JSON.stringify`) ends at the stack. */

export const MAX_NESTING = 128

/** Level by level, not by recursion: the value may be of any depth. */
export function isTooDeep(value: unknown): boolean {
  let level = [value].filter(isNested)
  for (let depth = 0; level.length > 0; depth++) {
    if (depth === MAX_NESTING) return true
    level = level.flatMap((it) => Object.values(it).filter(isNested))
  }
  return false
}

const isNested = (value: unknown): value is object => typeof value === 'object' && value !== null
