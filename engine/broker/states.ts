/** Tasks as their jobs say they are. */
import type { Redis } from 'ioredis'
import type { ActiveTask, Broker, TaskState } from './port.ts'
import { replies } from './replies.ts'

const CHUNK = 500

export function states(client: Redis, key: (queue: string, name: string) => string): Pick<Broker, 'read' | 'active'> {
  return {
    async read(tasks) {
      const states: (TaskState | null)[] = []
      for (let at = 0; at < tasks.length; at += CHUNK) {
        const pipeline = client.pipeline()
        for (const task of tasks.slice(at, at + CHUNK))
          pipeline.hmget(
            key(task.queue, task.id),
            'ats',
            'data',
            'returnvalue',
            'failedReason',
            'finishedOn',
            'actl:retried',
            'timestamp',
            'processedOn',
          )
        for (const fields of await replies(pipeline)) states.push(taskState(fields as (string | null)[]))
      }
      return states
    },
    async active(name) {
      const tasks: ActiveTask[] = []
      const ids = await client.lrange(key(name, 'active'), 0, -1)
      for (let at = 0; at < ids.length; at += CHUNK) {
        const part = ids.slice(at, at + CHUNK)
        const pipeline = client.pipeline()
        for (const id of part) pipeline.hmget(key(name, id), 'ats', 'data', 'processedOn').get(`${key(name, id)}:lock`)
        const answers = await replies(pipeline)
        part.forEach((id, index) => {
          const [epoch, data, fetched] = answers[index * 2] as (string | null)[]
          const holder = answers[index * 2 + 1] as string | null
          if (typeof data === 'string') tasks.push({ id, epoch: Number(epoch ?? 0), data, holder, since: Number(fetched ?? Date.now()) })
        })
      }
      return tasks
    },
  }
}

function taskState([epoch, data, result, failure, finishedOn, retried, added, fetched]: readonly (
  | string
  | null
  | undefined
)[]): TaskState | null {
  if (data === null || data === undefined) return null
  const finished = finishedOn !== null && finishedOn !== undefined
  return {
    epoch: Number(epoch ?? 0),
    data,
    finished,
    result: finished ? (result ?? null) : null,
    failure: finished ? (failure ?? null) : null,
    retried: Number(retried ?? 0),
    added_ms: timeOf(added),
    fetched_ms: timeOf(fetched),
    ended_ms: timeOf(finishedOn),
  }
}

const timeOf = (text: string | null | undefined): number | null => (typeof text === 'string' ? Number(text) : null)
