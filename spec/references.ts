/** `${{ … }}`: one reference as the whole value. */
import type { Json } from './protocol.ts'
import type { Reference, Template } from './model.ts'
import type { Report } from './problems.ts'
import { type Node, type Path, type ScalarNode, textOf } from './tree.ts'
import { found } from './describe.ts'

const HELP = 'use one whole value: ${{ inputs.NAME }}, ${{ needs.JOB.result.KEY }} or the variable of foreach; $${{ stands for itself'

export const isReference = (value: Template): value is Reference =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && Object.hasOwn(value, '$ref')

export function showReference(reference: Reference): string {
  return `\${{ ${reference.$ref.join('.')} }}`
}

/** The names of a whole-value reference; null when the text is anything else. */
export function parseReference(text: string): readonly string[] | null {
  const inner = /^\s*\$\{\{\s*([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)\s*\}\}\s*$/.exec(text)?.[1]
  return inner === undefined ? null : inner.split('.')
}

/** The value of `with` or `foreach`: JSON with references in it. */
export function template(node: Node, report: Report): Template {
  if (node.kind === 'list') return node.items.map((item) => template(item, report))
  if (node.kind === 'map') {
    const reserved = node.entries.get('$ref')
    if (reserved !== undefined) report('AG1005', reserved.key, 'the key "$ref" is reserved here', { help: 'name it otherwise' })
    return Object.fromEntries(
      [...node.entries].filter(([key]) => key !== '$ref').map(([key, entry]) => [key, template(entry.value, report)]),
    )
  }
  if (!node.reference) return json(node)
  const names = parseReference(textOf(node))
  if (names !== null) return { $ref: names }
  report('AG2004', node.span, `${found(node)} is not one whole reference`, { help: HELP })
  return null
}

/** Where any type is right, a plain scalar that got a variable reads as YAML would read it; a quoted one stays a string. */
export function json(node: ScalarNode): Json {
  if (node.interpolatedFrom === null || !node.plain || typeof node.value !== 'string') return node.value
  if (node.value === 'true' || node.value === 'false') return node.value === 'true'
  if (/^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$/.test(node.value)) return Number(node.value)
  return node.value
}

/** Refuses references that stand where nothing would resolve them, and marks those values so that nobody else complains. */
export function refuseStrays(root: Node, report: Report): Node {
  const visit = (node: Node, path: Path): Node => {
    if (String(path.at(-1)).startsWith('x-') && path.length !== 2) return node
    if (path.length === 5 && path[0] === 'pipelines' && path[2] === 'jobs' && (path[4] === 'with' || path[4] === 'foreach')) return node
    if (path.length === 4 && path[0] === 'agents' && path[2] === 'concurrency' && path[3] === 'key') return node
    if (node.kind === 'list') return { ...node, items: node.items.map((item, index) => visit(item, [...path, index])) }
    if (node.kind === 'map')
      return {
        ...node,
        entries: new Map([...node.entries].map(([key, entry]) => [key, { ...entry, value: visit(entry.value, [...path, key]) }])),
      }
    if (!node.reference) return node
    report('AG2004', node.span, "a ${{ }} reference has a value only in `with` and `foreach` of a pipeline's job", {
      help: 'use a variable of the environment, ${NAME}, or write $${{ if it stands for itself',
    })
    return { ...node, broken: true }
  }
  return visit(root, [])
}
