import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
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

type Entry = readonly [name: string, type: 'file' | 'directory' | 'symlink' | 'link', linkname?: string]

/** Unpacks into HOST/dl/copy; what it holds and the rest of HOST are looked at afterwards. */
async function unpackOnHost(entries: readonly Entry[]): Promise<{ host: string; outcome: unknown }> {
  const host = folder()
  for (const name of ['dl', 'home']) mkdirSync(join(host, name))
  writeFileSync(join(host, 'home/.bashrc'), 'MINE')
  const tar = pack()
  for (const [name, type, linkname] of entries)
    tar.entry({ name, type, ...(linkname === undefined ? {} : { linkname }) }, type === 'file' ? 'EVIL' : '')
  tar.finalize()
  const outcome = await unpackTree(tar, join(host, 'dl'), 'copy').catch((error: unknown) => error)
  return { host, outcome }
}

function expectUntouched(host: string): void {
  expect(readdirSync(host).sort()).toEqual(['dl', 'home'])
  expect(readdirSync(join(host, 'dl')).filter((it) => it !== 'copy')).toEqual([])
  expect(readdirSync(join(host, 'home'))).toEqual(['.bashrc'])
  expect(lstatSync(join(host, 'home/.bashrc')).isFile()).toBe(true)
  expect(readFileSync(join(host, 'home/.bashrc'), 'utf8')).toBe('MINE')
}

test.each<[string, RegExp, readonly Entry[]]>([
  [
    'a link made through a link, to replace a file of the host',
    /is a link/,
    [
      ['top/home/', 'directory'],
      ['top/p/', 'directory'],
      ['top/dl/top/', 'directory'],
      ['top/dl/top/evil', 'file'],
      ['top/evil', 'file'],
      ['top/p/a', 'symlink', '..'],
      ['top/p/a/x', 'symlink', '../../home'],
      ['top/x/.bashrc', 'symlink', '../dl/top/evil'],
    ],
  ],
  [
    'a link made through a link, to read a file of the host',
    /is a link/,
    [
      ['top/home/.bashrc', 'file'],
      ['top/p/', 'directory'],
      ['top/p/a', 'symlink', '..'],
      ['top/p/a/x', 'symlink', '../../home/.bashrc'],
    ],
  ],
  ['a hard link to outside', /outside of itself/, [['top/x', 'link', 'top/../../home/.bashrc']]],
  [
    'a hard link made through a link',
    /is a link/,
    [
      ['top/d/f', 'file'],
      ['top/a', 'symlink', 'd'],
      ['top/a/x', 'link', 'top/d/f'],
    ],
  ],
  ['a link called ..', /outside of itself/, [['top/../../home/.bashrc', 'symlink', 'x']]],
  [
    'a file through a file',
    /is no folder/,
    [
      ['top/f', 'file'],
      ['top/f/x', 'file'],
    ],
  ],
])('%s is refused', async (_, message, entries) => {
  const { host, outcome } = await unpackOnHost(entries)
  expect(outcome).toMatchObject({ code: 'AG4005', message: expect.stringMatching(message) })
  expectUntouched(host)
})

test('absolute links and links up to outside are left out, absolute names come inside', async () => {
  const { host, outcome } = await unpackOnHost([
    ['top/', 'directory'],
    ['top/absolute', 'symlink', '/etc/passwd'],
    ['top/up', 'symlink', '../../home'],
    ['top/hard', 'link', '/etc/passwd'],
    ['top/itself', 'symlink', 'itself'],
    ['/etc/passwd', 'file'],
    ['top/all', 'symlink', '.'],
  ])
  expect(outcome).toBe(3)
  expectUntouched(host)
  const copy = join(host, 'dl/copy')
  expect(readdirSync(copy).sort()).toEqual(['all', 'hard', 'passwd'])
  expect([readlinkSync(join(copy, 'all')), readlinkSync(join(copy, 'hard'))]).toEqual(['.', 'passwd'])
})

test('a file after a link to the folder that it is in is not written through that link', async () => {
  const { host, outcome } = await unpackOnHost([
    ['top/d/', 'directory'],
    ['top/door', 'symlink', 'd'],
    ['top/door/f', 'file'],
  ])
  expect(outcome).toBeInstanceOf(Error)
  expectUntouched(host)
  expect(readdirSync(join(host, 'dl/copy/d'))).toEqual([])
  expect(readFileSync(join(host, 'dl/copy/door/f'), 'utf8')).toBe('EVIL')
})

test('a link of the host is neither followed for folders and links nor linked to', async () => {
  const [to, outside] = [folder(), folder()]
  mkdirSync(join(to, 'copy'))
  writeFileSync(join(outside, 'f'), 'MINE')
  symlinkSync(outside, join(to, 'copy/door'))
  for (const [name, type, linkname] of [
    ['top/door/made/', 'directory', ''],
    ['top/door/f', 'symlink', '../ok'],
  ] as const) {
    const tar = pack()
    tar.entry({ name: 'top/ok' }, 'x')
    tar.entry({ name, type, linkname })
    tar.finalize()
    await expect(unpackTree(tar, to, 'copy')).rejects.toThrow(/is a link/)
  }
  const tar = pack()
  tar.entry({ name: 'top/peek', type: 'symlink', linkname: 'door/f' })
  tar.finalize()
  expect(await unpackTree(tar, to, 'copy')).toBe(0)
  expect(existsSync(join(to, 'copy/peek'))).toBe(false)
  expect(readdirSync(outside)).toEqual(['f'])
  expect(readFileSync(join(outside, 'f'), 'utf8')).toBe('MINE')
})
