/** A worker: analyses one part of the tree and answers with a summary of bounded size. */
import type { Context } from '@agentctl/cli/agent'
import { analyse } from './analyse.ts'
import { fields, partOf, treeOf } from './inputs.ts'
import type { Summary } from './summary.ts'

export interface PartResult {
  readonly entries: number
  readonly summary: Summary
  /** Which replica did it. */
  readonly worker: string
}

export default async function analyst(input: unknown, ctx: Context): Promise<PartResult> {
  const given = fields(input)
  const tree = treeOf(given)
  const part = partOf(given['part'])
  const { entries, summary } = await analyse(tree.root, part, { exclude: tree.exclude, signal: ctx.signal })
  const worker = `analyst-${process.env['AGENTCTL_REPLICA'] ?? '?'}`
  ctx.log('part analysed', { part: part.index, worker, files: summary.files, bytes: summary.bytes })
  return { entries, summary, worker }
}
