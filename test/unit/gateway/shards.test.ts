import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Kit } from '../../../engine/gateway/control/call.ts'
import { page } from '../../../engine/gateway/control/listing.ts'
import { ROUTES } from '../../../engine/gateway/control/routes.ts'
import { isWithin } from '../../../engine/gateway/shards/door.ts'
import { Front, shardOf } from '../../../engine/gateway/shards/front.ts'
import { mergeLetters, mergeReplicas, mergeRuns } from '../../../engine/gateway/shards/merge.ts'
import { Peer } from '../../../engine/gateway/shards/peers.ts'
import { RUN_ID } from '../../../engine/ulid.ts'
import type { DeadLetterSummary, RunSummary } from '../../../spec/protocol.ts'

/** Ids that need not rise with the time, as those that clients make do not. */
const summary = (n: number, at: number): RunSummary => ({
  run: `run_${String((n * 7_919) % 1_000).padStart(4, '0')}`,
  pipeline: null,
  status: 'completed',
  created_at: new Date(at).toISOString(),
  ended_at: null,
})
const order = (a: RunSummary, b: RunSummary): number =>
  a.created_at === b.created_at ? (a.run < b.run ? 1 : -1) : a.created_at < b.created_at ? 1 : -1

test('pages of several gateways are the pages of all their runs, each once, in order', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2), fc.nat(9)), { maxLength: 30 }), fc.integer({ min: 1, max: 12 }), (made, limit) => {
      const all = made.map(([shard, at], n) => ({ shard, it: summary(n, at) }))
      const shards = [0, 1, 2].map((shard) =>
        all
          .filter((it) => it.shard === shard)
          .map(({ it }) => it)
          .sort(order),
      )
      const seen: string[] = []
      for (let before: string | null = null, pages = 0; pages === 0 || before !== null; pages++) {
        const created = all.find(({ it }) => it.run === before)?.it.created_at ?? null
        const merged = mergeRuns(
          shards.map((runs) => page(runs, { limit, before, created, status: null, agent: null })),
          limit,
        )
        seen.push(...merged.runs.map(({ run }) => run))
        before = merged.next
        expect(pages).toBeLessThan(32)
      }
      expect(seen).toEqual(
        all
          .map(({ it }) => it)
          .sort(order)
          .map(({ run }) => run),
      )
    }),
    { seed: 3, numRuns: 300 },
  )
})

test('dead letters: the cursor is that of the last one shown', () => {
  const letter = (id: string, ended: number): DeadLetterSummary => ({
    id,
    run: id,
    agent: 'a',
    type: 'task',
    status: 'failed',
    attempts: 1,
    error: null,
    ended_at: new Date(ended).toISOString(),
    trace_id: null,
  })
  const pages = [
    { tasks: [letter('d', 40), letter('b', 20)], next: null },
    { tasks: [letter('c', 30), letter('a', 20)], next: '20:a' },
  ]
  expect(mergeLetters(pages, 3)).toEqual({ tasks: [letter('d', 40), letter('c', 30), letter('b', 20)], next: '20:b' })
  expect(mergeLetters(pages.slice(0, 1), 3).next).toBeNull()
})

test('a replica is connected when it is with all, stalled when one says so, and has the tasks of all', () => {
  const view = (connected: boolean, tasks: number, stalled?: string) => ({
    agent: 'a',
    replica: 1,
    connected,
    tasks,
    ...(stalled === undefined ? {} : { stalled }),
  })
  expect(mergeReplicas([[view(true, 2)], [view(true, 3)]])).toEqual([view(true, 5)])
  expect(mergeReplicas([[view(true, 2)], [view(false, 0, 'loops')]])).toEqual([view(false, 2, 'loops')])
  expect(mergeReplicas([[view(true, 2)], []])).toEqual([view(false, 2)])
  expect(mergeReplicas([[view(true, 2)], null])).toEqual([view(false, 2)])
})

test('names are spread, and stay where they are', () => {
  const counts = [0, 0, 0, 0]
  for (let n = 0; n < 4_000; n++) counts[shardOf(`run_${n}`, 4)] = (counts[shardOf(`run_${n}`, 4)] ?? 0) + 1
  for (const count of counts) expect(Math.abs(count - 1_000)).toBeLessThan(150)
  expect(shardOf('any', 1)).toBe(0)
})

test.each([
  ['10.192.68.0/24', '10.192.68.2', true],
  ['10.192.68.0/24', '::ffff:10.192.68.249', true],
  ['10.192.68.0/24', '10.192.6.82', false],
  ['10.192.6.0/24', '10.192.68.2', false],
  ['10.192.68.0/24', undefined, false],
  ['', '10.192.68.2', false],
  ['', undefined, false],
])('the network %s has %s: %s', (subnet, address, within) => {
  expect(isWithin(subnet, address)).toBe(within)
})

const listening = async (server: Server): Promise<string> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

for (const [id, name] of [
  ['retryRun', { run: 'r' }],
  ['retryDeadLetter', { task: 'r.task.0' }],
] as const)
  test(`${id}: what is sent again on another socket has the id of the first time`, async () => {
    const bodies: string[] = []
    const other = createServer((request, response) => {
      if (request.url?.startsWith('/control/find?') === true) return void response.end('{"found":"now"}')
      let body = ''
      request.setEncoding('utf8')
      request.on('data', (chunk: string) => (body += chunk))
      request.on('end', () => {
        // The first one is done, and its answer is lost.
        if (bodies.push(body) === 1) request.socket.destroy()
        else response.end('{}')
      })
    })
    const peer = new Peer('gateway-2', await listening(other), 'token')
    const front = new Front({ peers: [peer], find: async () => null, health: () => ({}) as never })
    const route = ROUTES.find((it) => it.id === id)
    const first = createServer((request, response) => {
      const url = new URL(request.url as string, 'http://control')
      const call = { request, response, url, at: name, body: {}, signal: AbortSignal.timeout(20_000) }
      void front.handle({} as Kit, route as (typeof ROUTES)[number], call)
    })
    const url = await listening(first)
    const answer = await fetch(`${url}/v1/x`, { method: 'POST' })
    expect(await answer.text()).toBe('{}')
    front.close()
    for (const server of [first, other]) {
      server.closeAllConnections()
      server.close()
    }
    expect(bodies).toHaveLength(2)
    expect(bodies[0]).toBe(bodies[1])
    expect(JSON.parse(bodies[0] as string).id).toMatch(RUN_ID)
  })
