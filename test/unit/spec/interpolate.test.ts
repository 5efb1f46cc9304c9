import { expect, test } from 'vitest'
import { loadText, problems, project } from './loading.ts'

const value = (text: string, environment: { [name: string]: string } = {}): string | undefined =>
  project(`agents:\n  a:\n    environment: { X: ${JSON.stringify(text)} }\n`, environment).agents['a']?.environment['X']

test.each([
  ['$A', 'set'],
  ['${A}', 'set'],
  ['${A:-d}', 'set'],
  ['${E:-d}', 'd'],
  ['${E-d}', ''],
  ['${N-d}', 'd'],
  ['${N:-}', ''],
  ['${A:+x}', 'x'],
  ['${E:+x}', ''],
  ['${E+x}', 'x'],
  ['${N+x}', ''],
  ['${A:?why}', 'set'],
  ['${E?why}', ''],
  ['${N:-${A}-${N:-deep}}', 'set-deep'],
  ['${N:-a$$b}', 'a$b'],
  ['$$A $${A}', '$A ${A}'],
  ['$$$A', '$set'],
  ['${A}${A}', 'setset'],
  ['${A:-$Z}', 'set'],
  ['http://${H:-localhost:80}/p?x=1', 'http://localhost:80/p?x=1'],
  ['$${{ a }}', '${{ a }}'],
])('%s is %s', (text, expected) => {
  expect(value(text, { A: 'set', E: '' })).toBe(expected)
})

test('the names that the file mentions are recorded, nested and unused ones too', () => {
  const loaded = loadText('name: ${B:-x}\nagents: { a: { image: "x:${A:-${C:-1}}", labels: { l: "$$D ${{ E }}" } } }\n')
  expect(loaded.variables).toEqual(['A', 'B', 'C'])
})

test('an unset variable is a warning that points into the scalar, as in Compose empty', () => {
  const loaded = loadText('agents:\n  a: { environment: { X: "hello $WHO" } }\n')
  expect(loaded.project?.agents['a']?.environment['X']).toBe('hello ')
  expect(loaded.diagnostics).toMatchObject([{ code: 'AG1008', severity: 'warning', place: { line: 2, column: 33, end_column: 37 } }])
})

test('a problem of an aliased value is reported once', () => {
  expect(problems(loadText('x-e: &e { X: "${N:?needed}" }\nagents: { a: { environment: *e }, b: { environment: *e } }\n'))).toHaveLength(1)
})

test('names of Object.prototype are not variables', () => {
  expect(value('${constructor:-none}${toString:-none}')).toBe('nonenone')
})

test('numbers and flags may come from variables, plain or quoted', () => {
  const text =
    'agents:\n  a:\n    replicas: "${N}"\n    cpus: ${C}\n    mem_limit: $M\n    volumes: [{ type: bind, source: ., target: /x, read_only: $R }]\n'
  expect(project(text, { N: '3', C: '0.5', M: '64m', R: 'true' }).agents['a']).toMatchObject({
    replicas: 3,
    cpus: 0.5,
    mem_limit: 67108864,
    mounts: [{ read_only: true }],
  })
})

test('in `with`, a plain value reads as YAML would read it, a quoted one stays text', () => {
  const text =
    'agents: { a: {} }\npipelines:\n  p:\n    jobs:\n      j:\n        agent: a\n        with:\n          n: ${N}\n          s: "${N}"\n          b: $B\n          t: ${T}\n'
  expect(project(text, { N: '3', B: 'true', T: '007' }).pipelines['p']?.jobs['j']?.with).toEqual({ n: 3, s: '3', b: true, t: '007' })
})

test('deep nesting and long dollars do not exhaust the stack', () => {
  expect(problems(loadText(`agents: { a: { image: "${'${A:-'.repeat(5000)}${'}'.repeat(5000)}" } }\n`))[0]).toContain('nested deeper')
  expect(value('$$'.repeat(50_000))).toHaveLength(50_000)
})
