import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { folderOf, fromWire, toWire } from '../../../examples/repo-audit/handlers/paths.ts'
import { MAX_PARTS, split } from '../../../examples/repo-audit/handlers/split.ts'
import { type Entry, walk } from '../../../examples/repo-audit/handlers/walk.ts'
import { MAX_PAYLOAD_BYTES } from '../../../spec/protocol.ts'
import { plant } from '../../support/plant.ts'
import { temporaryFolder } from './support.ts'

const raw = (wire: string | null): string | null => (wire === null ? null : fromWire(wire))

test('the parts of a walk, walked one by one, are the walk', () => {
  const root = temporaryFolder()
  plant(root)
  execFileSync('sh', ['-c', 'mkdir -p a/b "a b" a-b a.b; touch a/z a/b/y "a b/x" a-b/w a.b/v a0'], { cwd: root })
  const whole = [...walk(root)].map(({ path }) => path)
  expect(whole.length).toBe(Number(execFileSync('sh', ['-c', 'find . ! -type d | wc -l'], { cwd: root, encoding: 'utf8' })))
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2_000_000 }), (target) => {
      const parts = split(walk(root), target)
      expect(parts.length).toBeLessThanOrEqual(MAX_PARTS)
      const pieces = parts.map((part) =>
        [...walk(root, { range: { from: raw(part.from), until: raw(part.until) } })].map(({ path }) => path),
      )
      expect(pieces.map((piece) => piece.length)).toEqual(parts.map((part) => part.entries))
      expect(pieces.flat()).toEqual(whole)
    }),
    { numRuns: 25 },
  )
})

function* huge(): Generator<Entry> {
  for (let index = 0; index < 200_000; index++)
    yield { path: `${'deep/'.repeat(40)}${String(index).padStart(6, '0')}`, kind: 'file', size: index % 1000 === 0 ? 5_000_000 : 700 }
}

test('a huge tree has a bounded number of parts, about equally heavy', () => {
  const parts = split(huge(), 262_144)
  expect(parts.length).toBeGreaterThan(20)
  expect(parts.length).toBeLessThanOrEqual(MAX_PARTS)
  expect(Math.max(...parts.map(({ bytes }) => bytes))).toBeLessThan(100_000_000)
  expect(JSON.stringify(parts).length).toBeLessThan(MAX_PAYLOAD_BYTES)
})

test('an empty tree has one empty part', () => {
  expect(split(walk(temporaryFolder()), 1)).toEqual([{ index: 0, from: null, until: null, entries: 0, bytes: 0 }])
})

test('every name comes back from its form for JSON', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 1 }), (bytes) => {
      const path = Buffer.from(bytes).toString('latin1')
      expect(fromWire(JSON.parse(JSON.stringify(toWire(path))))).toBe(path)
    }),
  )
  expect(toWire(Buffer.from('größe/ü.ts').toString('latin1'))).toBe('größe/ü.ts')
})

test('a path stays inside the tree', () => {
  expect(folderOf('./packages//core/')).toBe('packages/core')
  expect(() => folderOf('../etc')).toThrow('must stay inside the source tree, got "../etc"')
  expect(() => folderOf('/etc')).toThrow('give a folder relative to it')
  expect(() => folderOf(7)).toThrow('"path" must be a string')
  expect(join('/source', folderOf('a/./b'))).toBe('/source/a/b')
})
