/** The sorted walk of a tree. Symbolic links are never followed, special files never opened; folders that cannot be read are entries. */
import { lstatSync, readdirSync } from 'node:fs'
import { type RawPath, rawBytes, walkKey } from './paths.ts'

export interface Entry {
  readonly path: RawPath
  readonly kind: 'file' | 'symlink' | 'special' | 'unreadable' | 'excluded'
  readonly size: number
}

/** A piece of the walk, by keys of paths: `from` is in it, `until` is the first that is not. null: open. */
export interface Range {
  readonly from: RawPath | null
  readonly until: RawPath | null
}
export const WHOLE: Range = { from: null, until: null }

interface Walk {
  readonly root: string
  readonly exclude: ReadonlySet<string>
  readonly from: string | null
  readonly until: string | null
}

const path = (root: string, relative: RawPath): Buffer =>
  relative === '' ? Buffer.from(root) : Buffer.concat([Buffer.from(`${root}/`), rawBytes(relative)])

function names(root: string, folder: RawPath): string[] | null {
  try {
    return readdirSync(path(root, folder), { encoding: 'buffer' })
      .map((name) => name.toString('latin1'))
      .sort() // one character per byte: this is byte order
  } catch {
    return null
  }
}

function entryOf(root: string, relative: RawPath): Entry | 'folder' {
  try {
    const stat = lstatSync(path(root, relative))
    if (stat.isDirectory()) return 'folder'
    return { path: relative, kind: stat.isFile() ? 'file' : stat.isSymbolicLink() ? 'symlink' : 'special', size: stat.size }
  } catch {
    return { path: relative, kind: 'unreadable', size: 0 }
  }
}

function* folder(walk: Walk, relative: RawPath): Generator<Entry> {
  const list = names(walk.root, relative)
  if (list === null) {
    yield { path: relative, kind: 'unreadable', size: 0 }
    return
  }
  for (const name of list) {
    const child = relative === '' ? name : `${relative}/${name}`
    const key = walkKey(child)
    if (walk.until !== null && key >= walk.until) return
    // Neither the child nor, were it a folder, anything below it is in the range.
    if (walk.from !== null && key < walk.from && !walk.from.startsWith(`${key}\0`)) continue
    const entry = entryOf(walk.root, child)
    if (entry !== 'folder') yield entry
    else if (walk.exclude.has(name)) yield { path: child, kind: 'excluded', size: 0 }
    else yield* folder(walk, child)
  }
}

/** Entries of `root`/`start` in walk order; paths are relative to `start`. `exclude`: names of folders to leave out, at any depth. */
export function walk(root: string, options: { readonly exclude?: readonly string[]; readonly range?: Range } = {}): Generator<Entry> {
  const range = options.range ?? WHOLE
  const exclude = new Set((options.exclude ?? []).map((name) => Buffer.from(name, 'utf8').toString('latin1')))
  return folder(
    { root, exclude, from: range.from === null ? null : walkKey(range.from), until: range.until === null ? null : walkKey(range.until) },
    '',
  )
}
