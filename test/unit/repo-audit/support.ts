/** The audit in one process, as lead and analysts do it together. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { analyse } from '../../../examples/repo-audit/handlers/analyse.ts'
import { split } from '../../../examples/repo-audit/handlers/split.ts'
import { EMPTY, merge, type Summary } from '../../../examples/repo-audit/handlers/summary.ts'
import { walk } from '../../../examples/repo-audit/handlers/walk.ts'

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'repo-audit-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export async function audit(
  root: string,
  options: { partBytes?: number; exclude?: readonly string[] } = {},
): Promise<{ summary: Summary; parts: number; entries: number }> {
  const exclude = options.exclude ?? []
  const parts = split(walk(root, { exclude }), options.partBytes ?? 262_144)
  let summary = EMPTY
  let entries = 0
  for (const part of parts) {
    const analysis = await analyse(root, part, { exclude })
    summary = merge(summary, analysis.summary)
    entries += analysis.entries
  }
  return { summary, parts: parts.length, entries }
}
