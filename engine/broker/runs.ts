/** The records of runs in the same Redis: a hash per run, an index by age, the set of open ones, and each run's latest events. */
import type { Redis } from 'ioredis'
import type { Broker } from './port.ts'

type RunStore = Pick<
  Broker,
  | 'createRun'
  | 'writeRun'
  | 'closeRun'
  | 'claimRunField'
  | 'dropRunFields'
  | 'readRun'
  | 'readRunFields'
  | 'openRuns'
  | 'listRuns'
  | 'forgetRun'
  | 'appendEvents'
  | 'readEvents'
>
type Replies = (pipeline: { exec(): Promise<[Error | null, unknown][] | null> }) => Promise<unknown[]>

/** No queue has an empty name, so `PREFIX::…` cannot be a key of BullMQ's. */
export function runStore(client: Redis, prefix: string, replies: Replies): RunStore {
  const record = (run: string): string => `${prefix}::run:${run}`
  const events = (run: string): string => `${prefix}::events:${run}`
  const index = `${prefix}::runs`
  const open = `${prefix}::open`
  return {
    async createRun(run, created_ms, fields) {
      if ((await client.exists(record(run))) === 1) return false
      // One transaction, so a record is whole or absent.
      await replies(
        client
          .multi()
          .hset(record(run), 'created', created_ms, ...pairs(fields))
          .zadd(index, 'NX', created_ms, run)
          .sadd(open, run),
      )
      return true
    },
    async writeRun(run, fields) {
      await client.hset(record(run), ...pairs(fields))
    },
    async closeRun(run, fields) {
      await replies(
        client
          .multi()
          .hset(record(run), ...pairs(fields))
          .srem(open, run),
      )
    },
    async claimRunField(run, field, value) {
      const [, now] = await replies(client.multi().hsetnx(record(run), field, value).hget(record(run), field))
      return String(now)
    },
    async dropRunFields(run, fields) {
      await client.hdel(record(run), ...fields)
    },
    async readRun(run) {
      const fields = await client.hgetall(record(run))
      return 'created' in fields ? new Map(Object.entries(fields)) : null
    },
    async readRunFields(runs, fields) {
      if (runs.length === 0) return []
      const pipeline = client.pipeline()
      for (const run of runs) pipeline.hmget(record(run), ...fields)
      return (await replies(pipeline)) as (string | null)[][]
    },
    openRuns: () => client.smembers(open),
    listRuns: () => client.zrange(index, '+inf', '-inf', 'BYSCORE', 'REV'),
    async forgetRun(run) {
      await replies(client.multi().unlink(record(run), events(run)).zrem(index, run).srem(open, run))
    },
    async appendEvents(run, lines, keep) {
      await replies(
        client
          .multi()
          .rpush(events(run), ...lines)
          .ltrim(events(run), -keep, -1),
      )
    },
    readEvents: (run) => client.lrange(events(run), 0, -1),
  }
}

const pairs = (fields: readonly (readonly [string, string])[]): string[] => fields.flatMap(([field, value]) => [field, value])
