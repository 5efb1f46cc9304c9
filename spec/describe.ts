/** How messages name things: `mem_limit of agent "lead"`, `30 (number)`. */
import type { Node, Path } from './tree.ts'

const SECTIONS: { readonly [section: string]: string } = {
  agents: 'agent',
  services: 'service',
  secrets: 'secret',
  volumes: 'volume',
  egress: 'egress policy',
  pipelines: 'pipeline',
}

/** The thing that a path leads to, from the inside out. */
export function subject(path: Path): string {
  const [section, name, ...rest] = path
  const kind = SECTIONS[String(section)]
  if (path.length === 0) return 'the file'
  if (kind === undefined || name === undefined) return keys(path)
  const owner = `${kind} "${name}"`
  if (section === 'pipelines' && rest[0] === 'jobs' && rest[1] !== undefined) {
    const job = `job "${rest[1]}" of ${owner}`
    return rest.length === 2 ? job : `${keys(rest.slice(2))} of ${job}`
  }
  return rest.length === 0 ? owner : `${keys(rest)} of ${owner}`
}

function keys(path: Path): string {
  return path
    .map((step, index) => (typeof step === 'number' || /^\d+$/.test(step) ? `[${step}]` : `${index === 0 ? '' : '.'}${step}`))
    .join('')
}

/** What stands there. A value that came from a variable is shown as it was written: it may be a secret. */
export function found(node: Node | undefined): string {
  if (node === undefined) return 'nothing'
  if (node.kind === 'map') return node.entries.size === 0 ? 'an empty mapping' : 'a mapping'
  if (node.kind === 'list') return node.items.length === 0 ? 'an empty list' : 'a list'
  if (node.interpolatedFrom !== null) return `${quote(node.interpolatedFrom)} with its variables put in`
  if (node.value === null) return 'nothing'
  if (typeof node.value === 'string') return quote(node.value)
  return `${node.text} (${typeof node.value})`
}

export const quote = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}…` : text)
