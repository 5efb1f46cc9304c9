/** The report as Markdown and as JSON. Nothing in it depends on when, where or by whom the audit was done. */
import { LIMITS, EMPTY, merge, type Summary } from './summary.ts'

export interface Report {
  readonly format: 1
  readonly path: string
  readonly exclude: readonly string[]
  readonly summary: Summary
}

/** Merging with nothing puts every table in its order, whatever a queue did to it. */
export const report = (path: string, exclude: readonly string[], summary: Summary): Report => ({
  format: 1,
  path,
  exclude: [...exclude].sort(),
  summary: merge(EMPTY, summary),
})

export const renderJson = (content: Report): string => `${JSON.stringify(content, null, 2)}\n`

/** 1234567 → 1,234,567, in any locale. */
export const number = (value: number): string => String(value).replace(/\B(?=(?:\d{3})+$)/g, ',')
export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const [unit, divisor] = bytes < 1e6 ? (['kB', 1e3] as const) : bytes < 1e9 ? (['MB', 1e6] as const) : (['GB', 1e9] as const)
  return `${(bytes / divisor).toFixed(1)} ${unit}`
}

/** A code span in a table cell; names of files may hold anything. */
function code(text: string): string {
  const longest = Math.max(0, ...[...text.matchAll(/`+/g)].map((run) => run[0].length))
  const fence = '`'.repeat(longest + 1)
  const pad = text.startsWith('`') || text.endsWith('`') ? ' ' : ''
  return `${fence}${pad}${text.replaceAll('|', '\\|')}${pad}${fence}`
}

type Cell = string | number
function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const numeric = head.map((_, column) =>
    rows.every((row) => typeof row[column] === 'number' || /^[\d.,]+ (?:B|kB|MB|GB)$/.test(String(row[column]))),
  )
  const line = (cells: readonly Cell[]): string =>
    `| ${cells.map((cell) => (typeof cell === 'number' ? number(cell) : cell)).join(' | ')} |`
  return [line(head), `|${numeric.map((right) => (right ? ' ---: ' : ' --- ')).join('|')}|`, ...rows.map(line)].join('\n')
}
const section = (title: string, ...parts: readonly string[]): string => [`## ${title}`, ...parts].join('\n\n')
const listed = (all: number, rows: number): readonly string[] => (all > rows ? [`The first ${number(rows)} of ${number(all)}.`] : [])

function totals(summary: Summary): string {
  return table(
    ['', 'Count'],
    [
      ['Files', summary.files],
      ['Bytes', summary.bytes],
      ['Lines', summary.lines],
      ['Text files', summary.text_files],
      ['Lines in text files', summary.text_lines],
      ['Symbolic links (not followed)', summary.symlinks],
      ['Special files (not opened)', summary.special],
      ['Folders left out', summary.excluded],
      ['Unreadable', summary.unreadable.count],
    ],
  )
}

function languages(summary: Summary): string {
  const rows = Object.entries(summary.languages).sort(([a, x], [b, y]) => y.bytes - x.bytes || (a < b ? -1 : 1))
  return section(
    'Languages',
    table(
      ['Language', 'Files', 'Lines', 'Size'],
      rows.map(([name, row]) => [name, row.files, row.lines, size(row.bytes)]),
    ),
  )
}

function licences(summary: Summary): string {
  const rows = Object.entries(summary.licences)
  if (rows.length === 0)
    return section('Licences', 'None found: no licence file, no `license` in a package.json, no SPDX-License-Identifier.')
  return section(
    'Licences',
    table(
      ['SPDX id', 'Licence files', 'package.json', 'SPDX headers', 'For example'],
      rows.map(([id, row]) => [id, row.texts, row.manifests, row.headers, row.examples.map(code).join(', ')]),
    ),
  )
}

function debt(summary: Summary): string {
  const { todo, fixme, files, top } = summary.debt
  const text = `${number(todo)} lines with TODO, ${number(fixme)} with FIXME, in ${number(files)} files.`
  return top.length === 0
    ? section('Debt', text)
    : section(
        'Debt',
        text,
        table(
          ['File', 'TODO', 'FIXME'],
          top.map((row) => [code(row.path), row.todo, row.fixme]),
        ),
      )
}

function secrets(summary: Summary): string {
  const { count, findings } = summary.secrets
  if (count === 0) return section('Secrets', 'Nothing that looks like a committed secret.')
  return section(
    'Secrets',
    `${number(count)} that look committed. Revoke them first, then remove them from the history.`,
    table(
      ['Place', 'Kind', 'Value'],
      findings.map((row) => [code(`${row.path}:${row.line}`), row.kind, code(row.redacted)]),
    ),
    ...listed(count, findings.length),
  )
}

function files(summary: Summary): string[] {
  const complex = table(
    ['File', 'Language', 'Branches', 'Lines'],
    summary.complex.map((row) => [code(row.path), row.language, row.branches, row.lines]),
  )
  return [
    section(
      'Largest files',
      table(
        ['File', 'Size'],
        summary.largest.map((row) => [code(row.path), size(row.bytes)]),
      ),
    ),
    section(
      'Most complex files',
      'By the number of branches (words and signs such as `if`, `case`, `&&`); minified files are left out.',
      ...(summary.complex.length === 0 ? ['None.'] : [complex]),
    ),
  ]
}

function unreadable(summary: Summary): string[] {
  const { count, paths } = summary.unreadable
  return count === 0
    ? []
    : [
        section(
          'Unreadable',
          ['Counted, not analysed:', ...paths.map((path) => `- ${code(path)}`)].join('\n'),
          ...listed(count, LIMITS.unreadable),
        ),
      ]
}

export function renderMarkdown({ path, exclude, summary }: Report): string {
  const title = `# Audit of ${code(path)}`
  const left = exclude.length === 0 ? [] : [`Folders left out: ${exclude.map(code).join(', ')}.`]
  return `${[title, ...left, totals(summary), languages(summary), licences(summary), debt(summary), secrets(summary), ...files(summary), ...unreadable(summary)].join('\n\n')}\n`
}
