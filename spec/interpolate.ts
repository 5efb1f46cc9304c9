/** Compose's variables in scalar values: $NAME ${NAME} ${NAME:-d} ${NAME-d} ${NAME:?e} ${NAME?e} ${NAME:+x} ${NAME+x} $$. `${{ … }}` is left alone. */
import type { Report } from './problems.ts'
import type { Span } from './source.ts'
import type { Entry, Node, ScalarNode } from './tree.ts'

export type Environment = { readonly [name: string]: string | undefined }

type Operator = ':-' | '-' | ':?' | '?' | ':+' | '+'
type Part =
  | { readonly literal: string }
  | { readonly name: string; readonly operator: Operator | null; readonly word: readonly Part[]; readonly text: string }

const MAX_NESTING = 16

class Malformed extends Error {
  readonly text: string
  constructor(text: string, message: string) {
    super(message)
    this.text = text
  }
}

/** Reads up to the end or, inside braces, to the closing one. */
function read(text: string, from: number, nesting: number): { readonly parts: readonly Part[]; readonly end: number } {
  if (nesting > MAX_NESTING) throw new Malformed(text.slice(from, from + 20), `variables are nested deeper than ${MAX_NESTING}`)
  const parts: Part[] = []
  let literal = ''
  let at = from
  const flush = (): void => {
    if (literal !== '') parts.push({ literal })
    literal = ''
  }
  while (at < text.length) {
    if (nesting > 0 && text[at] === '}') break
    if (text[at] !== '$') {
      literal += text[at]
      at += 1
    } else if (text.startsWith('$$', at)) {
      literal += '$'
      at += 2
    } else if (text.startsWith('${{', at)) {
      const close = text.indexOf('}}', at)
      const end = close === -1 ? text.length : close + 2
      literal += text.slice(at, end)
      at = end
    } else {
      flush()
      const variable = readVariable(text, at, nesting)
      parts.push(variable.part)
      at = variable.end
    }
  }
  flush()
  return { parts, end: at }
}

function readVariable(text: string, at: number, nesting: number): { readonly part: Part; readonly end: number } {
  const bare = /^\$([A-Za-z_][A-Za-z0-9_]*)/.exec(text.slice(at, at + 256))
  if (bare?.[1] !== undefined) return { part: { name: bare[1], operator: null, word: [], text: bare[0] }, end: at + bare[0].length }
  const head = /^\$\{([A-Za-z_][A-Za-z0-9_]*)(:-|:\?|:\+|-|\?|\+)?/.exec(text.slice(at, at + 256))
  const shown = (/^\$\{[^}\n]*\}?/.exec(text.slice(at)) ?? [text.slice(at, at + 2)])[0]
  if (head?.[1] === undefined) throw new Malformed(shown, `"${shown}" is not a variable: expected a name like \${NAME}`)
  const operator = (head[2] ?? null) as Operator | null
  const inner = at + head[0].length
  const word = operator === null ? { parts: [], end: inner } : read(text, inner, nesting + 1)
  if (text[word.end] !== '}') {
    const message =
      operator === null && word.end < text.length
        ? `"${shown}" is malformed: expected "}" or one of :- - :? ? :+ + after the name`
        : `"${shown}" has no closing "}"`
    throw new Malformed(shown, message)
  }
  return { part: { name: head[1], operator, word: word.parts, text: text.slice(at, word.end + 1) }, end: word.end + 1 }
}

function* names(parts: readonly Part[]): Generator<string> {
  for (const part of parts) {
    if ('literal' in part) continue
    yield part.name
    yield* names(part.word)
  }
}

interface Fault {
  readonly text: string
  readonly message: string
  readonly severity: 'error' | 'warning'
}

function evaluate(parts: readonly Part[], environment: Environment, faults: Fault[]): string {
  return parts.map((part) => ('literal' in part ? part.literal : lookup(part, environment, faults))).join('')
}

function lookup(part: Exclude<Part, { literal: string }>, environment: Environment, faults: Fault[]): string {
  const value = Object.hasOwn(environment, part.name) ? environment[part.name] : undefined
  const word = (): string => evaluate(part.word, environment, faults)
  const present = part.operator?.startsWith(':') ? value !== undefined && value !== '' : value !== undefined
  switch (part.operator) {
    case ':-':
    case '-':
      return present ? (value ?? '') : word()
    case ':+':
    case '+':
      return present ? word() : ''
    case ':?':
    case '?': {
      if (present) return value ?? ''
      const why = word()
      faults.push({
        text: part.text,
        severity: 'error',
        message: `the variable ${part.name} is ${value === '' ? 'empty' : 'not set'}${why === '' ? '' : `: ${why}`}`,
      })
      return ''
    }
    case null:
      if (value === undefined)
        faults.push({ text: part.text, severity: 'warning', message: `the variable ${part.name} is not set: it is taken as empty` })
      return value ?? ''
  }
}

/** Replaces variables in every string of the tree; `used` is every name that the file mentions. */
export function interpolate(
  root: Node,
  environment: Environment,
  report: Report,
): { readonly root: Node; readonly used: readonly string[] } {
  const used = new Set<string>()
  // Aliases share nodes: each is done, and complained about, once.
  const done = new Map<Node, Node>()
  const visit = (node: Node): Node => {
    const before = done.get(node)
    if (before !== undefined) return before
    const made =
      node.kind === 'scalar'
        ? interpolateScalar(node, environment, report, used)
        : node.kind === 'list'
          ? { ...node, items: node.items.map(visit) }
          : { ...node, entries: visitEntries(node.entries) }
    done.set(node, made)
    return made
  }
  const visitEntries = (entries: ReadonlyMap<string, Entry>): ReadonlyMap<string, Entry> =>
    new Map([...entries].map(([name, entry]) => [name, { ...entry, value: visit(entry.value) }]))
  return { root: visit(root), used: [...used].toSorted() }
}

function interpolateScalar(node: ScalarNode, environment: Environment, report: Report, used: Set<string>): ScalarNode {
  if (typeof node.value !== 'string' || !node.value.includes('$')) return node
  const raw = node.value
  try {
    const { parts } = read(raw, 0, 0)
    for (const name of names(parts)) used.add(name)
    const faults: Fault[] = []
    const value = evaluate(parts, environment, faults)
    for (const fault of faults)
      report('AG1008', spanWithin(node.span, fault.text), fault.message, {
        severity: fault.severity,
        help: 'set it in the environment, or give a default: ${NAME:-default}',
      })
    const changed = parts.some((part) => !('literal' in part))
    return {
      ...node,
      value,
      text: value,
      interpolatedFrom: changed ? raw : null,
      reference: /(?<!\$)(\$\$)*\$\{\{/.test(raw),
      broken: faults.some((fault) => fault.severity === 'error'),
    }
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    report('AG1008', spanWithin(node.span, error.text), error.message, { help: 'write $$ for a dollar sign that stands for itself' })
    return { ...node, interpolatedFrom: raw, broken: true }
  }
}

/** Where the expression stands inside the scalar, if the text is there as it is (no escapes, no folding). */
function spanWithin(span: Span, text: string): Span {
  const at = span.source.text.indexOf(text, span.start)
  return at === -1 || at + text.length > span.end ? span : { ...span, start: at, end: at + text.length }
}
