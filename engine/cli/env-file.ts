/** Files of variables in Compose's form: NAME=value, quotes, comments, `export`. Nothing is expanded. */
import { readFileSync } from 'node:fs'
import { usage } from './failure.ts'

export type Variables = { readonly [name: string]: string }

/** Null: the file does not exist and need not. */
export function readEnvFile(path: string, { optional }: { readonly optional: boolean }): Variables | null {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    if (optional && code === 'ENOENT') return null
    throw usage(
      `cannot read the file of variables ${path} (${code})`,
      'Check the path and its permissions, or name another with --env-file.',
    )
  }
  return parseEnvFile(text, path)
}

/** A line that is none is named by its number alone: it may hold a secret. */
export function parseEnvFile(text: string, path: string): Variables {
  const found: Record<string, string> = {}
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/)
  for (const [index, line] of lines.entries()) {
    if (/^\s*(#.*)?$/.test(line)) continue
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*)$/.exec(line)
    if (match?.[1] === undefined) throw usage(`${path}:${index + 1}: expected NAME=value`)
    found[match[1]] = unquote(match[2] ?? '')
  }
  return found
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' }

function unquote(text: string): string {
  const single = /^'([^']*)'\s*(?:#.*)?$/.exec(text)
  if (single !== null) return single[1] ?? ''
  const double = /^"((?:[^"\\]|\\.)*)"\s*(?:#.*)?$/.exec(text)
  if (double !== null) return (double[1] ?? '').replace(/\\(.)/g, (_, letter: string) => ESCAPES[letter] ?? letter)
  return text.replace(/\s+#.*$/, '').trim()
}
