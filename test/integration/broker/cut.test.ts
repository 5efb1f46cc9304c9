/** A connection that breaks between two replies of one pipeline: ioredis gives such a pipeline up, and nobody may hear of it. */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterAll, expect, test } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import type { Broker } from '../../../engine/broker/port.ts'
import { startRedis } from '../../support/redis.ts'

const redis = await startRedis()
/** Of the next replies so many bytes come through, then the connection breaks. */
let left = Number.POSITIVE_INFINITY
let cuts = 0
const sockets = new Set<Socket>()
const server: Server = createServer((near) => {
  const far = connect(redis.port, redis.host)
  for (const it of [near, far]) {
    sockets.add(it)
    it.on('error', () => {})
    it.on('close', () => {
      near.destroy()
      far.destroy()
    })
  }
  near.pipe(far)
  far.on('data', (chunk: Buffer) => {
    if (chunk.length <= left) return void near.write(chunk)
    const part = chunk.subarray(0, left)
    left = Number.POSITIVE_INFINITY
    cuts += 1
    near.write(part, () => near.destroy())
  })
})
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
const broker: Broker = connectBroker({
  project: 't-cut',
  host: '127.0.0.1',
  port: (server.address() as { port: number }).port,
  password: redis.password,
})
afterAll(async () => {
  await broker.close()
  for (const socket of sockets) socket.destroy()
  server.close()
  await redis.stop()
})
/** Cuts within the replies of `call`. */
const cut = async <T>(bytes: number, call: () => Promise<T>): Promise<T> => {
  const before = cuts
  left = bytes
  const answer = await call()
  expect(cuts).toBe(before + 1)
  return answer
}

test('what is read in one pipeline is read again', async () => {
  const tasks = Array.from({ length: 20 }, (_, item) => ({ queue: 'a', id: `run_x.task.${item}`, data: `{"n":${item}}` }))
  await broker.add(tasks)
  const states = await cut(500, () => broker.read(tasks))
  expect(states.map((state) => state?.data)).toEqual(tasks.map(({ data }) => data))
})

test('a transaction of which half was answered is made again, whole', async () => {
  await broker.createRun('run_x', 1, [['def', '{}']])
  // OK and QUEUED come; the reply of EXEC does not.
  expect(await cut(14, () => broker.closeRun('run_x', [['status', 'completed']]))).toBeGreaterThan(1)
  expect((await broker.readRun('run_x'))?.get('status')).toBe('completed')
  expect(await broker.openRuns()).toEqual([])
})

test('a run whose making was cut is made, not taken for one that was there', async () => {
  // The reply of EXISTS is 4 bytes, then comes the transaction.
  expect(await cut(4 + 14, () => broker.createRun('run_y', 2, [['def', '{}']]))).not.toBeNull()
  expect(await broker.openRuns()).toEqual(['run_y'])
})

test('many tasks with a priority are all added, each once', async () => {
  const tasks = Array.from({ length: 20 }, (_, item) => ({ queue: 'b', id: `run_x.more.${item}`, data: '{}', priority: 1 }))
  await cut(200, () => broker.add(tasks))
  expect((await broker.waiting('b')).map(({ id }) => id).sort()).toEqual(tasks.map(({ id }) => id).sort())
})

test('an expired lock is taken back while the task is active, and not once it waits again or has ended', async () => {
  const lock = async (id: string): Promise<boolean> => await broker.relock('c', id, 'c.1.s')
  await broker.add([{ queue: 'c', id: 'run_x.lock.0', data: '{}' }])
  expect(await lock('run_x.lock.0')).toBe(false)
  await broker.fetch('c', 'c.1.s')
  expect(await lock('run_x.lock.0')).toBe(true)
  await broker.requeue('c', 'run_x.lock.0', 'c.1.s')
  expect(await lock('run_x.lock.0')).toBe(false)
  await broker.fetch('c', 'c.1.s')
  await broker.complete('c', 'run_x.lock.0', 'c.1.s', '{}', false)
  expect(await lock('run_x.lock.0')).toBe(false)
})
