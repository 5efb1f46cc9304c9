/** `npm run quickstart` as a user starts it, from a checkout that only its owner can read; and stopped in the middle. */
import { execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Report } from '../../examples/repo-audit/handlers/render.ts'
import { cleanup, leftovers } from '../support/docker.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** mkdtemp makes it 0700: nothing below can be reached by anybody else. */
const folder = mkdtempSync(join(tmpdir(), 'agentctl-quickstart-test-'))
const checkout = join(folder, 'checkout')
const projects = new Set<string>()

interface Ended {
  readonly code: number | null
  readonly text: string
  readonly project: string
}

/** `until`: the output after which Ctrl-C comes. */
async function quickstart(args: readonly string[], until: RegExp | null): Promise<Ended> {
  const child = spawn(process.execPath, [join(checkout, 'examples/repo-audit/quickstart.ts'), ...args], {
    cwd: checkout,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 280_000,
  })
  let text = ''
  let stopped = false
  const hear = (chunk: Buffer): void => {
    text += chunk.toString('utf8')
    if (until !== null && !stopped && until.test(text)) stopped = child.kill('SIGINT')
  }
  child.stdout.on('data', hear)
  child.stderr.on('data', hear)
  const code = await new Promise<number | null>((done, fail) => child.on('error', fail).on('close', done))
  const project = /as project "(quickstart-[0-9a-f]+)"/.exec(text)?.[1] ?? ''
  projects.add(project)
  return { code, text, project }
}

beforeAll(() => {
  const left = new Set(['.git', 'node_modules', 'dist', 'coverage', 'audit-report'])
  cpSync(ROOT, checkout, { recursive: true, filter: (path) => !left.has(relative(ROOT, path).split('/')[0] ?? '') })
  execFileSync('chmod', ['-R', 'go=', checkout])
  execFileSync('cp', ['-al', join(ROOT, 'node_modules'), checkout])
}, 120_000)

afterAll(async () => {
  for (const project of projects) if (project !== '') await cleanup(project)
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

test('it audits the project and its node_modules, writes both reports, says what it did and leaves nothing behind', async () => {
  const { code, text, project } = await quickstart(['--out', join(folder, 'out')], null)
  expect(code, text).toBe(0)
  const find = (tree: string, ...args: string[]): number =>
    execFileSync('find', [tree, ...args, '-type', 'f', '-print0'], { maxBuffer: 100_000_000 }).filter((byte) => byte === 0).length
  const files = (name: string): number =>
    (JSON.parse(readFileSync(join(folder, 'out', name, 'report.json'), 'utf8')) as Report).summary.files
  expect(files('project')).toBe(find(checkout, '-path', join(checkout, 'node_modules'), '-prune', '-o'))
  expect(files('node_modules')).toBe(find(join(checkout, 'node_modules')))
  expect(readFileSync(join(folder, 'out/project/report.md'), 'utf8')).toContain('# Audit of `project`')
  expect(text).toContain(`$ agentctl -p ${project} up -d`)
  expect(text).toMatch(/done by +analyst-1: \d+ parts, analyst-2: \d+ parts, analyst-3: \d+ parts/)
  expect(text).toContain('Try next:')
  expect(await leftovers(project)).toEqual([])
}, 300_000)

test('Ctrl-C takes everything down and exits with 130', async () => {
  const { code, text, project } = await quickstart(['--out', join(folder, 'stopped')], /\$ agentctl .* cp /)
  expect(code, text).toBe(130)
  expect(text).toContain('Interrupted.')
  expect(await leftovers(project)).toEqual([])
}, 300_000)
