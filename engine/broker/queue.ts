/** One agent's queue: BullMQ's backend, with the two scripts of every task in their short form. */
import { RedisQueueBackend } from 'bullmq'
import type { Redis } from 'ioredis'
import {
  addTemplate,
  type AddTemplate,
  filled,
  filledAdd,
  idMark,
  isUnknownScript,
  MARKS,
  type Script,
  scriptOf,
  send,
  template,
  Templates,
} from './hot-scripts.ts'

export type Job = Parameters<RedisQueueBackend['addJob']>[0]
type EndedJob = Parameters<RedisQueueBackend['moveToCompletedArgs']>[0]
type Argument = string | number | undefined | Buffer
export type EndKind = 'completed' | 'failed'

export const OPTS = { attempts: 1 }
/** An orderly refusal of BullMQ's script, as its own functions throw it. */
const refusal = (script: string, code: number): Error => Object.assign(new Error(`${script}: code ${code}`), { code })

export class Queue extends RedisQueueBackend {
  /** Unix ms. */
  limitedUntil = 0
  readonly #ends = new Templates()
  readonly #adds = new Map<number, AddTemplate>()

  /** As moveToFinished: [next job, its id, ms of the rate limit, …]. */
  async end(client: Redis, id: string, token: string, kind: EndKind, value: string, next: boolean): Promise<unknown[]> {
    const reply = await this.#end(client, id, token, kind, value, next)
    if (typeof reply === 'number' && reply < 0) throw refusal('moveToFinished', reply)
    return Array.isArray(reply) ? [jobOf(reply[0]), ...(reply.slice(1) as unknown[])] : []
  }

  async #end(client: Redis, id: string, token: string, kind: EndKind, value: string, next: boolean): Promise<unknown> {
    const script = scriptOf(client, `moveToFinished:${this.version}`)
    const slowly = (): Promise<unknown> => this.#run(client, 'moveToFinished', this.#endArgs(id, token, kind, value, Date.now(), next))
    if (script === null) return slowly()
    const known = this.#ends.get(`${kind} ${next} ${token}`, () =>
      template(script, this.#endArgs(MARKS.id, token, kind, MARKS.value, MARKS.time, next)),
    )
    try {
      return await send(client, filled(known, id, value))
    } catch (error) {
      // A Redis that has started anew.
      if (isUnknownScript(error)) return slowly()
      throw error
    }
  }

  #endArgs(id: string, token: string, kind: EndKind, value: string, now: number, next: boolean): Argument[] {
    const job = { id, opts: OPTS } as unknown as EndedJob
    const property = kind === 'completed' ? 'returnvalue' : 'failedReason'
    return this.moveToFinishedArgs(job, value, property, undefined, kind, token, now, next) as Argument[]
  }

  /** Jobs without options. */
  async addPlain(client: Redis, jobs: readonly { readonly id: string; readonly data: string }[], now: number): Promise<void> {
    const script = scriptOf(client, `addStandardJob:${this.version}`)
    const slowly = (all: typeof jobs): Promise<unknown> =>
      this.addJobs(all.map(({ id, data }) => ({ job: plainJob(data, now), jobId: id })))
    if (script === null) return void (await slowly(jobs))
    const unknown: { readonly id: string; readonly data: string }[] = []
    await Promise.all(
      jobs.map(async (job) => {
        try {
          const code = await send(client, filledAdd(this.#addTemplate(script, job.id.length), job.id, job.data, now))
          if (typeof code === 'number' && code < 0) throw refusal('addStandardJob', code)
        } catch (error) {
          if (!isUnknownScript(error)) throw error
          unknown.push(job)
        }
      }),
    )
    if (unknown.length > 0) await slowly(unknown)
  }

  #addTemplate(script: Script, idLength: number): AddTemplate {
    const known = this.#adds.get(idLength)
    if (known !== undefined) return known
    let args: Argument[] = []
    const recorder = { runCommand: (_: string, given: Argument[]) => ((args = given), 0) }
    void this.addJobToTransaction(recorder as never, plainJob(MARKS.value, MARKS.time), idMark(idLength))
    const made = addTemplate(script, args, idLength)
    this.#adds.set(idLength, made)
    return made
  }

  #run(client: Redis, name: string, args: Argument[]): Promise<unknown> {
    const command = (client as unknown as { readonly [name: string]: ((args: Argument[]) => Promise<unknown>) | undefined })[
      `${name}:${this.version}`
    ]
    if (command === undefined) throw new Error(`BullMQ has no script ${name}`)
    return command.call(client, args)
  }
}

const plainJob = (data: string, timestamp: number): Job => ({ name: 'task', data, opts: OPTS, timestamp }) as unknown as Job

/** The two fields of a job's hash that an execution needs. */
function jobOf(fields: unknown): { readonly data: string; readonly attemptsStarted: number } | null {
  if (!Array.isArray(fields)) return null
  let data = ''
  let attemptsStarted = 0
  for (let at = 0; at < fields.length; at += 2) {
    if (fields[at] === 'data') data = fields[at + 1] as string
    else if (fields[at] === 'ats') attemptsStarted = Number(fields[at + 1])
  }
  return { data, attemptsStarted }
}
