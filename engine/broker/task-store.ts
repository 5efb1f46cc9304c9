/**
 * What belongs to a task beside its job, in the same Redis: the steps that its executions recorded, the names of what they stored, and
 * its open questions. What an execution writes is fenced: one script looks at the task's lock and epoch and writes, so that an execution
 * that was taken over writes nothing.
 */
import type { Redis } from 'ioredis'
import type { Fence, TaskRef, TaskStore } from './port.ts'
import { replies } from './replies.ts'

/** KEYS lock, job; ARGV holder, epoch. */
const HELD = `
local lock = redis.call('GET', KEYS[1])
if redis.call('HGET', KEYS[2], 'ats') ~= ARGV[2] then return 0 end
if not lock then return -1 end
if lock ~= ARGV[1] then return 0 end
`
/** KEYS …, journal, journals; ARGV …, id, most entries, most bytes, then key and value of each. The field without a name counts bytes. */
const JOURNAL = `${HELD}
local count, bytes = 0, 0
for i = 6, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then
    count = count + 1
    bytes = bytes + #ARGV[i] + #ARGV[i + 1]
  end
end
if count == 0 then return 1 end
local there = math.max(0, redis.call('HLEN', KEYS[3]) - 1)
local total = bytes + tonumber(redis.call('HGET', KEYS[3], '') or '0')
if there + count > tonumber(ARGV[4]) or total > tonumber(ARGV[5]) then return -2 end
for i = 6, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[3], ARGV[i], there .. ':' .. ARGV[i + 1]) == 1 then there = there + 1 end
end
redis.call('HSET', KEYS[3], '', total)
redis.call('SADD', KEYS[4], ARGV[3])
return 1
`
/** KEYS …, run record, runs with artifacts; ARGV …, run, field, value. */
const NAME = `${HELD}
if redis.call('HEXISTS', KEYS[3], 'created') == 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
redis.call('SADD', KEYS[4], ARGV[3])
return 1
`

export function taskStore(
  client: Redis,
  prefix: string,
  jobKey: (task: TaskRef) => string,
  relock: (queue: string, id: string, token: string) => Promise<boolean>,
): TaskStore {
  const journal = (id: string): string => `${prefix}::journal:${id}`
  const journals = `${prefix}::journals`
  const artifactRuns = `${prefix}::artifact-runs`
  const approvals = `${prefix}::approvals`

  const fenced = async (
    script: string,
    { queue, id, epoch, token }: Fence,
    keys: readonly string[],
    args: readonly (string | number)[],
  ) => {
    const job = jobKey({ queue, id })
    const send = async (): Promise<number> =>
      Number(await client.eval(script, 2 + keys.length, `${job}:lock`, job, ...keys, token, String(epoch), ...args))
    const code = await send()
    // The lock expired while the broker was away; nobody else takes tasks from the active list.
    return code === -1 && (await relock(queue, id, token)) ? send() : code
  }

  return {
    async writeJournal(fence, entries, limits) {
      const code = await fenced(
        JOURNAL,
        fence,
        [journal(fence.id), journals],
        [fence.id, limits.entries, limits.bytes, ...entries.flatMap(([key, value]) => [key, value])],
      )
      return code === 1 ? 'ok' : code === -2 ? 'full' : 'lost'
    },
    async readJournal(id) {
      const fields = Object.entries(await client.hgetall(journal(id))).filter(([key]) => key !== '')
      return fields
        .map(([key, value]) => ({ key, at: Number(value.slice(0, value.indexOf(':'))), value: value.slice(value.indexOf(':') + 1) }))
        .sort((a, b) => a.at - b.at)
        .map(({ key, value }) => [key, value] as const)
    },
    async journalSizes(ids) {
      const pipeline = client.pipeline()
      for (const id of ids) pipeline.hlen(journal(id)).hget(journal(id), '')
      const sizes = await replies(pipeline)
      return ids.map((_, index) => ({ entries: Math.max(0, Number(sizes[2 * index]) - 1), bytes: Number(sizes[2 * index + 1] ?? 0) }))
    },
    journals: () => client.smembers(journals),
    async dropJournals(ids) {
      if (ids.length > 0)
        await replies(
          client
            .multi()
            .unlink(...ids.map(journal))
            .srem(journals, ...ids),
        )
    },

    async nameArtifact(fence, run, field, value) {
      return (await fenced(NAME, fence, [`${prefix}::run:${run}`, artifactRuns], [run, field, value])) === 1
    },
    artifactRuns: () => client.smembers(artifactRuns),
    async dropArtifactRun(run) {
      await client.srem(artifactRuns, run)
    },

    async readApprovals() {
      return new Map(Object.entries(await client.hgetall(approvals)))
    },
    async writeApproval(id, text) {
      await client.hset(approvals, id, text)
    },
    async dropApprovals(ids) {
      if (ids.length > 0) await client.hdel(approvals, ...ids)
    },
  }
}
