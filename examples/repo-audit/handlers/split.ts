/** Cuts the walk into parts. Depends on the tree and the wanted size alone, never on how many workers there are. */
import type { RawPath } from './paths.ts'
import { toWire } from './paths.ts'
import type { Entry } from './walk.ts'

/** One part as it travels in a task's input: a range of the walk, in `toWire` form, and how much to expect. */
export interface Part {
  readonly index: number
  readonly from: string | null
  readonly until: string | null
  readonly entries: number
  readonly bytes: number
}

/** Opening and closing a file costs about as much as reading this many bytes of it. */
const ENTRY_WEIGHT = 4096
/** Each part is one task; their descriptions and keys stay small however large the tree is. */
export const MAX_PARTS = 60

interface Piece {
  from: RawPath | null
  entries: number
  bytes: number
}
const weight = (piece: Piece): number => piece.bytes + piece.entries * ENTRY_WEIGHT

function* pieces(entries: Iterable<Entry>, target: number): Generator<Piece> {
  let open: Piece = { from: null, entries: 0, bytes: 0 }
  for (const entry of entries) {
    if (open.entries > 0 && weight(open) + entry.size + ENTRY_WEIGHT > target) {
      yield open
      open = { from: entry.path, entries: 0, bytes: 0 }
    }
    open.entries += 1
    open.bytes += entry.size
  }
  yield open
}

/** Joins neighbours until there are at most MAX_PARTS, keeping them about equally heavy. */
function joined(list: readonly Piece[]): readonly Piece[] {
  if (list.length <= MAX_PARTS) return list
  // Half of the parts for the even share, half for pieces that are heavier than a share and stand alone.
  const share = list.reduce((sum, piece) => sum + weight(piece), 0) / (MAX_PARTS / 2)
  const result: Piece[] = []
  for (const piece of list) {
    const last = result.at(-1)
    if (last !== undefined && weight(last) + weight(piece) <= share) {
      last.entries += piece.entries
      last.bytes += piece.bytes
    } else result.push({ ...piece })
  }
  return result
}

export function split(entries: Iterable<Entry>, target: number): readonly Part[] {
  const list = joined([...pieces(entries, target)])
  return list.map((piece, index) => {
    const next = list[index + 1]
    return {
      index,
      from: piece.from === null ? null : toWire(piece.from),
      until: next === undefined ? null : toWire(next.from ?? ''),
      entries: piece.entries,
      bytes: piece.bytes,
    }
  })
}
