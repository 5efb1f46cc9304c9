/** A YAML document as plain data with spans: what the phases between parse and normalize hand on. Aliases share nodes. */
import type { Json } from './protocol.ts'
import type { Span } from './source.ts'

export interface ScalarNode {
  readonly kind: 'scalar'
  readonly value: string | number | boolean | null
  /** As written, for numbers that must keep their digits; after interpolation the new text. */
  readonly text: string
  /** Not quoted, not a block: a plain interpolated scalar may still be read as a number. */
  readonly plain: boolean
  /** A variable was put in: messages show the text before it, which holds no value of the environment. */
  readonly interpolatedFrom: string | null
  /** Contains an (unescaped) `${{`. */
  readonly reference: boolean
  /** Its variables have been complained about: what comes of it is not looked at further. */
  readonly broken: boolean
  readonly span: Span
}
export interface Entry {
  readonly key: Span
  readonly value: Node
}
export interface MapNode {
  readonly kind: 'map'
  readonly entries: ReadonlyMap<string, Entry>
  readonly span: Span
}
export interface ListNode {
  readonly kind: 'list'
  readonly items: readonly Node[]
  readonly span: Span
}
export type Node = ScalarNode | MapNode | ListNode
export type Path = readonly (string | number)[]

export const entriesOf = (node: Node | undefined): readonly (readonly [string, Entry])[] => (node?.kind === 'map' ? [...node.entries] : [])
export const itemsOf = (node: Node | undefined): readonly Node[] => (node?.kind === 'list' ? node.items : [])
export const child = (node: Node | undefined, key: string): Node | undefined =>
  node?.kind === 'map' ? node.entries.get(key)?.value : undefined

/** A scalar as a string: numbers keep their digits, null is ''. */
export function textOf(node: Node | undefined): string {
  if (node?.kind !== 'scalar' || node.value === null) return ''
  if (typeof node.value === 'string') return node.value
  // Beyond 2^53 the digits of the file are the truth, not the double.
  if (typeof node.value === 'number') return /^-?\d+$/.test(node.text) ? node.text : String(node.value)
  return String(node.value)
}

/** Fresh plain data. A plain scalar that got a variable stays a string here: keys that want numbers read both. */
export function toJson(node: Node): Json {
  if (node.kind === 'scalar') return node.value
  if (node.kind === 'list') return node.items.map(toJson)
  return Object.fromEntries([...node.entries].map(([key, entry]) => [key, toJson(entry.value)]))
}

/** What a person would point at: a scalar, else the key that it stands under. */
export function nodeAt(root: Node, path: Path): { readonly node: Node | undefined; readonly span: Span } {
  let node: Node | undefined = root
  let span = root.span
  for (const step of path) {
    if (node?.kind === 'map') {
      const entry: Entry | undefined = node.entries.get(String(step))
      if (entry === undefined) return { node: undefined, span }
      node = entry.value
      span = node.kind === 'scalar' ? node.span : entry.key
    } else if (node?.kind === 'list') {
      node = node.items[Number(step)]
      if (node === undefined) return { node: undefined, span }
      span = node.span
    } else return { node: undefined, span }
  }
  return { node, span }
}

/** Every node with its path, the root first. */
export function* walk(
  node: Node,
  path: Path = [],
  key: Span = node.span,
): Generator<{ readonly path: Path; readonly node: Node; readonly span: Span }> {
  yield { path, node, span: node.kind === 'scalar' ? node.span : key }
  if (node.kind === 'map') for (const [name, entry] of node.entries) yield* walk(entry.value, [...path, name], entry.key)
  if (node.kind === 'list') for (const [index, item] of node.items.entries()) yield* walk(item, [...path, index], item.span)
}
