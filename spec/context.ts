/** What the files of the normalize phase share. */
import { posix } from 'node:path'
import type { Environment } from './interpolate.ts'
import type { Report } from './problems.ts'
import type { Span } from './source.ts'
import { itemsOf, type Node, textOf } from './tree.ts'

export interface Context {
  /** Relative paths start here: the folder of the file. */
  readonly folder: string
  readonly environment: Environment
  readonly report: Report
  /** Remembers where the value with that dotted path stands: "agents.x.mounts.0". */
  readonly mark: (path: string, span: Span) => void
}

/** A path of the file's, absolute. */
export function pathOf(text: string, context: Context, span: Span): string {
  if (text !== '~' && !text.startsWith('~/')) return posix.resolve(context.folder, text)
  const home = context.environment['HOME']
  if (home === undefined || home === '') {
    context.report('AG1008', span, '"~" stands for HOME, which is not set', { help: 'write the whole path' })
    return text
  }
  return posix.resolve(home, `.${text.slice(1)}`)
}

/** A list of names, each with its place. */
export function names(node: Node | undefined, at: string, context: Context): readonly string[] {
  const items = node?.kind === 'scalar' && node.value !== null ? [node] : itemsOf(node)
  for (const [index, item] of items.entries()) context.mark(`${at}.${index}`, item.span)
  return items.map(textOf)
}
