/** The broker's own sets, read beside the gateway by one script: what really waits, runs, ended, and what nothing explains. */
import type { Json, WorkStatus } from '../../spec/protocol.ts'
import type { LedgerTask, Queue } from './history.ts'

/** KEYS is fine here: the store is a test's. ARGV: the prefix of the project's keys. Gives JSON. */
export const STATE_SCRIPT = `
local prefix = ARGV[1]
local out = {queues = {}, tasks = {}, open = redis.call('SMEMBERS', prefix .. '::open'), stray = {}}
local known = {}
for _, name in ipairs(redis.call('SMEMBERS', prefix .. '::queues')) do
  local key = prefix .. ':' .. name .. ':'
  local sets = {
    waiting = redis.call('LRANGE', key .. 'wait', 0, -1), active = redis.call('LRANGE', key .. 'active', 0, -1),
    delayed = redis.call('ZRANGE', key .. 'delayed', 0, -1), prioritized = redis.call('ZRANGE', key .. 'prioritized', 0, -1),
    completed = redis.call('ZRANGE', key .. 'completed', 0, -1), failed = redis.call('ZRANGE', key .. 'failed', 0, -1)}
  local counts = {name = name}
  for set, ids in pairs(sets) do
    counts[set] = #ids
    for _, id in ipairs(ids) do
      known[key .. id] = true
      local f = redis.call('HMGET', key .. id, 'data', 'ats', 'returnvalue', 'failedReason', 'finishedOn')
      out.tasks[#out.tasks + 1] = {id = id, queue = name, data = f[1], ats = f[2], result = f[3], failure = f[4], finished = f[5] and true or false, set = set}
    end
  end
  out.queues[#out.queues + 1] = counts
end
local locks = {}
for _, key in ipairs(redis.call('KEYS', prefix .. ':*')) do
  if string.sub(key, -5) == ':lock' then locks[#locks + 1] = key .. '=' .. (redis.call('GET', key) or '')
  elseif redis.call('TYPE', key).ok == 'hash' and redis.call('HEXISTS', key, 'ats') + redis.call('HEXISTS', key, 'timestamp') > 0 and not known[key] then
    out.stray[#out.stray + 1] = key
  elseif string.find(key, '::journal:', 1, true) then out.stray[#out.stray + 1] = key
  end
end
out.locks = locks
return cjson.encode(out)
`

interface Raw {
  readonly queues: readonly (Omit<Queue, 'locks'> & { readonly completed: number; readonly failed: number })[]
  readonly tasks: readonly {
    readonly id: string
    readonly queue: string
    /** Lua has false where Redis has nil. */
    readonly data: string | false
    readonly ats: string | false
    readonly result: string | false
    readonly failure: string | false
    readonly finished: boolean
    readonly set: string
  }[]
  readonly open: readonly string[]
  readonly stray: readonly string[]
  readonly locks: readonly string[]
}
export interface BrokerState {
  readonly queues: readonly Queue[]
  readonly tasks: readonly LedgerTask[]
  readonly open: readonly string[]
  readonly strayKeys: readonly string[]
}

export function brokerState(text: string, prefix: string): BrokerState {
  const raw = JSON.parse(text) as Raw
  // An empty table of Lua's is {} in JSON.
  const list = <T>(value: readonly T[]): readonly T[] => (Array.isArray(value) ? value : [])
  const locks = list(raw.locks)
  const idle = list(raw.queues).flatMap((queue) => (queue.active === 0 ? [queue.name] : []))
  return {
    queues: list(raw.queues).map((queue) => ({
      name: queue.name,
      waiting: queue.waiting,
      active: queue.active,
      delayed: queue.delayed,
      prioritized: queue.prioritized,
      locks: locks.filter((key) => key.startsWith(`${prefix}:${queue.name}:`)).length,
    })),
    tasks: list(raw.tasks).flatMap((task) => {
      const head = headOf(task.data || '')
      if (head === null) return []
      return [
        {
          id: task.id,
          run: head.run,
          agent: task.queue,
          parent: head.parent,
          status: task.finished ? endOf(task.failure) : 'queued',
          attempts: Number(task.ats || 0),
          result: task.finished && task.result !== false && task.failure === false ? (JSON.parse(task.result) as Json) : null,
        },
      ]
    }),
    open: list(raw.open),
    strayKeys: [...list(raw.stray), ...locks.filter((key) => idle.some((name) => key.startsWith(`${prefix}:${name}:`)))],
  }
}

function endOf(failure: string | false): WorkStatus {
  if (failure === false) return 'completed'
  try {
    return (JSON.parse(failure) as { status: WorkStatus }).status
  } catch {
    return 'failed'
  }
}

function headOf(data: string): { readonly run: string; readonly parent: string | null } | null {
  try {
    const { run, parent } = JSON.parse(data) as { run?: unknown; parent?: unknown }
    return typeof run === 'string' ? { run, parent: typeof parent === 'string' ? parent : null } : null
  } catch {
    return null
  }
}
