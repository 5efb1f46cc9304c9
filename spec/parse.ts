/** YAML text → tree. Positions are kept, aliases and `<<` resolved, duplicate keys reported with both places. */
import { type Alias, type Document, isAlias, isMap, isScalar, isSeq, type Pair, parseDocument, type YAMLError } from 'yaml'
import type { Report } from './problems.ts'
import type { Source, Span } from './source.ts'
import type { Entry, MapNode, Node, ScalarNode } from './tree.ts'

/** A project file has hundreds of nodes; a "billion laughs" has more after a few aliases. */
const MAX_NODES = 50_000
const MAX_DEPTH = 64
const MAX_SYNTAX_ERRORS = 5

interface Context {
  readonly source: Source
  readonly report: Report
  /** Anchor → its node and the number of nodes below it; null while it is still being read. */
  readonly anchors: Map<string, { readonly node: Node; readonly size: number } | null>
  size: number
  failed: boolean
}

/** null: nothing to go on with (the reason has been reported). */
export function parse(source: Source, report: Report): Node | null {
  const start: Span = { source, start: 0, end: 0 }
  if (source.text.includes('\0')) {
    report('AG1002', start, 'the file is not UTF-8 text: it contains NUL characters', {
      help: 'save it as UTF-8 (an editor may have written UTF-16)',
    })
    return null
  }
  const document = read(source, report)
  if (document === null) return null
  if (reportSyntax(document, source, report)) return null
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) {
    report('AG1007', start, 'the file is empty: expected a mapping with agents', {
      help: 'run `agentctl init` for a commented starter project',
    })
    return null
  }
  const context: Context = { source, report, anchors: new Map(), size: 0, failed: false }
  const root = convert(document.contents, context, 0, start)
  return context.failed ? null : root
}

function read(source: Source, report: Report): Document.Parsed | null {
  try {
    // Keys stay strings (`on`, `1`), duplicates and `<<` are ours: the library knows only one place of a duplicate.
    return parseDocument(source.text, { stringKeys: true, uniqueKeys: false, prettyErrors: false, logLevel: 'error' })
  } catch (error) {
    // The composer is recursive: thousands of brackets exhaust the stack.
    const why = error instanceof RangeError ? 'it is nested too deeply' : error instanceof Error ? error.message : String(error)
    report('AG1002', { source, start: 0, end: 0 }, `the YAML cannot be parsed: ${why}`)
    return null
  }
}

const SYNTAX: { readonly [code: string]: { readonly message: string; readonly help?: string } } = {
  TAB_AS_INDENT: { message: 'a tab is used for indentation: YAML takes spaces only', help: 'replace the tab by spaces' },
  MULTIPLE_DOCS: {
    message: 'a second YAML document starts here: a project file is one document',
    help: 'remove the "---" line and what follows, or put it into a file of its own',
  },
  NON_STRING_KEY: { message: 'a key has to be a plain name, not a list or mapping', help: 'quote a value that starts with "{" or "["' },
}

function reportSyntax(document: Document.Parsed, source: Source, report: Report): boolean {
  const span = (error: YAMLError): Span => ({ source, start: error.pos[0], end: Math.max(error.pos[0], error.pos[1]) })
  const lines = new Set<number>()
  for (const error of document.errors) {
    // One slip makes a cascade on the same line and after it.
    const line = source.text.slice(0, error.pos[0]).split('\n').length
    if (lines.has(line) || lines.size >= MAX_SYNTAX_ERRORS) continue
    lines.add(line)
    const known = SYNTAX[error.code]
    // `{ cpus: ${N} }`: inside braces a variable needs quotes.
    const unquoted = /^[@`]/.test(source.text.slice(error.pos[0], error.pos[0] + 1)) || source.text[error.pos[0] - 1] === '$'
    report('AG1002', span(error), known?.message ?? lowerFirst(error.message), {
      help: known?.help ?? (unquoted ? 'put the value in quotes' : null),
    })
  }
  for (const warning of document.warnings) {
    if (warning.code !== 'TAG_RESOLVE_FAILED') continue
    const tag = source.text.slice(warning.pos[0], warning.pos[1]).trim()
    const later = tag === '!reset' || tag === '!override'
    report(later ? 'AG1006' : 'AG1002', span(warning), later ? `the tag ${tag} is not supported yet` : `unknown tag ${tag}`, {
      help: 'remove the tag',
    })
  }
  return document.errors.length > 0
}

const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)

function convert(node: unknown, context: Context, depth: number, fallback: Span): Node {
  const span = spanOf(node, context.source) ?? fallback
  if (depth > MAX_DEPTH) return fail(context, span, `nested deeper than ${MAX_DEPTH} levels`)
  context.size += 1
  if (context.size > MAX_NODES) return fail(context, span, `the file has more than ${MAX_NODES} values after its aliases are resolved`)
  if (isAlias(node)) return resolve(node, context, span)
  const anchor = isScalar(node) || isMap(node) || isSeq(node) ? node.anchor : undefined
  const before = context.size
  if (anchor !== undefined) context.anchors.set(anchor, null)
  const made = isMap(node)
    ? mapping(node.items, context, depth, span)
    : isSeq(node)
      ? { kind: 'list' as const, items: node.items.map((item) => convert(item, context, depth + 1, span)), span }
      : scalar(node, context.source, span, fallback)
  if (anchor !== undefined) context.anchors.set(anchor, { node: made, size: context.size - before + 1 })
  return made
}

function resolve(alias: Alias, context: Context, span: Span): Node {
  const target = context.anchors.get(alias.source)
  if (target === undefined) return fail(context, span, `the alias *${alias.source} has no anchor &${alias.source} before it`)
  if (target === null) return fail(context, span, `the alias *${alias.source} stands inside its own anchor`)
  context.size += target.size
  if (context.size > MAX_NODES) return fail(context, span, `the file has more than ${MAX_NODES} values after its aliases are resolved`)
  return target.node
}

function fail(context: Context, span: Span, message: string): ScalarNode {
  if (!context.failed) context.report('AG1002', span, message)
  context.failed = true
  return { kind: 'scalar', value: null, text: '', plain: true, interpolatedFrom: null, reference: false, broken: false, span }
}

function mapping(pairs: readonly Pair[], context: Context, depth: number, span: Span): MapNode {
  const own = new Map<string, Entry>()
  const merged: Node[] = []
  for (const pair of pairs) {
    if (!isScalar(pair.key)) continue
    const name = String(pair.key.value ?? '')
    const key = spanOf(pair.key, context.source) ?? span
    const value = convert(pair.value, context, depth + 1, key)
    if (name === '<<' && pair.key.type === 'PLAIN') {
      merged.push(...mergeable(value, key, context))
      continue
    }
    const first = own.get(name)
    if (first !== undefined) {
      context.report('AG1003', key, `the key "${name}" stands twice in one mapping`, {
        notes: [{ message: 'it stands here first', span: first.key }],
      })
      continue
    }
    own.set(name, { key, value })
  }
  if (merged.length === 0) return { kind: 'map', entries: own, span }
  const entries = new Map(own)
  // The mapping's own keys win, then the first of several merged ones.
  for (const node of merged) {
    if (node.kind !== 'map') continue
    context.size += node.entries.size
    for (const [name, entry] of node.entries) if (!entries.has(name)) entries.set(name, entry)
  }
  return { kind: 'map', entries, span }
}

function mergeable(value: Node, key: Span, context: Context): readonly Node[] {
  const nodes = value.kind === 'list' ? value.items : [value]
  if (nodes.every((node) => node.kind === 'map')) return nodes
  if (!context.failed)
    context.report('AG1005', key, 'expected an alias of a mapping (or a list of them) for "<<"', { help: 'write <<: *NAME' })
  return []
}

function scalar(node: unknown, source: Source, span: Span, fallback: Span): ScalarNode {
  const made = { kind: 'scalar' as const, interpolatedFrom: null, reference: false, broken: false }
  // `key:` with nothing after it: the key is what can be pointed at.
  if (!isScalar(node)) return { ...made, value: null, text: '', plain: true, span: fallback }
  const text = source.text.slice(span.start, span.end)
  const plain = node.type === 'PLAIN'
  const value = node.value
  if (value === null) return { ...made, value, text, plain, span: span.end > span.start ? span : fallback }
  if (typeof value === 'string' || typeof value === 'boolean') return { ...made, value, text, plain, span }
  if (typeof value === 'number' && Number.isFinite(value)) return { ...made, value, text, plain, span }
  // .inf and .nan, and what a %YAML 1.1 file brings (dates): no JSON value, so the text it was.
  return { ...made, value: text, text, plain: false, span }
}

function spanOf(node: unknown, source: Source): Span | null {
  const range = isScalar(node) || isMap(node) || isSeq(node) || isAlias(node) ? node.range : null
  if (!range) return null
  const start = Math.min(range[0], source.text.length)
  const text = source.text.slice(start, range[1]).trimEnd()
  return { source, start, end: start + text.length }
}
