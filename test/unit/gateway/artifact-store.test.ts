import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ArtifactStore } from '../../../engine/gateway/artifact-store.ts'
import { Slow } from '../../../engine/gateway/slow.ts'

let root = ''
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 't-artifacts-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

async function* of(...parts: readonly string[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part)
}
const digestOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`
const pathOf = (digest: string): string => join(root, 'sha256', digest.slice(7, 9), digest.slice(7))
const age = (path: string, ms: number): void => {
  const then = new Date(Date.now() - ms)
  utimesSync(path, then, then)
}
const none = (): boolean => false
const take = async (store: ArtifactStore, text: string): Promise<string> => {
  const { digest } = await store.receive(of(text), () => {})
  store.unpin(digest)
  return digest
}

test('bytes come back by their digest; what is cut off, refused or fails leaves nothing', async () => {
  const store = new ArtifactStore(root)
  const { digest, size } = await store.receive(of('ab', '', 'c'), () => {})
  expect([digest, size, store.bytes]).toEqual([digestOf('abc'), 3, 3])
  const opened = await store.open(digest)
  expect(await opened?.file.readFile('utf8')).toBe('abc')
  await opened?.file.close()
  const broken = async function* (): AsyncGenerator<Buffer> {
    yield Buffer.from('half')
    throw new Error('gone')
  }
  await expect(store.receive(broken(), () => {})).rejects.toThrow('gone')
  const refuse = (bytes: number): void => {
    if (bytes > 5) throw new Error('too much')
  }
  await expect(store.receive(of('123', '456'), refuse)).rejects.toThrow('too much')
  expect(readdirSync(join(root, 'tmp'))).toEqual([])
  expect(store.bytes).toBe(3)
  expect(await store.open(digestOf('half'))).toBeNull()
  expect(await store.open('sha256:../../x')).toBeNull()
})

test('what is named, young or on its way to a name stays; the rest goes, and what a killed gateway left half written', async () => {
  const store = new ArtifactStore(root)
  const [named, old, young] = [await take(store, 'named'), await take(store, 'old'), await take(store, 'young')]
  const pinned = (await store.receive(of('pinned'), () => {})).digest
  for (const digest of [named, old, pinned]) age(pathOf(digest), 3_600_000)
  writeFileSync(join(root, 'tmp', 'dead'), 'half')
  age(join(root, 'tmp', 'dead'), 3_600_000)
  writeFileSync(join(root, 'tmp', 'alive'), 'half')
  expect(await store.sweep((digest) => digest === named, Date.now())).toBe(2)
  expect([named, old, young, pinned].map((digest) => existsSync(pathOf(digest)))).toEqual([true, false, true, true])
  expect(readdirSync(join(root, 'tmp'))).toEqual(['alive'])
  // The next gateway counts what is there, and collects it when nobody names it.
  const next = new ArtifactStore(root)
  await next.load()
  expect(next.bytes).toBe('named'.length + 'young'.length + 'pinned'.length)
  expect(await next.sweep(none, Date.now())).toBe(2)
  expect(next.bytes).toBe('young'.length)
})

test('the same bytes stored again while they are collected are there afterwards', async () => {
  const store = new ArtifactStore(root)
  for (let round = 0; round < 50; round++) {
    const digest = await take(store, 'same')
    age(pathOf(digest), 3_600_000)
    const [again] = await Promise.all([
      store.receive(of('sa', 'me'), () => {}),
      store.sweep(none, Date.now()),
      store.sweep(none, Date.now()),
    ])
    expect(again.digest).toBe(digest)
    expect(existsSync(pathOf(digest))).toBe(true)
    store.unpin(digest)
  }
})

test('a request whose body does not come is ended; one that waits for its answer is not', async () => {
  const slow = new Slow(100)
  const server = createServer((incoming, answer) => {
    slow.add(incoming)
    incoming.resume()
    incoming.on('error', () => {})
    incoming.on('end', () => setTimeout(() => answer.end('late'), 500))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const send = (whole: boolean): Promise<string> =>
    new Promise((resolve) => {
      const sent = request({ host: '127.0.0.1', port, method: 'POST', headers: { 'content-length': 2 } }, (answer) => {
        answer.resume()
        answer.on('end', () => resolve(String(answer.statusCode)))
      })
      sent.on('error', () => resolve('ended'))
      if (whole) sent.end('xx')
      else sent.write('x')
    })
  expect(await Promise.all([send(true), send(false)])).toEqual(['200', 'ended'])
  slow.close()
  server.close()
})
