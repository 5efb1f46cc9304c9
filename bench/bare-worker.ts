/** The peer of bench/route.ts: `drain COUNT SIZE` adds so many no-op jobs and prints the ms until the last is done; `ping COUNT` adds them one by one and prints how long each took to its processor. */
import { createInterface } from 'node:readline'
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'

const connect = (): Redis =>
  new Redis({ host: 'broker', port: 6379, password: process.env['REDIS_PASSWORD'] ?? '', maxRetriesPerRequest: null })
const prefix = '{bare}'
const queue = new Queue('bare', { connection: connect(), prefix, defaultJobOptions: { removeOnComplete: 20_000 } })
let left = 0
let done: () => void = () => undefined
let began: (ms: number) => void = () => undefined
const now = (): number => performance.timeOrigin + performance.now()
const worker = new Worker('bare', async () => (began(now()), null), { connection: connect(), prefix, concurrency: 50 })
worker.on('completed', () => {
  left -= 1
  if (left === 0) done()
})
await worker.waitUntilReady()
for await (const line of createInterface({ input: process.stdin })) {
  const [kind, count = 0, size = 0] = line.split(' ').map((part, index) => (index === 0 ? part : Number(part))) as [
    string,
    number?,
    number?,
  ]
  left = count
  const finished = new Promise<void>((resolve) => (done = resolve))
  if (kind === 'drain') {
    const input = size === 0 ? null : 'x'.repeat(size)
    const begin = performance.now()
    for (let at = 0; at < count; at += 1_000)
      await queue.addBulk(Array.from({ length: Math.min(1_000, count - at) }, () => ({ name: 'task', data: { input } })))
    await finished
    process.stdout.write(`ms ${performance.now() - begin}\n`)
    continue
  }
  const took: number[] = []
  for (let at = 0; at < count; at++) {
    const start = new Promise<number>((resolve) => (began = resolve))
    const begin = now()
    await queue.add('task', { input: null })
    took.push((await start) - begin)
  }
  await finished
  process.stdout.write(`ms ${took.join(' ')}\n`)
}
process.exit(0)
