/** Progress events as lines on stderr. */
import type { ProgressEvent } from '../progress.ts'
import type { Globals, Progress } from './globals.ts'
import { clean, hasColor, type Io, type Paint, painter } from './io.ts'

export interface ProgressPrinter {
  readonly emit: (event: ProgressEvent) => void
  /** A sentence about the whole. Not shown with --quiet. */
  readonly note: (message: string) => void
}

export function progressPrinter(io: Io, globals: Globals, redact: (text: string) => string): ProgressPrinter {
  const form: Progress = globals.quiet ? 'quiet' : globals.progress
  if (form === 'quiet') return { emit: () => undefined, note: () => undefined }
  const paint = painter(form === 'tty' || hasColor(io, io.stderr))
  const emit = (event: ProgressEvent): void => {
    const line = form === 'json' ? JSON.stringify(event) : progressLine(event, paint)
    if (line !== null) io.stderr.write(redact(`${line}\n`))
  }
  return { emit, note: (message) => emit({ kind: 'note', message }) }
}

/** What a step did, and what it did not manage to do. */
const WORDS: Readonly<Record<string, readonly [done: string, failed: string]>> = {
  'create-network': ['created', 'to be created'],
  'create-volume': ['created', 'to be created'],
  'create-container': ['created', 'to be created'],
  'remove-network': ['removed', 'to be removed'],
  'remove-volume': ['removed', 'to be removed'],
  'remove-container': ['removed', 'to be removed'],
  'own-volume': ['owned', 'to be given to its user'],
  'make-folder': ['made', 'to be made'],
  'write-secrets': ['written', 'to be written'],
  'write-record': ['recorded', 'to be recorded'],
  'connect-network': ['connected', 'to be connected'],
  'disconnect-network': ['disconnected', 'to be disconnected'],
  'start-container': ['started', 'to start'],
  'stop-container': ['stopped', 'to stop'],
  wait: ['ready', 'to become ready'],
}

/** Null: nothing to tell (a step's start, in plain lines). */
export function progressLine(event: ProgressEvent, paint: Paint): string | null {
  if (event.kind === 'note') return clean(event.message)
  const [done, failed] = WORDS[event.op] ?? [event.op, event.op]
  const target = clean(event.target.replace(':', ' '))
  const time = event.ms === undefined ? '' : `  ${paint('dim', seconds(event.ms))}`
  // The rest of it (last lines of a log) stands below, with the error.
  const why = event.message === undefined ? '' : `: ${clean(event.message.split('\n', 1)[0] ?? '')}`
  switch (event.state) {
    case 'start':
      return null
    case 'done':
      return ` ${paint('green', '✔')} ${target}  ${done}${time}`
    case 'failed':
      return ` ${paint('red', '✘')} ${target}  failed ${failed}${why}${time}`
    case 'skipped':
      return ` ${paint('yellow', '-')} ${target}  skipped (${event.op})${why}`
  }
}

export const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)}s`
