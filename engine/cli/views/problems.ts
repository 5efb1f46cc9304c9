/** Problems of the user's files: `problemsView` is the JSON of CONTRACT, `renderProblems` prints that same object for people. */
import { relative } from 'node:path'
import type { Diagnostic, Place } from '../../../spec/diagnostic.ts'
import { maskKeys } from '../../../spec/known-keys.ts'
import { lineText, type Source } from '../../../spec/source.ts'
import { excerpt, printable } from './excerpt.ts'

export interface PlaceView {
  readonly file: string | null
  readonly line: number | null
  readonly column: number | null
  readonly end_line: number | null
  readonly end_column: number | null
}
export interface NoteView extends PlaceView {
  readonly message: string
}
export interface ProblemView extends PlaceView {
  readonly code: string
  readonly severity: 'error' | 'warning'
  readonly message: string
  readonly help: string | null
  readonly notes: readonly NoteView[]
}
export interface ProblemsView {
  readonly diagnostics: readonly ProblemView[]
}

export interface RenderOptions {
  readonly color: boolean
  readonly tty: boolean
  readonly cwd?: string
}

const NOWHERE: PlaceView = { file: null, line: null, column: null, end_line: null, end_column: null }

/** Files become relative to `cwd`, so that editors and people can click them. */
export function problemsView(diagnostics: readonly Diagnostic[], cwd: string = process.cwd()): ProblemsView {
  const place = (at: Place | null): PlaceView => (at === null ? NOWHERE : { ...at, file: shorter(at.file, cwd) })
  return {
    diagnostics: diagnostics.map((each) => ({
      code: each.code,
      severity: each.severity,
      message: maskKeys(each.message),
      ...place(each.place),
      help: each.help,
      notes: each.notes.map((note) => ({ message: note.message, ...place(note.place) })),
    })),
  }
}

function shorter(file: string, cwd: string): string {
  const path = relative(cwd, file)
  return path === '' || path.startsWith('../../..') ? file : path
}

const STYLE = { error: '\x1b[31;1m', warning: '\x1b[33;1m', bold: '\x1b[1m', dim: '\x1b[2m', green: '\x1b[32m', off: '\x1b[0m' } as const
type Paint = (style: keyof typeof STYLE, text: string) => string

/** On a terminal in blocks; elsewhere each problem starts with `file:line:column:`, which editors and CI find. Both show the excerpt. */
export function renderProblems(view: ProblemsView, sources: ReadonlyMap<string, Source>, options: RenderOptions): string {
  const paint: Paint = (style, text) => (options.color ? `${STYLE[style]}${text}${STYLE.off}` : text)
  const cwd = options.cwd ?? process.cwd()
  const byShownName = new Map([...sources].map(([file, source]) => [shorter(file, cwd), source]))
  const blocks = view.diagnostics.map((problem) => block(problem, byShownName, options, paint))
  const count = (severity: string): number => view.diagnostics.filter((each) => each.severity === severity).length
  const totals = [plural(count('error'), 'error'), plural(count('warning'), 'warning')].filter((each) => each !== '')
  return totals.length === 0 ? '' : `${blocks.join('\n')}\n${totals.join(', ')}\n`
}

const plural = (count: number, word: string): string => (count === 0 ? '' : `${count} ${word}${count === 1 ? '' : 's'}`)

function block(problem: ProblemView, sources: ReadonlyMap<string, Source>, { tty }: RenderOptions, paint: Paint): string {
  const where = location(problem)
  const title = `${paint(problem.severity, `${problem.severity} ${problem.code}:`)} ${paint('bold', printable(problem.message))}`
  const head = tty
    ? [`${paint(problem.severity, '✘')} ${title}`, ...(where === '' ? [] : ['', `    ${where}`])]
    : [where === '' ? title : `${where}: ${title}`]
  const lines = [...head, ...excerptOf(problem, sources, paint, true)]
  if (problem.help !== null) lines.push(`    ${paint('green', 'help:')} ${printable(problem.help)}`)
  for (const note of problem.notes) lines.push(...noteLines(note, sources, paint))
  return `${lines.join('\n')}\n`
}

function noteLines(note: NoteView, sources: ReadonlyMap<string, Source>, paint: Paint): readonly string[] {
  const where = location(note)
  return [
    `    ${paint('green', 'note:')} ${printable(note.message)}`,
    ...(where === '' ? [] : [`    ${where}`]),
    ...excerptOf(note, sources, paint, false),
  ]
}

const location = (place: PlaceView): string => (place.file === null ? '' : `${printable(place.file)}:${place.line}:${place.column}`)

function excerptOf(place: PlaceView, sources: ReadonlyMap<string, Source>, paint: Paint, context: boolean): readonly string[] {
  const source = place.file === null ? undefined : sources.get(place.file)
  if (source === undefined || place.line === null || place.column === null) return []
  const text = maskKeys(lineText(source, place.line))
  const end = place.end_line === place.line ? (place.end_column ?? place.column) : [...text].length + 1
  const shown = excerpt(text, place.column, end)
  const width = Math.max(5, String(place.line).length)
  const row = (number: string, mark: string, content: string): string =>
    `    ${paint('dim', `${number.padStart(width)} ${mark}`)}${content === '' ? '' : ` ${content}`}`
  const before = context && place.line > 1 ? maskKeys(lineText(source, place.line - 1)) : ''
  const rows = before.trim() === '' || shown.trimmed ? [] : [row(String(place.line - 1), '│', excerpt(before, 1, 1).text)]
  return [...rows, row(String(place.line), '│', shown.text), row('', '╵', paint('error', shown.caret))]
}
