/** The records of runs in the same Redis: a hash per run, an index by age, the set of open ones, and each run's latest events. */
import type { Redis } from 'ioredis'
import type { Broker } from './port.ts'
import { replies } from './replies.ts'

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
  | 'dedupRun'
  | 'countWrite'
  | 'identity'
  | 'setIdentity'
  | 'memory'
>

/** No queue has an empty name, so `PREFIX::…` cannot be a key of BullMQ's. */
export function runStore(client: Redis, prefix: string): RunStore {
  const record = (run: string): string => `${prefix}::run:${run}`
  const events = (run: string): string => `${prefix}::events:${run}`
  const dedup = (key: string): string => `${prefix}::dedup:${key}`
  const index = `${prefix}::runs`
  const open = `${prefix}::open`
  const writes = `${prefix}::writes`
  const instance = `${prefix}::instance`
  return {
    async createRun(run, created_ms, fields, key, isNew = false) {
      if (!isNew && (await client.exists(record(run))) === 1) return null
      // One transaction, so a record is whole or absent.
      const multi = client
        .multi()
        .incr(writes)
        .hset(record(run), 'created', created_ms, ...pairs(fields))
        .zadd(index, 'NX', created_ms, run)
        .sadd(open, run)
      if (key !== undefined) multi.set(dedup(key), run)
      return Number((await replies(multi))[0])
    },
    async writeRun(run, fields) {
      await client.hset(record(run), ...pairs(fields))
    },
    async closeRun(run, fields, key) {
      const multi = client
        .multi()
        .incr(writes)
        .hset(record(run), ...pairs(fields))
        .srem(open, run)
      if (key !== undefined && key.ttl_ms > 0) multi.pexpire(dedup(key.key), key.ttl_ms)
      else if (key !== undefined) multi.unlink(dedup(key.key))
      return Number((await replies(multi))[0])
    },
    async claimRunField(run, field, value) {
      const [made, now] = await replies(client.multi().hsetnx(record(run), field, value).hget(record(run), field))
      return { value: String(now), made: made === 1 }
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
    async dedupRun(key) {
      const [run, ttl] = await replies(client.multi().get(dedup(key)).pttl(dedup(key)))
      return typeof run === 'string' ? { run, expires: Number(ttl) >= 0 } : null
    },
    countWrite: () => client.incr(writes),
    async identity() {
      const [id, count] = await client.mget(instance, writes)
      return { instance: id ?? null, writes: Number(count ?? 0) }
    },
    async setIdentity(id, count) {
      await client.mset(instance, id, writes, count)
    },
    async memory() {
      const info = await client.info('memory')
      const field = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
      // What Redis itself compares with its limit: buffers of the log and of clients are not counted.
      return { used: field('used_memory') - field('mem_not_counted_for_evict'), max: field('maxmemory') }
    },
  }
}

const pairs = (fields: readonly (readonly [string, string])[]): string[] => fields.flatMap(([field, value]) => [field, value])
