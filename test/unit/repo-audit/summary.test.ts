import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LANGUAGES } from '../../../examples/repo-audit/handlers/languages.ts'
import { KNOWN, UNRECOGNISED } from '../../../examples/repo-audit/handlers/licences.ts'
import { SHOWN_BYTES, shown } from '../../../examples/repo-audit/handlers/paths.ts'
import { EMPTY, type FileFacts, merge, ofFile } from '../../../examples/repo-audit/handlers/summary.ts'
import { MAX_PAYLOAD_BYTES } from '../../../spec/protocol.ts'

const count = fc.nat(50)
const facts: fc.Arbitrary<FileFacts> = fc.record({
  bytes: count,
  lines: count,
  binary: fc.boolean(),
  language: fc.constantFrom('Go', 'Rust', 'C'),
  licences: fc.array(fc.record({ id: fc.constantFrom('MIT', 'ISC'), source: fc.constantFrom('texts', 'manifests', 'headers') }), {
    maxLength: 2,
  }),
  todo: count,
  fixme: count,
  secrets: fc.array(fc.record({ line: count, kind: fc.constantFrom('jwt', 'npm-token'), redacted: fc.constant('****') }), { maxLength: 3 }),
  branches: fc.option(count),
})
const summaries = fc.array(fc.tuple(fc.string({ minLength: 1, maxLength: 4 }), facts), { maxLength: 40 })

test('merging is associative and commutative: any grouping and order of the files gives the same bytes', () => {
  fc.assert(
    fc.property(summaries, fc.array(fc.nat(40), { maxLength: 5 }), (files, cuts) => {
      const all = files.map(([path, fact]) => ofFile(path, fact))
      const straight = all.reduce(merge, EMPTY)
      const edges = [0, ...cuts.filter((cut) => cut <= all.length).sort((a, b) => a - b), all.length]
      const groups = edges.slice(1).map((edge, index) => all.slice(edges[index], edge).reduce(merge, EMPTY))
      expect(JSON.stringify(groups.toReversed().reduce((sum, group) => merge(group, sum), EMPTY))).toBe(JSON.stringify(straight))
    }),
    { numRuns: 200 },
  )
})

test('the summary of the worst tree fits into a result', () => {
  const path = (index: number): string => `${'"\\'.repeat(300)}${index}`
  expect(Buffer.byteLength(JSON.stringify(shown(path(1))))).toBeLessThanOrEqual(SHOWN_BYTES + 2)
  const ids = [...KNOWN, UNRECOGNISED]
  const big = Number.MAX_SAFE_INTEGER
  let worst = EMPTY
  for (let index = 0; index < 150; index++) {
    const file = ofFile(path(1_000 + index), {
      bytes: 9e12,
      lines: 9e12,
      binary: false,
      language: LANGUAGES[index % LANGUAGES.length] ?? '',
      todo: 1e9,
      fixme: 1e9,
      branches: 1e9,
      licences: [{ id: ids[index % ids.length] ?? '', source: 'texts' }],
      secrets: [{ line: 1e9, kind: `aws-secret-access-key${index % 20}`, redacted: '-----BEGIN ****** PRIVATE KEY-----' }],
    })
    worst = merge(worst, {
      ...file,
      special: big - worst.special,
      symlinks: 9e9 - worst.symlinks,
      unreadable: { count: 1, paths: [shown(path(index))] },
    })
  }
  expect(Object.keys(worst.languages).length).toBe(LANGUAGES.length)
  expect(worst.secrets.findings.length).toBe(100)
  // The lead's result has the path, the names left out and the workers beside it.
  expect(Buffer.byteLength(JSON.stringify(worst))).toBeLessThan(MAX_PAYLOAD_BYTES - 4_096)
})
