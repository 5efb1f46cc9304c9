/**
 * The broker on BullMQ's Redis backend. No Worker objects: each would hold a blocking connection of its own, and the gateway is the
 * only producer, so it knows when there is work. All queues share one connection and one hash slot. A task costs what it costs a
 * bare BullMQ worker: one script to add it, one to end it and fetch the next.
 */
import { QueueKeys, RedisConnection } from 'bullmq'
import type { Redis } from 'ioredis'
import { queueName, queuePrefix } from '../names.ts'
import { type ConnectionOptions, openConnection } from './connection.ts'
import { attemptField, delayOf, DUE_FIELD, heldDelay, places, rank } from './places.ts'
import { ADD_CHUNK, type Broker, type Ended, type Execution, isPlain, type NewTask, type TaskRef } from './port.ts'
import { type EndKind, type Job, OPTS, Queue } from './queue.ts'
import { replies, resent } from './replies.ts'
import { runStore } from './runs.ts'
import { states } from './states.ts'
import { taskStore } from './task-store.ts'

export const LOCK_MS = 60_000
/** BullMQ's event streams hold each result once more; nobody here reads them. */
const EVENTS_KEPT = 64
const CHUNK = 500

export interface BullmqOptions extends ConnectionOptions {
  readonly project: string
}

/** Once for each execution, however often it is sent: by a reconnect, or by the gateway after one that died before the next step. */
const COUNT = `
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then
  redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], ARGV[4], ARGV[5]) end
return redis.call('HGET', KEYS[1], ARGV[1]) or 0`

/** Only what is active and nobody's: a lock on anything else would stay until it expires, and what is locked cannot be removed. */
const CLAIM = `
if not redis.call('LPOS', KEYS[1], ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3], 'NX')
return redis.call('GET', KEYS[2]) == ARGV[2] and 1 or 0`

/** Lock of a task that is being put back. No replica has such a name. */
const NOBODY = '-'

export function connectBroker(options: BullmqOptions): Broker {
  const prefix = queuePrefix(options.project)
  const link = openConnection(options)
  const { client } = link
  // Every role's queue listens on it; a project may have many.
  client.setMaxListeners(0)
  const connection = new RedisConnection(client as unknown as ConstructorParameters<typeof RedisConnection>[0], {
    shared: true,
    blocking: false,
    skipVersionCheck: true,
  })
  connection.on('error', () => {})
  const keys = new QueueKeys(prefix)
  const queuesKey = `${prefix}::queues`
  const opened = new Map<string, Queue>()

  /** Commands of one turn of the loop leave in one write: each write is a system call. */
  let isCorked = false
  const cork = (): void => {
    const { stream } = client
    if (isCorked || stream === undefined) return
    isCorked = true
    stream.cork()
    setImmediate(() => {
      isCorked = false
      stream.uncork()
    })
  }
  const queue = (name: string): Queue => {
    cork()
    const known = opened.get(name)
    if (known !== undefined) return known
    const bull = queueName(name)
    const made = new Queue(
      connection,
      bull,
      keys.getKeys(bull),
      (type) => keys.toKey(bull, type),
      { prefix, connection: client, lockDuration: LOCK_MS } as never,
      undefined,
      false,
    )
    opened.set(name, made)
    client
      .pipeline()
      .sadd(queuesKey, name)
      .hset(keys.toKey(bull, 'meta'), 'opts.maxLenEvents', EVENTS_KEPT)
      .exec()
      .catch(() => {})
    return made
  }
  const jobKey = (task: TaskRef): string => keys.toKey(queueName(task.queue), task.id)

  const end = async (name: string, id: string, token: string, kind: EndKind, value: string, next: boolean): Promise<Ended> => {
    try {
      const of = queue(name)
      return { ok: true, next: execution(of, await of.end(client, id, token, kind, value, next)) }
    } catch (error) {
      if (isLost(error)) return { ok: false }
      throw error
    }
  }
  const relock = async (name: string, id: string, token: string): Promise<boolean> =>
    (await client.eval(CLAIM, 2, keys.toKey(queueName(name), 'active'), `${jobKey({ queue: name, id })}:lock`, id, token, LOCK_MS)) === 1

  const count = async (key: string, field: string, mark: string, epoch: number, attempt = ''): Promise<number> =>
    Number(await client.eval(COUNT, 1, key, field, mark, epoch, attemptField(epoch), attempt))

  return {
    get connected() {
      return link.connected
    },
    get problem() {
      return link.problem
    },
    onConnected: link.onConnected,
    async add(tasks, landed = () => {}) {
      // The next chunk is written while the broker works on the one before.
      let before = Promise.resolve()
      for (let at = 0; at < tasks.length; at += ADD_CHUNK) {
        const chunk = tasks.slice(at, at + ADD_CHUNK)
        const added = addChunk(queue, client, chunk)
        added.catch(() => {})
        await before
        before = added.then(() => landed(chunk.length))
        before.catch(() => {})
      }
      await before
    },
    async fetch(name, token) {
      const of = queue(name)
      return execution(of, await of.moveToActive(token))
    },
    complete: (name, id, token, result, next) => end(name, id, token, 'completed', result, next),
    fail: (name, id, token, failure, next) => end(name, id, token, 'failed', failure, next),
    async requeue(name, id, token) {
      try {
        // Taken first, so that it cannot be taken from someone who fetched it in between.
        if (token === null && !(await relock(name, id, NOBODY))) return false
        await queue(name).moveJobFromActiveToWait(id, token ?? NOBODY)
        return true
      } catch (error) {
        if (isLost(error)) return false
        throw error
      }
    },
    async retryLater(name, id, token, delay_ms, held) {
      const now = Date.now()
      const delay = delayOf(delay_ms)
      const later = held ? { fieldsToUpdate: { [DUE_FIELD]: now + delay } } : {}
      try {
        await queue(name).moveToDelayed(id, now, held ? heldDelay(now) : delay, token, later)
        return true
      } catch (error) {
        if (!isLost(error)) throw error
        // Sent again after a reconnect: it is there already.
        return (await client.zscore(keys.toKey(queueName(name), 'delayed'), id)) !== null
      }
    },
    countFailure: (task, epoch, attempt) => count(jobKey(task), 'actl:failures', 'actl:retried', epoch, attempt),
    countDeath: (task, epoch, attempt) => count(jobKey(task), 'actl:deaths', 'actl:died', epoch, attempt),
    async extend(name, locks) {
      return await queue(name).extendLocks(
        locks.map((it) => it.id),
        locks.map((it) => it.token),
        LOCK_MS,
      )
    },
    relock,
    limitedUntil: (name) => opened.get(name)?.limitedUntil ?? 0,
    async remove(tasks) {
      // removeJob answers 0 for a locked job and leaves it.
      for (let at = 0; at < tasks.length; at += CHUNK)
        await Promise.all(tasks.slice(at, at + CHUNK).map((task) => queue(task.queue).remove(task.id, false)))
    },
    async forget(tasks) {
      for (let at = 0; at < tasks.length; at += CHUNK) {
        const pipeline = client.pipeline()
        for (const task of tasks.slice(at, at + CHUNK)) {
          const bull = queueName(task.queue)
          pipeline.unlink(jobKey(task)).zrem(keys.toKey(bull, 'completed'), task.id).zrem(keys.toKey(bull, 'failed'), task.id)
        }
        await replies(pipeline)
      }
    },
    queues: () => client.smembers(queuesKey),
    ...states(client, (name, part) => keys.toKey(queueName(name), part)),
    ...runStore(client, prefix),
    ...taskStore(client, prefix, jobKey, relock),
    ...places({
      client,
      scripts: queue,
      key: (name, part) => (name === '' ? `${prefix}::${part}` : keys.toKey(queueName(name), part)),
    }),
    async close() {
      await connection.close(true).catch(() => {})
      client.disconnect()
    },
  }
}

const addChunk = async (queue: (name: string) => Queue, client: Redis, tasks: readonly NewTask[]): Promise<void> => {
  const now = Date.now()
  const job = (task: NewTask): Job => ({ name: 'task', data: task.data, opts: optsOf(task, now), timestamp: now }) as unknown as Job
  await Promise.all(
    [...Map.groupBy(tasks, (task) => task.queue)].map(([name, part]) =>
      part.every(isPlain)
        ? queue(name).addPlain(client, part, now)
        : resent(() => queue(name).addJobs(part.map((task) => ({ job: job(task), jobId: task.id })))),
    ),
  )
}

const optsOf = (task: NewTask, now: number): typeof OPTS => {
  if (isPlain(task)) return OPTS
  const { priority, delay_ms = 0, held = false } = task
  return {
    ...OPTS,
    ...(priority === undefined ? {} : { priority: rank(priority) }),
    ...(held ? { delay: heldDelay(now) } : delay_ms > 0 ? { delay: delayOf(delay_ms) } : {}),
  }
}

/** Scripts give [job, id, …], or zeros and how long the rate limit lasts when there is nothing to fetch. */
function execution(queue: Queue, reply: unknown[] | undefined): Execution | null {
  const [job, id, limited_ms] = reply ?? []
  if (typeof limited_ms === 'number' && limited_ms > 0) queue.limitedUntil = Date.now() + limited_ms
  if (typeof job !== 'object' || job === null || typeof id !== 'string') return null
  const { data, attemptsStarted } = job as { data: string; attemptsStarted?: number }
  return { id, epoch: attemptsStarted ?? 0, data }
}

/** BullMQ's codes for: no such job, no lock, not active, another's lock. */
const isLost = (error: unknown): boolean => error instanceof Error && 'code' in error && [-1, -2, -3, -6].includes(Number(error.code))
