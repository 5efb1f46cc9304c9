import { existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pack } from 'tar-stream'
import { expect, test } from 'vitest'
import { packTree, unpackTree } from '../../../engine/cli/archive.ts'

const folder = (): string => mkdtempSync(join(tmpdir(), 'agentctl-archive-'))
const never = new AbortController().signal

test('a tree goes out and comes back the same', async () => {
  const [from, to] = [folder(), folder()]
  mkdirSync(join(from, 'a/b'), { recursive: true })
  writeFileSync(join(from, 'a/b/one'), 'x'.repeat(200_000), { mode: 0o755 })
  writeFileSync(join(from, 'a/empty'), '')
  symlinkSync('b/one', join(from, 'a/link'))
  expect(await unpackTree(packTree(from, 'top', { uid: 10001, gid: 10001 }, never), to, 'copy')).toBe(3)
  expect(readFileSync(join(to, 'copy/a/b/one'), 'utf8')).toHaveLength(200_000)
  expect(readFileSync(join(to, 'copy/a/empty'), 'utf8')).toBe('')
  expect(readlinkSync(join(to, 'copy/a/link'))).toBe('b/one')
})

test.each(['../evil', 'top/../../evil', 'top/a/../../../evil'])('an entry that leads out (%s) is refused', async (name) => {
  const to = folder()
  const tar = pack()
  tar.entry({ name }, 'x')
  tar.finalize()
  await expect(unpackTree(tar, join(to), 'copy')).rejects.toThrow(/outside of itself/)
  expect(existsSync(join(to, 'evil'))).toBe(false)
})

test('a link that leads out is left out, and nothing is written through one', async () => {
  const [to, outside] = [folder(), folder()]
  const tar = pack()
  tar.entry({ name: 'top/door', type: 'symlink', linkname: outside })
  tar.entry({ name: 'top/door/evil' }, 'x')
  tar.finalize()
  await unpackTree(tar, to, 'copy')
  expect(existsSync(join(outside, 'evil'))).toBe(false)
  symlinkSync(outside, join(to, 'linked'))
  const second = pack()
  second.entry({ name: 'top/evil' }, 'x')
  second.finalize()
  await expect(unpackTree(second, to, 'linked')).rejects.toThrow(/is a link/)
})
