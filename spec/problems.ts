/** Collects what is wrong while the phases go on: all problems are reported at once. */
import type { Code } from './codes.ts'
import type { Diagnostic } from './diagnostic.ts'
import { firstLine, placeOf, type Span } from './source.ts'

export interface Problem {
  readonly severity?: 'error' | 'warning'
  readonly help?: string | null
  readonly notes?: readonly { readonly message: string; readonly span: Span | null }[]
}
export type Report = (code: Code, span: Span | null, message: string, more?: Problem) => void

const place = (span: Span | null): Diagnostic['place'] => (span === null ? null : placeOf(firstLine(span)))

export function collector(): { readonly report: Report; readonly diagnostics: () => readonly Diagnostic[] } {
  const found: Diagnostic[] = []
  const seen = new Set<string>()
  const report: Report = (code, span, message, more = {}) => {
    const diagnostic: Diagnostic = {
      code,
      severity: more.severity ?? 'error',
      message,
      place: place(span),
      help: more.help ?? null,
      notes: (more.notes ?? []).map((note) => ({ message: note.message, place: place(note.span) })),
    }
    // A merged or aliased mapping is seen more than once.
    const key = `${code} ${diagnostic.place?.file}:${diagnostic.place?.line}:${diagnostic.place?.column} ${message}`
    if (seen.has(key)) return
    seen.add(key)
    found.push(diagnostic)
  }
  return { report, diagnostics: () => found.toSorted(inReadingOrder) }
}

function inReadingOrder(a: Diagnostic, b: Diagnostic): number {
  if (a.place === null || b.place === null) return (a.place === null ? 0 : 1) - (b.place === null ? 0 : 1)
  return a.place.line - b.place.line || a.place.column - b.place.column || a.code.localeCompare(b.code)
}
