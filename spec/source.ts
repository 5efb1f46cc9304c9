/** The text of one file, and where in it something stands. */
import type { Place } from './diagnostic.ts'

export interface Source {
  /** As given to `load` (absolute). */
  readonly file: string
  readonly text: string
  /** Offset of the start of each line. */
  readonly lines: readonly number[]
}

/** Offsets in UTF-16 units, end exclusive. */
export interface Span {
  readonly source: Source
  readonly start: number
  readonly end: number
}

export function makeSource(file: string, text: string): Source {
  const lines = [0]
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines.push(at + 1)
  return { file, text, lines }
}

/** 1-based line and column; the column counts characters, not UTF-16 units. */
export function position(source: Source, offset: number): { readonly line: number; readonly column: number } {
  const at = Math.max(0, Math.min(offset, source.text.length))
  let low = 0
  let high = source.lines.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((source.lines[middle] ?? 0) <= at) low = middle
    else high = middle - 1
  }
  const start = source.lines[low] ?? 0
  return { line: low + 1, column: [...source.text.slice(start, at)].length + 1 }
}

/** A line without its line break; '' when there is no such line. */
export function lineText(source: Source, line: number): string {
  const start = source.lines[line - 1]
  if (start === undefined) return ''
  const next = source.lines[line]
  return source.text.slice(start, next === undefined ? undefined : next - 1).replace(/\r$/, '')
}

/** The part of a span that stands on its first line: carets under a whole block help nobody. */
export function firstLine(span: Span): Span {
  const end = span.source.text.indexOf('\n', span.start)
  if (end === -1 || end >= span.end) return span
  const text = span.source.text.slice(span.start, end).trimEnd()
  return { ...span, end: span.start + text.length }
}

export function placeOf(span: Span): Place {
  const start = position(span.source, span.start)
  const end = position(span.source, Math.max(span.start, span.end))
  return { file: span.source.file, line: start.line, column: start.column, end_line: end.line, end_column: end.column }
}
