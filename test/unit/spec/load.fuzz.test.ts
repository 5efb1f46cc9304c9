import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { problemsView, renderProblems } from '../../../engine/cli/views/problems.ts'
import { configView } from '../../../spec/config.ts'
import { FILE, loadText } from './loading.ts'

/** Text to mutate: every golden case, the bad ones being closest to the edges. */
const folder = join(import.meta.dirname, '../../golden/errors')
const seeds = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('agents.yaml'))
  .map((name) => readFileSync(join(folder, name), 'utf8'))
const tokens = [
  ...new Set(
    seeds
      .join('\n')
      .split(/\s+/)
      .filter((token) => token.length < 40),
  ),
]
const noise = fc.oneof(
  fc.constantFrom(...tokens),
  fc.constantFrom(
    '\t',
    '\n',
    ': ',
    '- ',
    '{',
    '}',
    '[',
    ']',
    '"',
    "'",
    '$',
    '${',
    '${{',
    '}}',
    '&a ',
    '*a',
    '<<: *a',
    '|',
    '>',
    '---\n',
    '#',
    '!',
    '%',
    '\r\n',
    '\u2028',
    '🎉',
    '\0',
    '__proto__',
    'null',
    '-1',
    '1e999',
    '.inf',
    '.nan',
    '0x1F',
  ),
  fc.string({ maxLength: 6 }),
)

type Edit = { readonly at: number; readonly drop: number; readonly put: string }
const edits = fc.array(fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), drop: fc.nat(12), put: noise }), {
  minLength: 1,
  maxLength: 6,
})
const mutate = (text: string, list: readonly Edit[]): string =>
  list.reduce((now, edit) => {
    const at = Math.floor(edit.at * now.length)
    return now.slice(0, at) + edit.put + now.slice(at + edit.drop)
  }, text)

function holds(text: string): void {
  const loaded = loadText(text, { HOME: '/home/user', TAG: '1' })
  const lines = text.replace(/^\uFEFF/, '').split('\n')
  expect(loaded.project === null).toBe(loaded.diagnostics.some((each) => each.severity === 'error'))
  for (const place of loaded.diagnostics.flatMap((each) => [each.place, ...each.notes.map((note) => note.place)])) {
    expect(place, text).not.toBeNull()
    if (place === null) continue
    expect(place.file).toBe(FILE)
    for (const [line, column] of [
      [place.line, place.column],
      [place.end_line, place.end_column],
    ] as const) {
      expect(line).toBeGreaterThan(0)
      expect(column).toBeGreaterThan(0)
      expect(line).toBeLessThanOrEqual(lines.length)
      expect(column).toBeLessThanOrEqual([...(lines[line - 1] ?? '')].length + 1)
    }
  }
  for (const tty of [true, false])
    renderProblems(problemsView(loaded.diagnostics, '/home/user'), loaded.sources, { color: tty, tty, cwd: '/home/user' })
  if (loaded.project !== null) configView(loaded.project)
}

test('load never throws, and every problem has a place inside the file: mutated files', () => {
  fc.assert(
    fc.property(fc.constantFrom(...seeds), edits, (seed, list) => holds(mutate(seed, list))),
    { seed: 4, numRuns: 500 },
  )
}, 60_000)

test('load never throws, and every problem has a place inside the file: any JSON under any key', () => {
  const keys = fc.constantFrom(
    'agents',
    'services',
    'secrets',
    'volumes',
    'pipelines',
    'telemetry',
    'name',
    'a',
    'image',
    'volumes',
    'ports',
    'environment',
    'healthcheck',
    'test',
    'handler',
    'module',
    'jobs',
    'needs',
    'with',
    'foreach',
    'in',
    'as',
    'inputs',
    'default',
    'depends_on',
    'tmpfs',
    'user',
  )
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof({ maxDepth: 5, depthSize: 'medium' }, tie('leaf'), tie('map'), tie('list')),
    leaf: fc.oneof(
      fc.constantFrom(null, true, 0, -1, 1.5, '', 'a', './a:/a', '80:80', '${{ inputs.a }}', '${A:-b}', 'a/b', '~'),
      fc.string({ maxLength: 5 }),
    ),
    map: fc.dictionary(keys, tie('tree'), { maxKeys: 5 }),
    list: fc.array(tie('tree'), { maxLength: 3 }),
  }))
  fc.assert(
    fc.property(tree, tree, tree, (agents, services, pipelines) =>
      holds(JSON.stringify({ agents, services, pipelines: { p: pipelines } })),
    ),
    { seed: 5, numRuns: 400 },
  )
}, 60_000)
