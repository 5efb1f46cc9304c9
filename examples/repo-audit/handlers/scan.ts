/** One file, read in windows: memory stays the same for a minified bundle of 100 MB and for a small module. */
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { branchPattern, BINARY, languageOf } from './languages.ts'
import { HEADER_BYTES, isLicenceFile, licencesInHeader, licencesInManifest, licencesInText, type Source } from './licences.ts'
import { secretsIn } from './secrets.ts'
import type { FileFacts } from './summary.ts'

export const WINDOW_BYTES = 1_048_576
/** Context on both sides of a window: longer than any pattern looks. */
const CONTEXT = 8_192
/** git and grep take a file for binary when a NUL byte stands near its start. */
const BINARY_PROBE = 8_000
/** Licence texts and manifests are read this far. */
const DOCUMENT_BYTES = WINDOW_BYTES
/** Longer lines on average than people write: nobody refactors such a file. */
const MINIFIED_LINE = 300

const BUFFER = Buffer.allocUnsafe(WINDOW_BYTES)

/** Text around [from, until): what begins there belongs to this window, the rest is context. `line`: the number of the line at `from`. */
interface Window {
  readonly text: string
  readonly from: number
  readonly until: number
  readonly line: number
}

function newlines(text: string, from: number, until: number): number {
  let count = 0
  for (let at = text.indexOf('\n', from); at !== -1 && at < until; at = text.indexOf('\n', at + 1)) count += 1
  return count
}

/** Turns ascending offsets of a window into line numbers. */
function lineCounter(window: Window): (at: number) => number {
  let { line } = window
  let seen = window.from
  return (at) => {
    line += newlines(window.text, seen, at)
    seen = at
    return line
  }
}

/** Lines with a word, like `grep -c`; remembers the last counted line from window to window. */
class WordLines {
  count = 0
  #last = 0
  readonly #word: string
  constructor(word: string) {
    this.#word = word
  }
  add(window: Window): void {
    const lineAt = lineCounter(window)
    let at = window.text.indexOf(this.#word, window.from)
    while (at !== -1 && at < window.until) {
      const line = lineAt(at)
      if (line !== this.#last) this.count += 1
      this.#last = line
      const end = window.text.indexOf('\n', at)
      at = end === -1 ? -1 : window.text.indexOf(this.#word, end)
    }
  }
}

function matches(pattern: RegExp, window: Window): number {
  let count = 0
  pattern.lastIndex = window.from
  for (let hit = pattern.exec(window.text); hit !== null && hit.index < window.until; hit = pattern.exec(window.text)) count += 1
  return count
}

interface Collected {
  bytes: number
  lines: number
  branches: number
  head: string
  readonly todo: WordLines
  readonly fixme: WordLines
  readonly secrets: { line: number; kind: string; redacted: string }[]
}

function look(window: Window, all: Collected, pattern: RegExp | null): void {
  all.todo.add(window)
  all.fixme.add(window)
  const lineAt = lineCounter(window)
  for (const found of secretsIn(window.text, window.from, window.until))
    all.secrets.push({ line: lineAt(found.at), kind: found.kind, redacted: found.redacted })
  if (pattern !== null) all.branches += matches(pattern, window)
}

function fill(file: number): Buffer {
  let size = 0
  while (size < BUFFER.length) {
    const read = readSync(file, BUFFER, size, BUFFER.length - size, null)
    if (read === 0) break
    size += read
  }
  return BUFFER.subarray(0, size)
}

function licencesOf(path: string, head: string): FileFacts['licences'] {
  const tagged = (ids: readonly string[], source: Source): FileFacts['licences'] => ids.map((id) => ({ id, source }))
  if (isLicenceFile(path)) return tagged(licencesInText(head), 'texts')
  if (path === 'package.json' || path.endsWith('/package.json'))
    return tagged(
      licencesInManifest(
        Buffer.from(head, 'latin1')
          .toString('utf8')
          .replace(/^\ufeff/, ''),
      ),
      'manifests',
    )
  return tagged(licencesInHeader(head.slice(0, HEADER_BYTES)), 'headers')
}

function binary(file: number, start: Buffer): FileFacts {
  let bytes = 0
  let lines = 0
  for (let block = start; block.length > 0; block = fill(file)) {
    bytes += block.length
    for (let at = 0; at < block.length; at++) if (block[at] === 10) lines += 1
  }
  return { bytes, lines, binary: true, language: BINARY, licences: [], todo: 0, fixme: 0, secrets: [], branches: null }
}

function text(file: number, start: Buffer, path: string): FileFacts {
  const all: Collected = {
    bytes: 0,
    lines: 0,
    branches: 0,
    head: start.toString('latin1', 0, DOCUMENT_BYTES),
    todo: new WordLines('TODO'),
    fixme: new WordLines('FIXME'),
    secrets: [],
  }
  const language = languageOf(path, /^[^\n]{0,200}/.exec(all.head)?.[0] ?? '')
  const pattern = branchPattern(language)
  let kept = ''
  let from = 0
  for (let block = start; ; block = fill(file)) {
    const isLast = block.length < BUFFER.length
    const whole = kept + block.toString('latin1')
    const window = { text: whole, from, until: isLast ? whole.length : Math.max(from, whole.length - CONTEXT), line: all.lines + 1 }
    look(window, all, pattern)
    all.bytes += block.length
    all.lines += newlines(whole, window.from, window.until)
    if (isLast) break
    kept = whole.slice(Math.max(0, window.until - CONTEXT))
    from = window.until - (whole.length - kept.length)
  }
  const isMinified = all.bytes > MINIFIED_LINE * (all.lines + 1) || /[.-]min\.\w+$/.test(path)
  return {
    bytes: all.bytes,
    lines: all.lines,
    binary: false,
    language,
    licences: licencesOf(path, all.head),
    todo: all.todo.count,
    fixme: all.fixme.count,
    secrets: all.secrets,
    branches: pattern === null || isMinified ? null : all.branches,
  }
}

/** Facts about the file; throws what `open` and `read` throw. `path` is for its names and extension. */
export function scanFile(fullPath: Buffer, path: string): FileFacts {
  // The tree may change under us: never follow a link that was a file when it was listed, never wait for a pipe's writer.
  const file = openSync(fullPath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const start = fill(file)
    return start.subarray(0, BINARY_PROBE).includes(0) ? binary(file, start) : text(file, start, path)
  } finally {
    closeSync(file)
  }
}
