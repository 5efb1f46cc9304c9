import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { renderJson, renderMarkdown, report } from '../../../examples/repo-audit/handlers/render.ts'
import { plant } from '../../support/plant.ts'
import { audit, temporaryFolder } from './support.ts'

const HANDLERS = resolve(import.meta.dirname, '../../../examples/repo-audit/handlers')

/** Independent tools of the system, in the folder; the last line of what they say. */
const tool = (folder: string, script: string): number =>
  Number(
    execFileSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } })
      .trim()
      .split('\n')
      .at(-1),
  )

const COUNT = (word: string): string => `find . -type f -exec grep -I -c ${word} {} + | awk -F: '{sum += $NF} END {print sum + 0}'`

test('every planted licence is found, in the place where it stands, and no other', async () => {
  const root = temporaryFolder()
  const planted = plant(root)
  const { summary } = await audit(root)
  const found = Object.fromEntries(
    Object.entries(summary.licences).map(([id, { texts, manifests, headers }]) => [id, { texts, manifests, headers }]),
  )
  expect(found).toEqual(planted.licences)
})

test('the five planted keys are found at their lines, the near misses are not, and no value stands in a report', async () => {
  const root = temporaryFolder()
  const planted = plant(root)
  const { summary } = await audit(root)
  const found = summary.secrets.findings.map(({ path, line, kind }) => ({ path, line, kind }))
  expect(found).toEqual([...planted.secrets].sort((a, b) => (a.path < b.path ? -1 : 1)))
  expect(summary.secrets.count).toBe(5)
  expect(new Set(found.map(({ kind }) => kind)).size).toBe(5)
  const content = report('.', [], summary)
  for (const value of planted.values) {
    expect(renderJson(content)).not.toContain(value.slice(-12))
    expect(renderMarkdown(content)).not.toContain(value.slice(-12))
  }
})

test('the statistics are those of find, wc and grep on the same tree', async () => {
  const root = temporaryFolder()
  const planted = plant(root)
  const { summary, entries } = await audit(root)
  expect(summary.files).toBe(tool(root, 'find . -type f | wc -l'))
  expect(entries).toBe(tool(root, 'find . ! -type d | wc -l'))
  expect(summary.symlinks).toBe(planted.symlinks)
  expect(summary.bytes).toBe(tool(root, 'find . -type f -exec cat {} + | wc -c'))
  expect(summary.lines).toBe(tool(root, 'find . -type f -exec cat {} + | wc -l'))
  expect(summary.debt.todo).toBe(tool(root, COUNT('TODO')))
  expect(summary.debt.fixme).toBe(tool(root, COUNT('FIXME')))
  expect(summary.languages['Python']?.files).toBe(tool(root, "find . -name '*.py' | wc -l"))
  expect(summary.languages['TypeScript']?.lines).toBe(tool(root, "find . -name '*.ts' -exec cat {} + | wc -l"))
  expect(summary.languages['Binary']?.files).toBe(tool(root, "find . -name '*.png' | wc -l"))
  const rows = Object.values(summary.languages)
  expect(rows.reduce((sum, row) => sum + row.files, 0)).toBe(summary.files)
  expect(rows.reduce((sum, row) => sum + row.bytes, 0)).toBe(summary.bytes)
  expect(rows.reduce((sum, row) => sum + row.lines, 0)).toBe(summary.lines)
})

test('a report has the same bytes however the tree is cut', async () => {
  const root = temporaryFolder()
  plant(root)
  const cuts = await Promise.all([1, 3_000, 50_000, 1_000_000, 1_000_000_000].map((partBytes) => audit(root, { partBytes })))
  expect(new Set(cuts.map(({ parts }) => parts)).size).toBeGreaterThan(3)
  const reports = cuts.map(({ summary }) => renderJson(report('.', [], summary)) + renderMarkdown(report('.', [], summary)))
  expect(new Set(reports).size).toBe(1)
})

test('the largest and the most complex files are named, minified ones are not complex', async () => {
  const root = temporaryFolder()
  plant(root)
  writeFileSync(join(root, 'src/tangle.ts'), `${'if (a && b || c) d()\n'.repeat(2_000)}`)
  const { summary } = await audit(root)
  expect(summary.largest[0]?.path).toBe('vendor/bundle.min.js')
  expect(summary.complex[0]).toEqual({ path: 'src/tangle.ts', language: 'TypeScript', branches: 6_000, lines: 2_000 })
  expect(summary.complex.map(({ path }) => path)).not.toContain('vendor/bundle.min.js')
})

test('links are not followed, pipes not opened, and folders left out by name at any depth', async () => {
  const root = temporaryFolder()
  plant(root)
  mkdirSync(join(root, 'lib/node_modules/deep'), { recursive: true })
  writeFileSync(join(root, 'lib/node_modules/deep/index.js'), 'TODO\n')
  symlinkSync('/etc', join(root, 'lib/etc'))
  execFileSync('sh', ['-c', 'mkfifo lib/pipe'], { cwd: root })
  const whole = await audit(root)
  const without = await audit(root, { exclude: ['node_modules'] })
  expect(whole.summary.special).toBe(1)
  expect(without.summary.excluded).toBe(1)
  expect(whole.summary.files - without.summary.files).toBe(1)
  expect(whole.summary.debt.todo - without.summary.debt.todo).toBe(1)
})

test('names that are no UTF-8 are audited and shown with their bytes', async () => {
  const root = temporaryFolder()
  writeFileSync(Buffer.concat([Buffer.from(`${root}/bad-`), Buffer.from([0xff, 0xfe]), Buffer.from('%41.ts')]), 'TODO\n')
  writeFileSync(join(root, 'new\nline.ts'), 'TODO\n')
  const { summary } = await audit(root, { partBytes: 1 })
  expect(summary.debt.top.map(({ path }) => path)).toEqual(['bad-%FF%FE%41.ts', 'new%0Aline.ts'])
})

test('what cannot be read is counted and named', () => {
  const root = temporaryFolder()
  // Root reads everything: the audit runs as somebody else, from copies that somebody else can read.
  cpSync(HANDLERS, join(root, 'handlers'), { recursive: true })
  const tree = join(root, 'tree')
  mkdirSync(join(tree, 'closed'), { recursive: true })
  for (const name of ['open.ts', 'secret.ts', 'closed/inside.ts']) writeFileSync(join(tree, name), 'TODO\n')
  execFileSync('sh', ['-c', 'chmod -R u=rwX,go=rX . && chmod 000 tree/secret.ts tree/closed'], { cwd: root })
  const script = `const { analyse } = await import(${JSON.stringify(join(root, 'handlers/analyse.ts'))})
    console.log(JSON.stringify((await analyse(${JSON.stringify(tree)}, { from: null, until: null }, { exclude: [] })).summary))`
  writeFileSync(join(root, 'run.mjs'), script, { mode: 0o644 })
  const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
  const summary: { files: number; debt: { todo: number }; unreadable: unknown } = JSON.parse(
    execFileSync(process.execPath, [join(root, 'run.mjs')], { encoding: 'utf8', cwd: root, ...nobody }),
  )
  execFileSync('chmod', ['-R', 'u+rwX', tree])
  expect(summary.unreadable).toEqual({ count: 2, paths: ['closed', 'secret.ts'] })
  expect(summary.files).toBe(2)
  expect(summary.debt.todo).toBe(1)
})
