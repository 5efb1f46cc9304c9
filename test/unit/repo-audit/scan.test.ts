import { execFileSync } from 'node:child_process'
import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { scanFile, WINDOW_BYTES } from '../../../examples/repo-audit/handlers/scan.ts'
import { random } from '../../support/plant.ts'
import { temporaryFolder } from './support.ts'

const scan = (root: string, name: string, content: string | Buffer): ReturnType<typeof scanFile> => {
  writeFileSync(join(root, name), content)
  return scanFile(Buffer.from(join(root, name)), name)
}
const token = (seed: number): string => {
  const next = random(seed)
  return [
    'gh',
    'p_',
    Array.from({ length: 36 }, () => 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'[Math.floor(next() * 62)]).join(''),
  ].join('')
}

test('a key is found once, at its line, wherever the edge of a window cuts it', () => {
  const root = temporaryFolder()
  for (const edge of [-8_192, 0, 8_192]) {
    for (const shift of [-41, -40, -20, -4, -1, 0, 1]) {
      const before = `a\n${'x = 1\n'.repeat(10)}`
      const facts = scan(
        root,
        'big.ts',
        `${before}${'y'.repeat(WINDOW_BYTES + edge + shift - before.length - 1)} ${token(7)} TODO ${'z '.repeat(20_000)}\nTODO\n`,
      )
      expect(facts.secrets.map(({ line, kind }) => ({ line, kind }))).toEqual([{ line: 12, kind: 'github-token' }])
      expect(facts.todo).toBe(2)
    }
  }
})

test('lines with a word are counted like grep -c, also in lines of many megabytes', () => {
  const root = temporaryFolder()
  const word = fc.constantFrom('TODO', 'FIXME', '\n', 'x'.repeat(400_000), ' ')
  fc.assert(
    fc.property(fc.array(word, { maxLength: 25 }), (words) => {
      const facts = scan(root, 'words.txt', words.join(''))
      const counted = (name: string): number =>
        Number(execFileSync('sh', ['-c', `grep -c ${name} words.txt || true`], { cwd: root, encoding: 'utf8' }))
      expect([facts.todo, facts.fixme]).toEqual([counted('TODO'), counted('FIXME')])
      expect([facts.lines, facts.bytes]).toEqual([words.filter((one) => one === '\n').length, words.join('').length])
    }),
    { numRuns: 25 },
  )
})

test('binary files, bytes that are no UTF-8 and files without a last newline are counted as wc counts them', () => {
  const root = temporaryFolder()
  expect(scan(root, 'a.bin', Buffer.from([0, 10, 10, 255, 10]))).toMatchObject({ binary: true, lines: 3, bytes: 5, language: 'Binary' })
  expect(scan(root, 'a.txt', Buffer.from([0xff, 0xfe, 10, 0xc3]))).toMatchObject({ binary: false, lines: 1, bytes: 4, language: 'Text' })
  expect(scan(root, 'empty.md', '')).toMatchObject({ binary: false, lines: 0, bytes: 0, language: 'Markdown' })
})

test('a link that took the place of a file is not followed', () => {
  const root = temporaryFolder()
  symlinkSync('/etc/hostname', join(root, 'link'))
  expect(() => scanFile(Buffer.from(join(root, 'link')), 'link')).toThrow('ELOOP')
})

test('the language comes from the name, else from the #! line', () => {
  const root = temporaryFolder()
  expect(scan(root, 'run', '#!/usr/bin/env bash\nif true; then x && y; fi\n')).toMatchObject({ language: 'Shell', branches: 2 })
  expect(scan(root, 'Dockerfile', 'FROM scratch\n')).toMatchObject({ language: 'Dockerfile', branches: null })
  expect(scan(root, 'a.ts', 'const f = (a?: string) => a?.b ?? (c ? d : e)\n')).toMatchObject({ language: 'TypeScript', branches: 2 })
})
