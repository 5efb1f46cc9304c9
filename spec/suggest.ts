/** "Did you mean …?" */

/** Edits (insert, delete, replace, swap of neighbours) from one word to the other. */
export function distance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + cost)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (before[j - 2] ?? 0) + 1)
      next.push(best)
    }
    before = row
    row = next
  }
  return row[b.length] ?? 0
}

const fold = (word: string): string => word.toLowerCase().replaceAll(/[-_.\s]/g, '')

/** The nearest candidate that a typing error could have meant, or null. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  if (word.length > 64) return null
  let best: string | null = null
  // A third of the letters may be wrong; more is another word.
  let bound = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const candidate of [...candidates].toSorted()) {
    if (candidate === word) continue
    const found = fold(candidate) === fold(word) ? 0 : distance(word, candidate)
    if (found < bound) [best, bound] = [candidate, found]
  }
  return best
}

export function didYouMean(word: string, candidates: Iterable<string>): string | null {
  const found = nearest(word, candidates)
  return found === null ? null : `did you mean "${found}"?`
}

/** For help lines: `known agents: a, b`. */
export function known(what: string, names: readonly string[]): string {
  if (names.length === 0) return `no ${what} are declared`
  const shown = names.slice(0, 8).join(', ')
  return `declared ${what}: ${shown}${names.length > 8 ? ', …' : ''}`
}
