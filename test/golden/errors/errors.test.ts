import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { problemsView, renderProblems } from '../../../engine/cli/views/problems.ts'
import { CODES } from '../../../spec/codes.ts'
import { type Loaded, load } from '../../../spec/load.ts'

/** A case is a folder: agents.yaml, errors.txt and, where needed, options.json. `vitest -u` writes errors.txt anew. */
const here = import.meta.dirname
const cases = readdirSync(here, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name)

const ENVIRONMENT = { HOME: '/home/user', EMPTY: '', PASSWORD: 'hunter2', TAG: '1.2' }

function loadCase(name: string): Loaded {
  const file = join(here, name, 'options.json')
  const options = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { files?: string[]; projectName?: string }) : {}
  return load({
    files: (options.files ?? ['agents.yaml']).map((each) => `/project/${each}`),
    readFile: (path) => readFileSync(join(here, name, path.replace('/project/', '')), 'utf8'),
    environment: ENVIRONMENT,
    ...(options.projectName === undefined ? {} : { projectName: options.projectName }),
  })
}

/** What a terminal shows, then what a pipe gets. */
function text({ diagnostics, sources }: Loaded): string {
  const view = problemsView(diagnostics, '/project')
  const render = (tty: boolean): string => renderProblems(view, sources, { color: false, tty, cwd: '/project' })
  return `${render(true)}\n--- not a terminal ---\n${render(false)}`
}

describe('every mistake has its text', () => {
  test.each(cases)('%s', async (name) => {
    const loaded = loadCase(name)
    expect(loaded.diagnostics.length).toBeGreaterThan(0)
    expect(loaded.project === null).toBe(loaded.diagnostics.some((each) => each.severity === 'error'))
    await expect(text(loaded)).toMatchFileSnapshot(join(here, name, 'errors.txt'))
  })
})

test('every code of the file is produced by a case', () => {
  const produced = new Set<string>(cases.flatMap((name) => loadCase(name).diagnostics.map((each) => each.code)))
  const wanted = Object.keys(CODES).filter((code) => /^AG[12]/.test(code) || code === 'AG3001' || code === 'AG3004')
  expect(wanted.filter((code) => !produced.has(code))).toEqual([])
})

test('there are at least forty cases', () => {
  expect(cases.length).toBeGreaterThanOrEqual(40)
})

test('no value of the environment is shown', () => {
  for (const name of cases) expect(text(loadCase(name))).not.toContain(ENVIRONMENT.PASSWORD)
})
