/** The example through the built command, on the real engine: three analysts share the work, and a killed one changes no byte of the report. */
import { execFile, execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { renderJson, renderMarkdown, report } from '../../examples/repo-audit/handlers/render.ts'
import type { Written } from '../../examples/repo-audit/handlers/reporter.ts'
import type { RunEvent, RunView } from '../../spec/protocol.ts'
import { cleanup, eventually, leftovers, uniqueProject } from '../support/docker.ts'
import { plant, type Planted } from '../support/plant.ts'
import { audit } from '../unit/repo-audit/support.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const PART_BYTES = 4_000_000
const project = uniqueProject('audit')
const folder = mkdtempSync(join(tmpdir(), 'agentctl-audit-'))
const tree = join(folder, 'tree')
let planted: Planted
let expected: { readonly json: string; readonly markdown: string }

const run = promisify(execFile)
async function agentctl(...args: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [join(ROOT, 'engine/cli/bin.js'), '-p', project, ...args], {
    cwd: join(folder, 'repo-audit'),
    timeout: 280_000,
    maxBuffer: 64_000_000,
  })
  return stdout
}
const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await agentctl(...args, '--format', 'json'))
const writtenOf = (view: RunView): Written => (view.result as unknown as { report: Written }).report
const INPUTS = ['--input', 'path=tree', '--input', `part_bytes=${PART_BYTES}`]

async function fetched(name: string): Promise<{ json: string; markdown: string }> {
  await agentctl('cp', `reporter:/reports/${name}`, folder)
  return { json: readFileSync(join(folder, name, 'report.json'), 'utf8'), markdown: readFileSync(join(folder, name, 'report.md'), 'utf8') }
}

beforeAll(async () => {
  chmodSync(folder, 0o755)
  cpSync(join(ROOT, 'examples/repo-audit'), join(folder, 'repo-audit'), { recursive: true })
  execFileSync('chmod', ['-R', 'u=rwX,go=rX', folder])
  planted = plant(tree, { modules: 200 })
  // Enough work for some seconds, so that a worker can be killed in the middle of a part.
  const block = readFileSync(join(tree, 'lib/part-1/module-1.ts')).toString('latin1').repeat(120)
  mkdirSync(join(tree, 'big'))
  for (let index = 0; index < 30; index++) for (let part = 0; part < 10; part++) appendFileSync(join(tree, `big/${index}.ts`), block)
  const { summary } = await audit(tree, { partBytes: PART_BYTES, exclude: ['.git'] })
  expected = { json: renderJson(report('tree', ['.git'], summary)), markdown: renderMarkdown(report('tree', ['.git'], summary)) }
  // A checkout under umask 077 is its owner's alone.
  execFileSync('chmod', ['-R', 'go=', tree])
  await agentctl('up', '-d')
  await agentctl('cp', tree, 'intake:/source')
}, 600_000)

afterAll(async () => {
  await cleanup(project)
  rmSync(folder, { recursive: true, force: true })
}, 180_000)

test('each of three analysts did a part, and the report is what one process finds', async () => {
  const view = await json<RunView>('run', 'audit', ...INPUTS, '--input', 'report=whole')
  expect(view.status).toBe('completed')
  const written = writtenOf(view)
  expect(Object.keys(written.workers).sort()).toEqual(['analyst-1', 'analyst-2', 'analyst-3'])
  const got = await fetched('whole')
  expect(got).toEqual(expected)
  const { summary }: ReturnType<typeof report> = JSON.parse(got.json)
  expect(Object.keys(summary.licences)).toEqual(Object.keys(planted.licences).sort())
  expect(summary.secrets.findings.map(({ path, line, kind }) => ({ path, line, kind }))).toEqual(
    [...planted.secrets].sort((a, b) => (a.path < b.path ? -1 : 1)),
  )
  for (const value of planted.values) expect(got.json + got.markdown).not.toContain(value.slice(-12))
})

interface PsView {
  readonly containers: readonly { readonly name: string; readonly agent: string | null; readonly tasks: number | null }[]
}

const docker = (...args: string[]): void => void execFileSync('docker', args, { timeout: 20_000, stdio: 'ignore' })
const atWork = async (): Promise<readonly string[]> =>
  (await json<PsView>('ps')).containers.filter(({ agent, tasks }) => agent === 'analyst' && (tasks ?? 0) > 0).map(({ name }) => name)

/** An analyst that holds a part and, frozen, cannot finish it before it is killed. */
async function frozenAtWork(): Promise<string | null> {
  const [name] = await atWork()
  if (name === undefined) return null
  docker('pause', name)
  if ((await atWork()).includes(name)) return name
  docker('unpause', name)
  return null
}

test('an analyst killed in the middle of its part changes no byte of the report', async () => {
  const { run: id } = await json<RunView>('run', 'audit', ...INPUTS, '--input', 'report=killed', '--detach')
  const busy = await eventually(() => frozenAtWork(), 60_000, 'an analyst in the middle of a part')
  docker('kill', busy)
  const view = await json<RunView>('runs', 'wait', id)
  expect(view.status).toBe('completed')
  const events = (await agentctl('runs', 'logs', id, '--format', 'json'))
    .trim()
    .split('\n')
    .map((line): RunEvent => JSON.parse(line))
  // The part that the killed one held went back to the queue, and to somebody else.
  expect(events.filter(({ agent, event }) => agent === 'analyst' && event === 'requeued').length).toBeGreaterThan(0)
  const parts = Object.values(writtenOf(view).workers).reduce((sum, count) => sum + count, 0)
  expect(new Set(events.filter(({ agent, event }) => agent === 'analyst' && event === 'completed').map(({ task }) => task)).size).toBe(
    parts,
  )
  expect(await fetched('killed')).toEqual(expected)
})

test('down -v leaves nothing behind', async () => {
  await agentctl('down', '-v')
  expect(await leftovers(project)).toEqual([])
})
