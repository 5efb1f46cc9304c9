/** Requests that are over before the broker has answered: what they fetched goes to the session's next one, never to nobody. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Client, harness, type Harness } from './harness.ts'

const SESSIONS = 25
const SLOTS = 2
const RUNS = 40
const TASKS = 100

let h: Harness
beforeAll(async () => {
  h = await harness()
  h.configure({ hurried: { concurrency: SLOTS } })
  await h.start()
})
afterAll(() => h.stop())

test('25 sessions with tiny wait_ms on a slow broker: every task completes, exactly once', async () => {
  const executed = new Map<string, number>()
  const stop = new AbortController()
  const clients = Array.from({ length: SESSIONS }, (_, index) => h.agent('hurried', index + 1))
  const working = clients.map((client) => work(client, executed, stop.signal))
  // A broker that stops for longer than the requests wait, again and again: fetches are on their way when their time is over.
  const slow = slowBroker(stop.signal)
  const runs: string[] = []
  try {
    for (let at = 0; at < RUNS; at++) {
      runs.push(await h.submit({ agent: 'hurried', type: 'task', tasks: Array.from({ length: TASKS }, () => null) }))
      // Sessions run dry and wait again, so that the next submit is dealt to requests whose time is almost over.
      await sleep(20)
    }
    for (const run of runs) {
      const view = await h.ended(run, 20_000)
      expect(view.status).toBe('completed')
      expect(view.jobs.map((job) => [job.status, job.attempts])).toEqual(Array.from({ length: TASKS }, () => ['completed', 1]))
    }
  } finally {
    stop.abort()
    await Promise.allSettled([...working, slow])
  }
  expect(executed.size).toBe(RUNS * TASKS)
  expect(Math.max(...executed.values())).toBe(1)
})

/** Leases with a wait that is over almost at once, and settles with the next request. */
async function work(client: Client, executed: Map<string, number>, signal: AbortSignal): Promise<void> {
  let done: { readonly lease: string; readonly status: 'completed'; readonly result: null }[] = []
  for (let turn = 0; !signal.aborted; turn++) {
    const reply = await client.lease(SLOTS, 1 + (turn % 20), { beat: [], done })
    done = reply.tasks.map((task) => {
      executed.set(task.id, (executed.get(task.id) ?? 0) + 1)
      return { lease: task.lease, status: 'completed', result: null }
    })
    if (done.length === 0) await sleep(1)
  }
}

async function slowBroker(signal: AbortSignal): Promise<void> {
  const redis = new Redis(h.redis.url)
  try {
    while (!signal.aborted) {
      await redis.client('PAUSE', 30, 'ALL')
      await sleep(60)
    }
  } finally {
    redis.disconnect()
  }
}
