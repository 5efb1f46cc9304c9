/** What bounds artifacts beside their own size: the pace of their senders and readers, and the room that all of them may take. */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, utimesSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { DEFAULT_ARTIFACTS } from '../../../spec/model.ts'
import { replicaToken } from '../../../engine/tokens.ts'
import { harness, type Harness, PROJECT, until } from './harness.ts'
import { configureArtifacts, raw, type RawReply, take } from './storing.ts'

let h: Harness
afterEach(() => h.stop())

const PACE = { min_bytes_per_s: 16_384, allowance_ms: 600, look_ms: 50 }
/** More than the sockets hold. */
const LARGE = 33_554_432
const upload = (lease: string, name: string): string => `/v1/artifacts/${name}?lease=${encodeURIComponent(lease)}`
const root = (...path: string[]): string => join(h.directory, 'state', 'artifacts', ...path)
const temporary = (): readonly string[] => (existsSync(root('tmp')) ? readdirSync(root('tmp')) : [])

/** Sends `bytes` every 50 ms, for as long as it may or `times` times. How it ended, and after how many ms. */
async function trickle(
  lease: string,
  name: string,
  bytes: number,
  times: number,
): Promise<{ readonly status: number; readonly ms: number }> {
  const begin = Date.now()
  let timer: NodeJS.Timeout | undefined
  const reply = raw(h, 'a')('PUT', upload(lease, name), (sent) => {
    let left = times
    timer = setInterval(() => {
      if (left-- > 0) sent.write(Buffer.alloc(bytes, 120))
      else {
        clearInterval(timer)
        sent.end()
      }
    }, 50)
  }).catch((): Pick<RawReply, 'status'> => ({ status: 0 }))
  const { status } = await reply.finally(() => clearInterval(timer))
  return { status, ms: Date.now() - begin }
}

test('a sender that trickles is cut off and leaves nothing; one that is slow enough to be honest, and all others, go on', async () => {
  h = await harness()
  h.configure({ a: { concurrency: 4 } })
  await h.start({ pace: PACE })
  const a = h.agent('a')
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const task = await take(a)
  const trickling = trickle(task.lease, 'trickle', 10, 1_000)
  // 80 KiB a second, for longer than the other is borne.
  const honest = trickle(task.lease, 'honest', 4_096, 50)
  await until('both are under way', 5_000, () => temporary().length === 2)
  expect((await raw(h, 'a')('PUT', upload(task.lease, 'fast'), randomBytes(100_000))).status).toBe(200)
  expect((await a.post('/v1/heartbeat', { lease: task.lease })).status).toBe(200)
  const cut = await trickling
  expect([0, 408]).toContain(cut.status)
  expect(cut.ms).toBeGreaterThan(PACE.allowance_ms)
  expect(cut.ms).toBeLessThan(10_000)
  await until('the one that was cut off is gone', 5_000, () => temporary().length <= 1)
  expect((await honest).status).toBe(200)
  expect((await a.post('/v1/complete', { lease: task.lease, result: null })).status).toBe(200)
  await h.ended(run)
  const { artifacts } = (await h.control('GET', `/v1/tasks/${task.id}`)).json
  expect(artifacts.map((it: { name: string; size: number }) => [it.name, it.size]).toSorted()).toEqual([
    ['fast', 100_000],
    ['honest', 204_800],
  ])
})

test('what came fast is no licence to hold the rest back for long', async () => {
  h = await harness()
  h.configure({ a: {} })
  await h.start({ pace: PACE })
  const a = h.agent('a')
  await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const { lease } = await take(a)
  const begin = Date.now()
  const reply = raw(h, 'a')('PUT', upload(lease, 'x'), (sent) => void sent.write(Buffer.alloc(4_000_000)))
  await reply.catch(() => null)
  expect(Date.now() - begin).toBeLessThan(10_000)
  await until('nothing is left of it', 5_000, () => temporary().length === 0)
})

test('a reader that takes nothing is cut off, too', async () => {
  h = await harness()
  h.configure({ a: {} })
  await h.start({ pace: PACE })
  const a = h.agent('a')
  await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const { lease } = await take(a)
  const { digest } = (await raw(h, 'a')('PUT', upload(lease, 'large'), Buffer.alloc(LARGE))).json
  const headers = { authorization: `Bearer ${replicaToken('ab'.repeat(32), PROJECT, { agent: 'a', replica: 1 })}` }
  const url = { host: '127.0.0.1', port: h.port(), path: `/v1/artifacts/${digest}?lease=${encodeURIComponent(lease)}` }
  const read = await new Promise<number>((resolve) => {
    request({ ...url, headers }, (answer) => {
      let bytes = 0
      // It is asleep for longer than is borne.
      setTimeout(() => answer.on('data', (chunk: Buffer) => (bytes += chunk.length)), 3 * PACE.allowance_ms)
      answer.on('error', () => {})
      answer.on('close', () => resolve(bytes))
    }).end()
  })
  expect(read).toBeLessThan(LARGE)
})

test('all artifacts together have a bound; what retention lets go makes room again', async () => {
  h = await harness()
  h.configure({ a: { concurrency: 4 } })
  const gateway = await h.start()
  await configureArtifacts(h, { ...DEFAULT_ARTIFACTS, max_total: 100_000 })
  let a = h.agent('a')
  const put = async (bytes: number): Promise<readonly [RawReply, string]> => {
    const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
    const { lease } = await take(a)
    const reply = await raw(h, 'a')('PUT', upload(lease, 'x'), randomBytes(bytes))
    expect((await a.post('/v1/complete', { lease, result: null })).status).toBe(200)
    await h.ended(run)
    return [reply, run]
  }
  const [first, run] = await put(90_000)
  expect(first.status).toBe(200)
  const [over] = await put(20_000)
  expect([over.status, over.json.error.code]).toEqual([413, 'AG6010'])
  expect(over.json.error.message).toContain('100000 bytes (artifacts.max_total)')
  // What was refused takes no room: a smaller one fits.
  expect((await put(9_000))[0].status).toBe(200)
  await until('its manifest is written', 10_000, () => existsSync(root('runs', `${run}.json`)))

  await configureArtifacts(h, { ...DEFAULT_ARTIFACTS, max_total: 100_000, retention_ms: 1 })
  // As after the ten minutes for which bytes without a name stay.
  const { digest } = first.json
  utimesSync(root('sha256', digest.slice(7, 9), digest.slice(7)), new Date(0), new Date(0))
  await gateway.close()
  a.die()
  await h.start()
  await configureArtifacts(h, { ...DEFAULT_ARTIFACTS, max_total: 100_000, retention_ms: 1 })
  a = h.agent('a')
  await until('there is room again', 10_000, async () => (await put(60_000))[0].status === 200)
  expect((await raw(h, 'a')('GET', `/v1/artifacts/${digest}?lease=x`)).status).not.toBe(200)
})

test('an upload whose execution lost its task takes no room of the run', async () => {
  h = await harness()
  h.configure({ a: { concurrency: 4 } })
  await h.start()
  await configureArtifacts(h, { ...DEFAULT_ARTIFACTS, max_run: 100_000 })
  const run = await h.submit({ agent: 'a', type: 'task', tasks: [1] })
  const first = h.agent('a')
  const lost = await take(first)
  expect((await raw(h, 'a')('PUT', upload(lost.lease, 'in-time'), 'x')).status).toBe(200)
  let finish = (): void => {}
  const late = raw(h, 'a')('PUT', upload(lost.lease, 'late'), (sent) => {
    sent.write(randomBytes(60_000))
    finish = () => void sent.end()
  })
  await until('it is under way', 5_000, () => temporary().length === 1)
  first.die()
  const second = h.agent('a', 2)
  const { lease } = await take(second)
  finish()
  expect((await late).status).toBe(409)
  const put = (name: string, bytes: number) => raw(h, 'a', 2)('PUT', upload(lease, name), randomBytes(bytes))
  expect((await put('x', 90_000)).status).toBe(200)
  expect((await put('y', 20_000)).json.error.message).toContain('artifacts.max_run')
  expect((await second.post('/v1/complete', { lease, result: null })).status).toBe(200)
  await h.ended(run)
})
