/** The peer of bench/route.ts: for each number on stdin, adds that many no-op jobs and prints the ms until the last is done. */
import { createInterface } from 'node:readline'
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'

const connect = (): Redis =>
  new Redis({ host: 'broker', port: 6379, password: process.env['REDIS_PASSWORD'] ?? '', maxRetriesPerRequest: null })
const prefix = '{bare}'
const queue = new Queue('bare', { connection: connect(), prefix, defaultJobOptions: { removeOnComplete: 20_000 } })
let left = 0
let done: () => void = () => undefined
const worker = new Worker('bare', async () => null, { connection: connect(), prefix, concurrency: 50 })
worker.on('completed', () => {
  left -= 1
  if (left === 0) done()
})
await worker.waitUntilReady()
for await (const line of createInterface({ input: process.stdin })) {
  const count = Number(line)
  const begin = performance.now()
  left = count
  const finished = new Promise<void>((resolve) => (done = resolve))
  for (let at = 0; at < count; at += 1_000)
    await queue.addBulk(Array.from({ length: Math.min(1_000, count - at) }, () => ({ name: 'task', data: { input: null } })))
  await finished
  process.stdout.write(`ms ${performance.now() - begin}\n`)
}
process.exit(0)
