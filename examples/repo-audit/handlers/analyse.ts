/** Analyses one part of a tree: a range of its sorted walk. */
import { setImmediate as breathe } from 'node:timers/promises'
import { UNREADABLE } from './languages.ts'
import { fromWire, type RawPath, rawBytes, shown } from './paths.ts'
import { scanFile } from './scan.ts'
import type { Part } from './split.ts'
import { EMPTY, merge, ofFile, type Summary } from './summary.ts'
import { type Entry, walk } from './walk.ts'

/** After so many bytes or files the task lets its signal and its messages through. */
const BREATH_BYTES = 4_194_304
const BREATH_ENTRIES = 100

function ofEntry(root: string, entry: Entry): Summary {
  if (entry.kind === 'symlink') return { ...EMPTY, symlinks: 1 }
  if (entry.kind === 'special') return { ...EMPTY, special: 1 }
  if (entry.kind === 'excluded') return { ...EMPTY, excluded: 1 }
  const unreadable = { ...EMPTY, unreadable: { count: 1, paths: [shown(entry.path) || '.'] } }
  if (entry.kind === 'unreadable') return unreadable
  try {
    return ofFile(entry.path, scanFile(Buffer.concat([Buffer.from(`${root}/`), rawBytes(entry.path)]), entry.path))
  } catch {
    return { ...unreadable, files: 1, languages: { [UNREADABLE]: { files: 1, lines: 0, bytes: 0 } } }
  }
}

export interface Analysis {
  readonly entries: number
  readonly summary: Summary
}

export async function analyse(
  root: string,
  part: Pick<Part, 'from' | 'until'>,
  options: { readonly exclude: readonly string[]; readonly signal?: AbortSignal },
): Promise<Analysis> {
  const raw = (wire: string | null): RawPath | null => (wire === null ? null : fromWire(wire))
  let summary = EMPTY
  let entries = 0
  let breath = 0
  for (const entry of walk(root, { exclude: options.exclude, range: { from: raw(part.from), until: raw(part.until) } })) {
    summary = merge(summary, ofEntry(root, entry))
    entries += 1
    breath += entry.size / BREATH_BYTES + 1 / BREATH_ENTRIES
    if (breath >= 1) {
      breath = 0
      await breathe()
      options.signal?.throwIfAborted()
    }
  }
  return { entries, summary }
}
