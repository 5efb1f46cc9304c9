import { appendFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readContent } from '../../../../engine/images/content.ts'
import { findPackageRoot } from '../../../../engine/images/package-root.ts'

let root = ''
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'agentctl-content-'))
  cpSync(join(findPackageRoot(), 'package.json'), join(root, 'package.json'))
  cpSync(join(findPackageRoot(), 'engine/images'), join(root, 'engine/images'), { recursive: true })
  for (const file of ['engine/gateway/main.ts', 'engine/cli/main.ts', 'agents/main.ts', 'spec/protocol.ts', 'package-lock.json']) {
    mkdirSync(join(root, file, '..'), { recursive: true })
    writeFileSync(join(root, file), `// ${file}\n`)
  }
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const hashes = (): readonly string[] => readContent(root).parts.map(({ hash }) => hash)
const changed = (file: string): readonly boolean[] => {
  const before = hashes()
  appendFileSync(join(root, file), '\n')
  return hashes().map((hash, index) => hash !== before[index])
}

test.each([
  ['engine/gateway/main.ts', [true, false]],
  ['agents/main.ts', [false, true]],
  ['spec/protocol.ts', [true, true]],
  ['engine/cli/main.ts', [false, false]],
  ['engine/images/base.Dockerfile', [true, true]],
  ['engine/images/agent-tools.Dockerfile', [false, true]],
  ['package-lock.json', [true, true]],
])('a change of %s changes [engine, agent]: %j', (file, expected) => {
  expect(changed(file)).toEqual(expected)
})

test('a package without sources is hashed by its bundles', () => {
  mkdirSync(join(root, 'dist'))
  cpSync(join(root, 'engine/images'), join(root, 'dist/image'), { recursive: true })
  for (const file of ['gateway.mjs', 'egress.mjs', 'controller.mjs', 'agent.mjs']) writeFileSync(join(root, 'dist/image', file), '')
  rmSync(join(root, 'engine'), { recursive: true })
  expect(readContent(root).bundles).toBe(join(root, 'dist/image'))
  expect(changed('dist/image/agent.mjs')).toEqual([false, true])
  expect(changed('dist/image/egress.mjs')).toEqual([true, false])
})
