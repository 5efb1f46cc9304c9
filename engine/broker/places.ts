/** Where tasks stand beside the plain line: delayed, held, ordered by priority, and dead letters. Plain Redis commands and BullMQ's own scripts. */
import type { Redis } from 'ioredis'
import type { Broker, DelayedTask, FailedCursor, FailedTask, TaskRef } from './port.ts'
import { replies } from './replies.ts'

type Places = Pick<
  Broker,
  | 'waiting'
  | 'delayed'
  | 'lengths'
  | 'position'
  | 'seize'
  | 'promote'
  | 'order'
  | 'setRate'
  | 'deadLetters'
  | 'deadLetter'
  | 'dropDeadLetter'
  | 'recordAttempt'
  | 'readAttempts'
>
/** Of BullMQ's queue. */
interface Scripts {
  promote(id: string): Promise<void>
  changePriority(id: string, priority: number): Promise<void>
}
export interface PlacesOptions {
  readonly client: Redis
  readonly scripts: (queue: string) => Scripts
  /** A key of the queue's; the job itself is `key(queue, id)`. */
  readonly key: (queue: string, name: string) => string
}

const CHUNK = 500
/** Its end follows at once; should it not, the look at the locks puts it back. */
const SEIZED_MS = 60_000
/** From wherever it waits to active, locked. Sent again after a reconnect: it has it already. */
const SEIZE = `
if redis.call('GET', KEYS[5]) == ARGV[2] then return 1 end
if redis.call('LREM', KEYS[1], -1, ARGV[1]) + redis.call('ZREM', KEYS[2], ARGV[1]) + redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[4], ARGV[1])
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[3])
return 1`
/** BullMQ's score of a delayed job: ms × 4096, plus a number for those of the same ms. */
const PER_MS = 0x1000
/**
 * A held task is a delayed one whose time is in the years after 2036: nothing else is delayed so far. The times run at an eighth of the
 * clock's speed, so that they keep the order of adding and their scores stay below 2^53 until 2036.
 */
const HELD_FROM_MS = 2_100_000_000_000
const HELD_SINCE_MS = 1_700_000_000_000
export const heldDelay = (now: number): number => HELD_FROM_MS + Math.floor((now - HELD_SINCE_MS) / 8) - now
const MAX_DELAY_MS = 366 * 86_400_000
export const delayOf = (ms: number): number => Math.min(MAX_DELAY_MS, Math.max(1, Math.ceil(ms)))

/** BullMQ serves low numbers first, and 0 before all: so 1 to 19, with 10 for ours of 0. */
export const rank = (priority: number): number => 10 - Math.max(-9, Math.min(9, Math.trunc(priority)))

/** Of executions that were not the last. */
export const attemptField = (epoch: number): string => `actl:a:${epoch}`
/** When a held task's turn comes at the earliest. */
export const DUE_FIELD = 'actl:due'

export function places({ client, scripts, key }: PlacesOptions): Places {
  const chunks = async <T, R>(items: readonly T[], one: (part: readonly T[]) => Promise<readonly R[]>): Promise<R[]> => {
    const all: R[] = []
    for (let at = 0; at < items.length; at += CHUNK) all.push(...(await one(items.slice(at, at + CHUNK))))
    return all
  }
  const fields = (refs: readonly TaskRef[], ...names: readonly string[]): Promise<(string | null)[][]> =>
    chunks(refs, async (part) => {
      const pipeline = client.pipeline()
      for (const { queue, id } of part) pipeline.hmget(key(queue, id), ...names)
      return (await replies(pipeline)) as (string | null)[][]
    })
  const refs = (queue: string, ids: readonly string[]): TaskRef[] => ids.map((id) => ({ queue, id }))
  /** Scripts in the order given; what they do not find is left. */
  const each = async (ids: readonly string[], script: (id: string) => Promise<void>): Promise<void> => {
    await chunks(ids, (part) => Promise.all(part.map((id) => script(id).catch(ignoreMissing))))
  }
  const failed = async (found: readonly (TaskRef & { readonly ended_ms: number })[]): Promise<FailedTask[]> => {
    const rows = await fields(found, 'ats', 'data', 'failedReason')
    return found.flatMap((task, index) => {
      const [epoch, data, failure] = rows[index] ?? []
      if (typeof data !== 'string' || typeof failure !== 'string' || failure.startsWith('{"status":"cancelled"')) return []
      return [{ ...task, epoch: Number(epoch ?? 0), data, failure }]
    })
  }
  /** Of one queue, newest first, at most `limit`. */
  const failedOf = async (queue: string, limit: number, after: FailedCursor | undefined): Promise<FailedTask[]> => {
    const found: FailedTask[] = []
    for (let at = 0; found.length < limit; at += CHUNK) {
      const page = await client.zrange(
        key(queue, 'failed'),
        String(after?.ended_ms ?? '+inf'),
        '-inf',
        'BYSCORE',
        'REV',
        'LIMIT',
        at,
        CHUNK,
        'WITHSCORES',
      )
      const rows: (TaskRef & { readonly ended_ms: number })[] = []
      for (let index = 0; index < page.length; index += 2) rows.push({ queue, id: page[index] ?? '', ended_ms: Number(page[index + 1]) })
      found.push(...(await failed(rows.filter((it) => after === undefined || newestFirst(after, it) < 0))))
      if (rows.length < CHUNK) break
    }
    return found.slice(0, limit)
  }

  return {
    async waiting(queue) {
      const [arrival, priority] = (await replies(
        client.pipeline().lrange(key(queue, 'wait'), 0, -1).zrange(key(queue, 'prioritized'), '0', '-1'),
      )) as [string[], string[]]
      const ids = [...arrival, ...priority]
      const rows = await fields(refs(queue, ids), 'data', 'ats')
      return ids.map((id, index) => ({ id, data: rows[index]?.[0] ?? '', epoch: Number(rows[index]?.[1] ?? 0) }))
    },
    async delayed(queue) {
      const found = await client.zrange(key(queue, 'delayed'), '0', '-1', 'WITHSCORES')
      const ids = found.filter((_, index) => index % 2 === 0)
      const rows = await fields(refs(queue, ids), 'data', DUE_FIELD, 'ats')
      return ids.flatMap((id, index): DelayedTask[] => {
        const [data, heldUntil, epoch] = rows[index] ?? []
        if (typeof data !== 'string') return []
        const at = Math.floor(Number(found[index * 2 + 1]) / PER_MS)
        const held = at >= HELD_FROM_MS
        const due = held ? (typeof heldUntil === 'string' ? Number(heldUntil) : null) : at
        return [{ id, data, due, held, retry: Number(epoch ?? 0) > 0 }]
      })
    },
    async lengths(queues) {
      const pipeline = client.pipeline()
      const now = String((Date.now() + 1) * PER_MS)
      for (const queue of queues) {
        const delayed = key(queue, 'delayed')
        pipeline.llen(key(queue, 'wait')).zcard(key(queue, 'prioritized')).llen(key(queue, 'active'))
        pipeline.zcount(delayed, '-inf', `(${now}`).zcount(delayed, now, `(${HELD_FROM_MS * PER_MS}`)
      }
      const counts = (await replies(pipeline)).map(Number)
      return queues.map((_, index) => {
        const [wait = 0, prioritized = 0, active = 0, due = 0, delayed = 0] = counts.slice(index * 5, index * 5 + 5)
        return { waiting: wait + prioritized + due, active, delayed }
      })
    },
    async position({ queue, id }) {
      const [length, at, above] = (await replies(
        client.pipeline().llen(key(queue, 'wait')).lpos(key(queue, 'wait'), id, 'RANK', -1).zrank(key(queue, 'prioritized'), id),
      )) as [number, number | null, number | null]
      return at !== null ? length - 1 - at : above !== null ? length + above : null
    },
    async seize(queue, id, token) {
      const keys = ['wait', 'prioritized', 'delayed', 'active', `${id}:lock`].map((name) => key(queue, name))
      return (await client.eval(SEIZE, keys.length, ...keys, id, token, SEIZED_MS)) === 1
    },
    async promote(tasks) {
      for (const [queue, part] of Map.groupBy(tasks, (task) => task.queue))
        await each(
          part.map((task) => task.id),
          (id) => scripts(queue).promote(id),
        )
    },
    async order(queue, others) {
      const change = (id: string): Promise<void> => scripts(queue).changePriority(id, rank(0))
      for (;;) {
        // From the tail, where the oldest are: the script looks for each from there.
        const ids = await client.lrange(key(queue, 'wait'), -CHUNK, -1)
        if (ids.length === 0) break
        await each(ids.reverse(), change)
      }
      await each(others, change)
    },
    async setRate(queue, rate) {
      const meta = key(queue, 'meta')
      if (rate === null) await client.hdel(meta, 'max', 'duration')
      else await client.hset(meta, 'max', rate.max, 'duration', rate.per_ms)
    },
    async deadLetters(limit, after) {
      const queues = await client.smembers(key('', 'queues'))
      const found: FailedTask[] = []
      for (const queue of queues) found.push(...(await failedOf(queue, limit, after)))
      return found.sort(newestFirst).slice(0, limit)
    },
    async deadLetter(task) {
      const score = await client.zscore(key(task.queue, 'failed'), task.id)
      if (score === null) return null
      const [one] = await failed([{ queue: task.queue, id: task.id, ended_ms: Number(score) }])
      return one ?? null
    },
    dropDeadLetter: async ({ queue, id }) => (await client.zrem(key(queue, 'failed'), id)) === 1,
    async recordAttempt({ queue, id }, epoch, attempt) {
      await client.hset(key(queue, id), attemptField(epoch), attempt)
    },
    async readAttempts({ queue, id }) {
      const prefix = attemptField(0).slice(0, -1)
      const epochs = (await client.hkeys(key(queue, id)))
        .filter((field) => field.startsWith(prefix))
        .map((field) => Number(field.slice(prefix.length)))
        .sort((a, b) => a - b)
      if (epochs.length === 0) return []
      const values = await client.hmget(key(queue, id), ...epochs.map(attemptField))
      return values.filter((value): value is string => value !== null)
    },
  }
}

/** As the sorted set has those of the same ms when it is read from its end. */
const newestFirst = (a: FailedCursor, b: FailedCursor): number => b.ended_ms - a.ended_ms || (a.id === b.id ? 0 : a.id < b.id ? 1 : -1)

/** BullMQ's codes for: no such job, not where it was looked for. */
const ignoreMissing = (error: unknown): void => {
  if (!(error instanceof Error && 'code' in error && [-1, -3].includes(Number(error.code)))) throw error
}
