/** What is wrong in a user's file, as data. Nothing here prints; `engine/cli/views` renders the same object that `--format json` shows. */
import type { Code } from './codes.ts'

export interface Place {
  readonly file: string
  /** 1-based; columns in characters. */
  readonly line: number
  readonly column: number
  readonly end_line: number
  readonly end_column: number
}
export interface Note {
  readonly message: string
  readonly place: Place | null
}
export interface Diagnostic {
  readonly code: Code
  readonly severity: 'error' | 'warning'
  readonly message: string
  readonly place: Place | null
  /** What to do; "did you mean …?". */
  readonly help: string | null
  readonly notes: readonly Note[]
}
