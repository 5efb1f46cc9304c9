import { expect, test } from 'vitest'
import { parse } from '../../../spec/parse.ts'
import { collector } from '../../../spec/problems.ts'
import { makeSource } from '../../../spec/source.ts'
import { nodeAt, toJson } from '../../../spec/tree.ts'
import { loadText, problems, project } from './loading.ts'

function read(text: string): { json: unknown; problems: string[] } {
  const { report, diagnostics } = collector()
  const root = parse(makeSource('/f', text), report)
  return {
    json: root === null ? null : toJson(root),
    problems: diagnostics().map((each) => `${each.place?.line}:${each.place?.column} ${each.message}`),
  }
}

test('anchors, aliases and merge keys work, own keys win, then the first merged mapping', () => {
  const { json, problems } = read('a: &a { x: 1, y: 1 }\nb: &b { y: 2, z: 2 }\nc: { <<: [*a, *b], x: 3 }\nd: { <<: *b }\ne: *a\n')
  expect(problems).toEqual([])
  expect(json).toMatchObject({ c: { x: 3, y: 1, z: 2 }, d: { y: 2, z: 2 }, e: { x: 1, y: 1 } })
})

test('an anchor may be defined again', () => {
  expect(read('a: &x 1\nb: *x\nc: &x 2\nd: *x\n').json).toEqual({ a: 1, b: 1, c: 2, d: 2 })
})

test('keys stay strings: on, 1 and null are names', () => {
  expect(read('on: 1\n1: 2\nnull: 3\n').json).toEqual({ on: 1, 1: 2, null: 3 })
})

test('a key called __proto__ is data', () => {
  expect(Object.keys(read('__proto__: { x: 1 }\n').json as object)).toEqual(['__proto__'])
})

test('a byte order mark is no content', () => {
  expect(project('\uFEFFname: x\nagents: { a: {} }\n').name).toBe('x')
})

test('Windows line ends keep the places right', () => {
  expect(problems(loadText('agents:\r\n  a:\r\n    nope: 1\r\n'))).toEqual(['3:5 AG1004 unknown key "nope" in agent "a"'])
})

test('a value that is missing is pointed at by its key', () => {
  const { report } = collector()
  const root = parse(makeSource('/f', 'agents:\n  a:\n'), report)
  expect(root && nodeAt(root, ['agents', 'a']).span).toMatchObject({ start: 10, end: 11 })
})

test('a variable inside braces needs quotes, and the message says so', () => {
  expect(loadText('agents: { a: { cpus: ${N} } }\n').diagnostics[0]?.help).toBe('put the value in quotes')
})

test('a bomb of aliases is refused quickly', () => {
  const lines = [
    'x0: &a0 [x, x, x, x, x, x, x, x, x, x]',
    ...Array.from({ length: 30 }, (_, n) => `x${n + 1}: &a${n + 1} [${Array(10).fill(`*a${n}`).join(', ')}]`),
  ]
  expect(read(lines.join('\n')).problems).toEqual([expect.stringContaining('more than 50000 values')])
})

test('a bomb of merges is refused', () => {
  const wide = `x0: &a0 { ${Array.from({ length: 5000 }, (_, n) => `k${n}: 1`).join(', ')} }`
  const merges = Array.from({ length: 20 }, (_, n) => `y${n}: { <<: *a0 }`)
  expect(read([wide, ...merges].join('\n')).problems).toEqual([expect.stringContaining('more than 50000 values')])
})

test.each([['['], ['{a: '], ['- ']])('thousands of %s are an error, not a crash', (open) => {
  expect(read(open.repeat(20_000)).problems.length).toBeGreaterThan(0)
})
