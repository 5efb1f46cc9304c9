/** Dead letters whose run has left the broker, as the archive has them. */
import type { FailedCursor, FailedTask } from '../broker/port.ts'
import type { Archive, ArchiveEntry, Letters } from './archive.ts'

export interface LetterQuery {
  /** At most so many are needed. */
  readonly limit: number
  readonly after: FailedCursor | undefined
  readonly agent: string | null
  /** The broker has them (yet). */
  readonly inBroker: ReadonlySet<string>
}

/** Newest first, as the broker lists its own; those of the same ms by id, from its end. */
export const newestFirst = (a: FailedCursor, b: FailedCursor): number =>
  b.ended_ms - a.ended_ms || (a.id === b.id ? 0 : a.id < b.id ? 1 : -1)

export async function archivedLetters(archive: Archive, query: LetterQuery): Promise<readonly FailedTask[]> {
  const { limit, after } = query
  let found: FailedTask[] = []
  for (const { run, letters } of candidates(archive, query)) {
    const last = found[limit - 1]
    if (last !== undefined && last.ended_ms > letters.newest_ms) break
    let isBarren = true
    for await (const letter of archive.letters(run)) {
      isBarren = false
      if ((after === undefined || newestFirst(after, letter) < 0) && (query.agent === null || query.agent === letter.queue))
        found.push(letter)
      // A run may have any number, with their inputs.
      if (found.length > 4 * limit) found = found.sort(newestFirst).slice(0, limit)
    }
    if (isBarren) archive.dropped.all(run)
    found = found.sort(newestFirst).slice(0, limit)
  }
  return found
}

/** Files that may have some of the page, those with the newest first. */
function candidates(archive: Archive, { after, agent, inBroker }: LetterQuery): readonly (ArchiveEntry & { readonly letters: Letters })[] {
  return [...archive.entries()]
    .flatMap((entry) => (entry.letters === undefined ? [] : [{ ...entry, letters: entry.letters }]))
    .filter(({ run, letters }) => !inBroker.has(run) && letters.count > 0 && !archive.dropped.areAll(run))
    .filter(({ letters }) => agent === null || letters.agents.includes(agent))
    .filter(({ letters }) => after === undefined || letters.oldest_ms <= after.ended_ms)
    .sort((a, b) => b.letters.newest_ms - a.letters.newest_ms)
}
