import { createHash, randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { DEFAULT_ARTIFACTS } from '../../../spec/model.ts'
import type { Gateway } from '../../../engine/gateway/start.ts'
import { type Client, harness, type Harness, until } from './harness.ts'
import { beating, configureArtifacts, raw, take } from './storing.ts'

let h: Harness
let gateway: Gateway
const clients: Client[] = []
beforeAll(async () => {
  h = await harness()
  h.configure(
    { a: { concurrency: 4, delegates_to: ['b'] }, b: { concurrency: 4, delegates_to: ['b'] }, c: { concurrency: 4 } },
    { relay: { jobs: { first: { agent: 'b' }, second: { agent: 'c', needs: ['first'], with: { $ref: ['needs', 'first', 'result'] } } } } },
  )
  gateway = await h.start()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.die()
})
afterAll(() => h.stop())

const agent = (name: string, replica?: number): Client => {
  const client = h.agent(name, replica)
  clients.push(client)
  return client
}
const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const submit = (name: string, input: unknown = {}): Promise<string> => h.submit({ agent: name, type: 'task', tasks: [input as never] })
const upload = (lease: string, name: string): string => `/v1/artifacts/${name}?lease=${encodeURIComponent(lease)}`
const files = (folder: string): readonly string[] => {
  try {
    return readdirSync(join(h.directory, 'state', 'artifacts', folder), { recursive: true, encoding: 'utf8' })
  } catch {
    return []
  }
}
const blobs = (): number => files('sha256').filter((it) => it.includes('/')).length
const complete = async (client: Client, lease: string, result: unknown = null): Promise<void> => {
  expect((await client.post('/v1/complete', { lease, result })).status).toBe(200)
}

test('what an execution stores is its own at once, and everyone’s with its completion', async () => {
  const run = await submit('a')
  const a = agent('a')
  const task = await take(a)
  const bytes = randomBytes(3_000_000)
  const stored = await raw(h, 'a')('PUT', upload(task.lease, 'out/report.bin'), bytes, { 'content-type': 'application/pdf; x=y' })
  expect(stored.json).toEqual({
    name: 'out/report.bin',
    digest: digestOf(bytes),
    size: bytes.length,
    type: 'application/pdf',
    task: task.id,
  })
  const get = `/v1/artifacts/${digestOf(bytes)}?lease=${encodeURIComponent(task.lease)}`
  const whole = await raw(h, 'a')('GET', get)
  expect(whole.status).toBe(200)
  expect(whole.headers['content-length']).toBe(String(bytes.length))
  expect(whole.bytes.equals(bytes)).toBe(true)
  const part = await raw(h, 'a')('GET', get, undefined, { range: 'bytes=1000-1999' })
  expect([part.status, part.headers['content-range']]).toEqual([206, `bytes 1000-1999/${bytes.length}`])
  expect(part.bytes.equals(bytes.subarray(1_000, 2_000))).toBe(true)
  const last = await raw(h, 'a')('GET', get, undefined, { range: 'bytes=-10' })
  expect(last.bytes.equals(bytes.subarray(-10))).toBe(true)
  expect((await raw(h, 'a')('GET', get, undefined, { range: 'bytes=9999999-' })).status).toBe(416)
  expect((await h.control('GET', `/v1/tasks/${task.id}`)).json.artifacts).toBeUndefined()
  await complete(a, task.lease)
  await h.ended(run)
  expect((await h.control('GET', `/v1/tasks/${task.id}`)).json.artifacts).toEqual([stored.json])
  // Also once the run's names have moved to its manifest.
  await until('the manifest', 10_000, () => files('runs').includes(`${run}.json`))
  expect((await h.control('GET', `/v1/tasks/${task.id}`)).json.artifacts).toEqual([stored.json])
})

test('an execution that fails leaves nothing to be seen; the next one’s is what counts', async () => {
  const run = await submit('a')
  const a = agent('a')
  const first = await take(a)
  await raw(h, 'a')('PUT', upload(first.lease, 'x'), 'one')
  await a.post('/v1/fail', { lease: first.lease, error: { code: 'again', message: 'again', retryable: true } })
  const second = await take(a)
  // The dead lease writes nothing more, under no name.
  expect((await raw(h, 'a')('PUT', upload(first.lease, 'late'), 'late')).status).toBe(409)
  await raw(h, 'a')('PUT', upload(second.lease, 'y'), 'two')
  await complete(a, second.lease)
  await h.ended(run)
  const { artifacts } = (await h.control('GET', `/v1/tasks/${second.id}`)).json
  expect(artifacts.map((it: { name: string }) => it.name)).toEqual(['y'])
})

test('names go nowhere else, and a lease of another replica opens nothing', async () => {
  await submit('a')
  const a = agent('a')
  const task = await take(a)
  for (const name of ['..%2f..%2fetc%2fpasswd', '.hidden', 'a%2f..%2fb', 'a%00b', '%2fabs', 'a%2f%2fb', 'a%5cb', 'x'.repeat(201), ''])
    expect([name, (await raw(h, 'a')('PUT', upload(task.lease, name), 'x')).status]).toEqual([name, 400])
  // The URL itself is shortened by its parser: another path.
  expect((await raw(h, 'a')('PUT', upload(task.lease, '../../x'), 'x')).status).toBe(404)
  for (const thief of [raw(h, 'a', 2), raw(h, 'b'), raw(h, 'c')]) {
    expect((await thief('PUT', upload(task.lease, 'stolen'), 'x')).status).toBe(409)
    expect((await thief('GET', `/v1/artifacts/${digestOf(Buffer.from('x'))}?lease=${encodeURIComponent(task.lease)}`)).status).toBe(409)
  }
  expect((await raw(h, 'a')('PUT', '/v1/artifacts/x', 'x')).status).toBe(400)
  expect((await raw(h, 'a')('GET', `/v1/artifacts/..%2f..%2frecord.json?lease=${encodeURIComponent(task.lease)}`)).status).toBe(404)
  await complete(a, task.lease)
})

test('a task reads its own, its children’s completed ones and what its input names; nothing of another run', async () => {
  const secret = Buffer.from(`secret of another run ${Math.random()}`)
  await submit('c')
  const c = agent('c')
  const other = await take(c)
  await raw(h, 'c')('PUT', upload(other.lease, 'secret'), secret)
  await complete(c, other.lease)

  await submit('a')
  const [a, b] = [agent('a'), agent('b')]
  const parent = await take(a)
  const at = (digest: string, lease: string): string => `/v1/artifacts/${digest}?lease=${encodeURIComponent(lease)}`
  expect((await raw(h, 'a')('GET', at(digestOf(secret), parent.lease))).status).toBe(404)
  // Nor may it have a child read it.
  const smuggled = await a.post('/v1/delegate', { lease: parent.lease, key: 'x', agent: 'b', input: { file: digestOf(secret) } })
  expect([smuggled.status, smuggled.json.error.code]).toEqual([403, 'not_allowed'])
  // A digest of nothing that is stored here is a text like any other.
  const image = `image@sha256:${'0'.repeat(64)}`
  expect((await a.post('/v1/delegate', { lease: parent.lease, key: 'image', agent: 'b', input: image })).status).toBe(200)
  const imageTask = await take(b)
  expect(imageTask.input).toBe(image)
  await complete(b, imageTask.lease)

  const own = Buffer.from('own')
  await raw(h, 'a')('PUT', upload(parent.lease, 'own'), own)
  await a.post('/v1/delegate', { lease: parent.lease, key: 'child', agent: 'b', input: { file: digestOf(own) } })
  const child = await take(b)
  expect((await raw(h, 'b')('GET', at(digestOf(own), child.lease))).bytes.toString()).toBe('own')
  const made = Buffer.from('made by the child')
  await raw(h, 'b')('PUT', upload(child.lease, 'made'), made)
  expect((await raw(h, 'a')('GET', at(digestOf(made), parent.lease))).status).toBe(404)
  await complete(b, child.lease)
  expect((await raw(h, 'a')('GET', at(digestOf(made), parent.lease))).bytes.toString()).toBe('made by the child')
  const seen = await a.call('GET', `/v1/tasks/${child.id}`)
  const awaited = await a.post('/v1/await', { lease: parent.lease, tasks: [child.id] })
  expect(awaited.json.tasks).toEqual([seen.json])
  expect(seen.json.artifacts).toMatchObject([{ name: 'made', digest: digestOf(made) }])

  // Who submits a run may name any.
  await submit('c', { file: digestOf(secret) })
  const again = await take(c)
  expect((await raw(h, 'c')('GET', at(digestOf(secret), again.lease))).bytes.equals(secret)).toBe(true)
  await complete(c, again.lease)
  await complete(a, parent.lease)
})

test('in a pipeline a result hands on what was stored in its run, and nothing else that it knows the name of', async () => {
  const [b, c] = [agent('b'), agent('c')]
  const relay = async (digest: (lease: string) => Promise<string>): Promise<number> => {
    const run = await h.submit({ pipeline: 'relay', inputs: {} })
    const first = await take(b)
    await complete(b, first.lease, { file: await digest(first.lease) })
    const second = await take(c)
    const { status } = await raw(h, 'c')(
      'GET',
      `/v1/artifacts/${(second.input as { file: string }).file}?lease=${encodeURIComponent(second.lease)}`,
    )
    await complete(c, second.lease)
    await h.ended(run)
    return status
  }
  let known = ''
  expect(
    await relay(async (lease) => {
      known = (await raw(h, 'b')('PUT', upload(lease, 'x'), `of one run ${Math.random()}`)).json.digest
      return known
    }),
  ).toBe(200)
  expect(await relay(async () => known)).toBe(404)
})

test('limits of size, run, total and type are refused by name, and what is cut off leaves nothing', async () => {
  await configureArtifacts(h, { ...DEFAULT_ARTIFACTS, max_size: 100_000, max_run: 250_000, types: ['text/*', 'application/json'] })
  try {
    await submit('a')
    const a = agent('a')
    const task = await take(a)
    const put = (name: string, body: Parameters<ReturnType<typeof raw>>[2], headers: Record<string, string> = {}) =>
      raw(h, 'a')('PUT', upload(task.lease, name), body, { 'content-type': 'text/plain', ...headers })
    const before = blobs()
    const binary = await put('x', 'x', { 'content-type': 'application/octet-stream' })
    expect([binary.status, binary.json.error.code]).toEqual([415, 'AG6010'])
    expect((await put('x', 'x', { 'content-type': 'nonsense' })).status).toBe(400)
    const large = await put('x', randomBytes(100_001))
    expect([large.status, large.json.error.code]).toEqual([413, 'AG6010'])
    // Chunked: the length is told by nobody.
    const chunked = await put('x', (sent) => {
      sent.write(randomBytes(60_000))
      sent.end(randomBytes(60_000))
    })
    expect([chunked.status, chunked.json.error.code]).toEqual([413, 'AG6010'])
    expect([blobs(), files('tmp')]).toEqual([before, []])
    const twice = randomBytes(90_000)
    for (const name of ['a', 'b', 'c']) expect((await put(name, twice)).status).toBe(200)
    expect((await put('d', randomBytes(90_000))).status).toBe(200)
    const over = await put('e', randomBytes(90_000))
    expect([over.status, over.json.error.message]).toEqual([413, expect.stringContaining('artifacts.max_run')])
    // The sender goes away in the middle.
    await expect(
      put('f', (sent) => {
        sent.setHeader('content-length', 50_000)
        sent.write(randomBytes(10_000))
        setTimeout(() => sent.destroy(), 100)
      }),
    ).rejects.toThrow()
    await until('the upload that broke off is gone', 5_000, () => files('tmp').length === 0)
    await complete(a, task.lease)
    const names = (await h.control('GET', `/v1/tasks/${task.id}`)).json.artifacts.map((it: { name: string }) => it.name)
    expect(names.toSorted()).toEqual(['a', 'b', 'c', 'd'])
  } finally {
    await configureArtifacts(h, DEFAULT_ARTIFACTS)
  }
})

test('ten thousand names from one task are refused beyond the first thousand', async () => {
  await submit('a')
  const a = agent('a')
  const task = await take(a)
  using _ = beating(a, task.lease)
  const put = raw(h, 'a')
  let next = 0
  const statuses = new Map<number, number>()
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (next < 1_100) {
        const { status } = await put('PUT', upload(task.lease, `n${next++}`), 'same')
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      }
    }),
  )
  // Those on their way at the thousandth were counted before they had their names.
  expect(statuses.get(200)).toBeGreaterThanOrEqual(1_000)
  expect(statuses.get(200)).toBeLessThanOrEqual(1_008)
  expect(statuses.get(413)).toBe(1_100 - (statuses.get(200) ?? 0))
  await complete(a, task.lease)
})

test('more transfers at once than one replica may have are refused', async () => {
  await submit('a')
  const a = agent('a')
  const task = await take(a)
  const open: { destroy(): void }[] = []
  const slow = Array.from({ length: 16 }, (_, index) =>
    raw(h, 'a')('PUT', upload(task.lease, `slow${index}`), (sent) => {
      open.push(sent)
      sent.write('x')
    }).catch(() => null),
  )
  await until('sixteen are under way', 10_000, () => files('tmp').length === 16)
  expect((await raw(h, 'a')('PUT', upload(task.lease, 'more'), 'x')).status).toBe(429)
  for (const it of open) it.destroy()
  await Promise.all(slow)
  await until('none is', 5_000, () => files('tmp').length === 0)
  expect((await raw(h, 'a')('PUT', upload(task.lease, 'more'), 'x')).status).toBe(200)
  await complete(a, task.lease)
})

test('a kill between the bytes and their name, and between name and completion, shows nothing that is not whole', async () => {
  await gateway.close()
  const first = h.spawn('--child')
  await h.healthy()
  const run = await submit('a')
  const session = randomBytes(8).toString('hex')
  let a = h.agent('a', 1, session)
  clients.push(a)
  const task = await take(a)
  const named = Buffer.from(`named ${Math.random()}`)
  expect((await raw(h, 'a')('PUT', upload(task.lease, 'named'), named)).status).toBe(200)
  // Redis goes in the middle of an upload: the bytes come into their place, and their name cannot be written.
  const unnamed = Buffer.from(`unnamed ${Math.random()}`)
  const before = blobs()
  let finish = (): void => {}
  const lost = raw(h, 'a')('PUT', upload(task.lease, 'unnamed'), (sent) => {
    sent.write(unnamed.subarray(0, 4))
    finish = () => void sent.end(unnamed.subarray(4))
  }).catch(() => null)
  await until('the upload is under way', 10_000, () => files('tmp').length === 1)
  await h.redis.kill()
  finish()
  await until('the bytes are in their place', 10_000, () => blobs() === before + 1)
  first.kill('SIGKILL')
  expect(await lost).toBeNull()
  await h.redis.restart()
  h.spawn('--child')
  await h.healthy()
  // The execution goes on with the next gateway, in the same session, and its name stands.
  const held = await until('the lease is held', 15_000, async () => {
    const reply = await a.post('/v1/heartbeat', { lease: task.lease }).catch(() => null)
    return reply?.status === 200 ? reply : null
  })
  expect(held.json.cancel).toEqual([])
  await complete(a, task.lease)
  await h.ended(run)
  const { artifacts } = (await h.control('GET', `/v1/tasks/${task.id}`)).json
  expect(artifacts.map((it: { digest: string }) => it.digest)).toEqual([digestOf(named)])
  a.die()

  // And one that is killed with its agent between name and completion is invisible; the next execution's counts.
  const again = await submit('a')
  a = agent('a')
  const dying = await take(a)
  await raw(h, 'a')('PUT', upload(dying.lease, 'of-the-dead'), 'x')
  a.die()
  const b = agent('a', 2)
  const second = await take(b)
  expect(second.id).toBe(dying.id)
  await complete(b, second.lease)
  await h.ended(again)
  expect((await h.control('GET', `/v1/tasks/${second.id}`)).json.artifacts).toBeUndefined()
})
