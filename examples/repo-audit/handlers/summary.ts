/**
 * What is known about a set of files. `merge` is associative and commutative with `EMPTY`, so a report does not depend on how the tree was
 * cut, on who did which part or on the order in which the parts came back. Totals are exact; lists keep the first of a fixed order.
 */
import { shown } from './paths.ts'
import type { Source } from './licences.ts'

export interface LanguageRow {
  readonly files: number
  readonly lines: number
  readonly bytes: number
}
export interface LicenceRow {
  readonly texts: number
  readonly manifests: number
  readonly headers: number
  readonly examples: readonly string[]
}
export interface DebtRow {
  readonly path: string
  readonly todo: number
  readonly fixme: number
}
export interface SecretRow {
  readonly path: string
  readonly line: number
  readonly kind: string
  readonly redacted: string
}
export interface LargeRow {
  readonly path: string
  readonly bytes: number
}
export interface ComplexRow {
  readonly path: string
  readonly language: string
  readonly branches: number
  readonly lines: number
}
type Table<Row> = Readonly<Record<string, Row>>

export interface Summary {
  /** Regular files, as `find -type f`; unreadable ones too. */
  readonly files: number
  /** As `wc -c` and `wc -l` over all readable files. */
  readonly bytes: number
  readonly lines: number
  readonly text_files: number
  readonly text_lines: number
  readonly symlinks: number
  readonly special: number
  readonly excluded: number
  readonly unreadable: { readonly count: number; readonly paths: readonly string[] }
  readonly languages: Table<LanguageRow>
  readonly licences: Table<LicenceRow>
  /** Lines with the word, as `grep -I -c`; `files`: how many have any. */
  readonly debt: { readonly todo: number; readonly fixme: number; readonly files: number; readonly top: readonly DebtRow[] }
  readonly secrets: { readonly count: number; readonly kinds: Table<number>; readonly findings: readonly SecretRow[] }
  readonly largest: readonly LargeRow[]
  readonly complex: readonly ComplexRow[]
}

/** Longest lists; with paths of SHOWN_BYTES a summary stays below 64 KiB whatever the tree (tested). */
export const LIMITS = { unreadable: 10, examples: 2, debt: 15, findings: 100, largest: 15, complex: 15 } as const

export const EMPTY: Summary = {
  files: 0,
  bytes: 0,
  lines: 0,
  text_files: 0,
  text_lines: 0,
  symlinks: 0,
  special: 0,
  excluded: 0,
  unreadable: { count: 0, paths: [] },
  languages: {},
  licences: {},
  debt: { todo: 0, fixme: 0, files: 0, top: [] },
  secrets: { count: 0, kinds: {}, findings: [] },
  largest: [],
  complex: [],
}

type Order<Row> = (a: Row, b: Row) => number
const text = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
const ORDER = {
  path: text,
  debt: (a, b) => b.todo + b.fixme - a.todo - a.fixme || text(a.path, b.path) || b.todo - a.todo,
  finding: (a, b) => text(a.path, b.path) || a.line - b.line || text(a.kind, b.kind) || text(a.redacted, b.redacted),
  large: (a, b) => b.bytes - a.bytes || text(a.path, b.path),
  complex: (a, b) => b.branches - a.branches || text(a.path, b.path) || b.lines - a.lines || text(a.language, b.language),
} satisfies { path: Order<string>; debt: Order<DebtRow>; finding: Order<SecretRow>; large: Order<LargeRow>; complex: Order<ComplexRow> }

const first = <Row>(a: readonly Row[], b: readonly Row[], order: Order<Row>, limit: number): readonly Row[] =>
  [...a, ...b].sort(order).slice(0, limit)

function tables<Row>(a: Table<Row>, b: Table<Row>, join: (a: Row, b: Row) => Row): Table<Row> {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
  return Object.fromEntries(
    names.map((name) => {
      const left = a[name]
      const right = b[name]
      return [name, left === undefined ? (right as Row) : right === undefined ? left : join(left, right)]
    }),
  )
}
const languages = (a: LanguageRow, b: LanguageRow): LanguageRow => ({
  files: a.files + b.files,
  lines: a.lines + b.lines,
  bytes: a.bytes + b.bytes,
})
const licences = (a: LicenceRow, b: LicenceRow): LicenceRow => ({
  texts: a.texts + b.texts,
  manifests: a.manifests + b.manifests,
  headers: a.headers + b.headers,
  examples: first(a.examples, b.examples, ORDER.path, LIMITS.examples),
})

export function merge(a: Summary, b: Summary): Summary {
  return {
    files: a.files + b.files,
    bytes: a.bytes + b.bytes,
    lines: a.lines + b.lines,
    text_files: a.text_files + b.text_files,
    text_lines: a.text_lines + b.text_lines,
    symlinks: a.symlinks + b.symlinks,
    special: a.special + b.special,
    excluded: a.excluded + b.excluded,
    unreadable: {
      count: a.unreadable.count + b.unreadable.count,
      paths: first(a.unreadable.paths, b.unreadable.paths, ORDER.path, LIMITS.unreadable),
    },
    languages: tables(a.languages, b.languages, languages),
    licences: tables(a.licences, b.licences, licences),
    debt: {
      todo: a.debt.todo + b.debt.todo,
      fixme: a.debt.fixme + b.debt.fixme,
      files: a.debt.files + b.debt.files,
      top: first(a.debt.top, b.debt.top, ORDER.debt, LIMITS.debt),
    },
    secrets: {
      count: a.secrets.count + b.secrets.count,
      kinds: tables(a.secrets.kinds, b.secrets.kinds, (left, right) => left + right),
      findings: first(a.secrets.findings, b.secrets.findings, ORDER.finding, LIMITS.findings),
    },
    largest: first(a.largest, b.largest, ORDER.large, LIMITS.largest),
    complex: first(a.complex, b.complex, ORDER.complex, LIMITS.complex),
  }
}

/** What one readable file adds. */
export interface FileFacts {
  readonly bytes: number
  readonly lines: number
  readonly binary: boolean
  readonly language: string
  readonly licences: readonly { readonly id: string; readonly source: Source }[]
  readonly todo: number
  readonly fixme: number
  readonly secrets: readonly { readonly line: number; readonly kind: string; readonly redacted: string }[]
  /** null: no code, or minified. */
  readonly branches: number | null
}

const licenceTable = (facts: FileFacts, path: string): Table<LicenceRow> =>
  facts.licences.reduce<Table<LicenceRow>>(
    (table, { id, source }) =>
      tables(
        table,
        { [id]: { texts: 0, manifests: 0, headers: 0, examples: table[id] === undefined ? [path] : [], [source]: 1 } },
        licences,
      ),
    {},
  )

export function ofFile(rawPath: string, facts: FileFacts): Summary {
  const path = shown(rawPath)
  const kinds: Record<string, number> = {}
  for (const { kind } of facts.secrets) kinds[kind] = (kinds[kind] ?? 0) + 1
  const debt = facts.todo + facts.fixme > 0
  return {
    ...EMPTY,
    files: 1,
    bytes: facts.bytes,
    lines: facts.lines,
    text_files: facts.binary ? 0 : 1,
    text_lines: facts.binary ? 0 : facts.lines,
    languages: { [facts.language]: { files: 1, lines: facts.lines, bytes: facts.bytes } },
    licences: licenceTable(facts, path),
    debt: { todo: facts.todo, fixme: facts.fixme, files: debt ? 1 : 0, top: debt ? [{ path, todo: facts.todo, fixme: facts.fixme }] : [] },
    secrets: {
      count: facts.secrets.length,
      kinds,
      findings: first(
        facts.secrets.map((secret) => ({ path, ...secret })),
        [],
        ORDER.finding,
        LIMITS.findings,
      ),
    },
    largest: [{ path, bytes: facts.bytes }],
    complex:
      facts.branches === null || facts.branches === 0
        ? []
        : [{ path, language: facts.language, branches: facts.branches, lines: facts.lines }],
  }
}
