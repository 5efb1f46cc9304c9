/** Writes report.md and report.json below the volume of reports; a reader never sees half a file. */
import { createHash } from 'node:crypto'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import type { Context } from '@agentctl/cli/agent'
import { fields, REPORTS, reportNameOf } from './inputs.ts'
import type { Collected } from './lead.ts'
import { type Report, renderJson, renderMarkdown, report } from './render.ts'

export interface Written {
  readonly report: string
  readonly files: Readonly<Record<string, string>>
  readonly totals: Readonly<Record<string, number>>
  readonly workers: Readonly<Record<string, number>>
}

function write(folder: string, name: string, content: string): string {
  const unfinished = `${folder}/.${name}.${process.pid}`
  writeFileSync(unfinished, content)
  renameSync(unfinished, `${folder}/${name}`)
  return `sha256:${createHash('sha256').update(content).digest('hex')}`
}

const totalsOf = ({ summary }: Report): Written['totals'] => ({
  files: summary.files,
  bytes: summary.bytes,
  lines: summary.lines,
  languages: Object.keys(summary.languages).length,
  licences: Object.keys(summary.licences).length,
  todo: summary.debt.todo,
  fixme: summary.debt.fixme,
  secrets: summary.secrets.count,
  unreadable: summary.unreadable.count,
})

export default async function reporter(input: unknown, ctx: Context): Promise<Written> {
  const given = fields(input)
  const name = reportNameOf(given)
  const { path, exclude, summary, workers } = fields(given['collected']) as unknown as Collected
  const content = report(path, exclude, summary)
  const folder = `${REPORTS}/${name}`
  mkdirSync(folder, { recursive: true })
  const files = {
    'report.json': write(folder, 'report.json', renderJson(content)),
    'report.md': write(folder, 'report.md', renderMarkdown(content)),
  }
  ctx.progress(`wrote ${folder}/report.md and report.json`)
  return { report: folder, files, totals: totalsOf(content), workers }
}
