/** The orchestrator: walks the tree, cuts it into parts, has the analysts do them and joins what they found. */
import { statSync } from 'node:fs'
import type { Context } from '@agentctl/cli/agent'
import type { PartResult } from './analyst.ts'
import { fields, partBytesOf, type Tree, treeOf } from './inputs.ts'
import { type Part, split } from './split.ts'
import { EMPTY, merge, type Summary } from './summary.ts'
import { walk } from './walk.ts'

export interface Collected {
  readonly path: string
  readonly exclude: readonly string[]
  readonly summary: Summary
  /** How many parts each replica did: for people and tests, never for the report. */
  readonly workers: Readonly<Record<string, number>>
}

function partsOf(tree: Tree, partBytes: number): readonly Part[] {
  const found = statSync(tree.root, { throwIfNoEntry: false })
  if (!found?.isDirectory())
    throw new Error(`"${tree.given}" is no folder of the source tree; fill it with: agentctl cp FOLDER intake:/source`)
  return split(walk(tree.root, { exclude: tree.exclude }), partBytes)
}

export default async function lead(input: unknown, ctx: Context): Promise<Collected> {
  const given = fields(input)
  const tree = treeOf(given)
  const parts = partsOf(tree, partBytesOf(given))
  ctx.progress({ message: `${tree.given}: ${parts.length} parts`, percent: 0 })
  let done = 0
  const results = await Promise.all(
    parts.map(async (part) => {
      // The key names the part: a lead that died and runs again gets the results of the children that it had.
      const result = await ctx.delegate<PartResult>(
        'analyst',
        { path: tree.given, exclude: tree.exclude, part },
        { key: `part-${part.index}`, type: 'analyse' },
      )
      done += 1
      ctx.progress({ message: `part ${part.index + 1} done`, percent: Math.floor((100 * done) / parts.length) })
      if (result.entries !== part.entries)
        throw new Error(
          `the tree changed during the audit: part ${part.index + 1} had ${part.entries} entries and then ${result.entries}; run it again`,
        )
      return result
    }),
  )
  const workers: Record<string, number> = {}
  for (const { worker } of results) workers[worker] = (workers[worker] ?? 0) + 1
  return { path: tree.given, exclude: tree.exclude, summary: results.reduce((sum, result) => merge(sum, result.summary), EMPTY), workers }
}
