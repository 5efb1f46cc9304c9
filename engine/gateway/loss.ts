/**
 * Has the broker lost data? Compared at the start, at each reconnect, and when its count of writes gives a number again. What is lost is
 * said by range and by run; a run that is lost ends `failed` with code `lost`, and one that had ended is not run again.
 */
import { randomUUID } from 'node:crypto'
import type { WorkError } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import type { Archive } from './archive.ts'
import { type Definition, jobField, type JobRecord, LOST_FIELD, PLAIN_JOB } from './run-record.ts'
import type { EndedRun, Loss, Witness, Witnessed } from './witness.ts'

/** Names in the log's line; the rest is counted. */
const NAMED = 20
const CHUNK = 500

export interface ReckonOptions {
  readonly broker: Broker
  readonly witness: Witness
  readonly archive: Archive | null
  readonly log: (message: string) => void
}

/** null: nothing is lost. Else all that is in memory must be read again. */
export async function reckon(options: ReckonOptions): Promise<Loss | null> {
  const { broker, witness } = options
  if (!witness.isOn) return null
  // Before the question: what is counted while it is under way is no loss.
  const known = witness.last
  const { instance, writes } = await broker.identity()
  if (witness.instance === null) {
    const id = instance ?? randomUUID()
    if (instance === null) await broker.setIdentity(id, Math.max(writes, known))
    await witness.adopt(id, Math.max(writes, known))
    return null
  }
  if (instance === witness.instance && writes >= known) return null
  return settle(options, instance === witness.instance ? { kind: 'truncated', left: writes } : { kind: 'volume', left: 0 }, instance)
}

async function settle(
  { broker, witness, archive, log }: ReckonOptions,
  { kind, left }: { readonly kind: Loss['kind']; readonly left: number },
  instance: string | null,
): Promise<Loss> {
  const now = Date.now()
  const from = new Date(kind === 'volume' ? 0 : (witness.timeOf(left) ?? 0)).toISOString()
  const to = new Date(witness.lastTime ?? now).toISOString()
  const range = kind === 'volume' ? `all of it until ${to}` : `what was written from ${from} to ${to}`
  const lost = await missing(broker, witness)
  // In the archive before it is said: whoever asks then finds them.
  for (const run of lost) await keep(run, kind, range, now, archive, witness)
  const loss: Loss = { kind, from, to, runs: lost.map(({ run }) => run), at: new Date(now).toISOString() }
  await witness.lost(loss)
  const id = instance ?? randomUUID()
  const next = Math.max(witness.last, left) + 1
  await broker.setIdentity(id, next)
  await witness.adopt(id, next)
  const names = loss.runs.slice(0, NAMED).join(', ')
  const more = loss.runs.length > NAMED ? ` and ${loss.runs.length - NAMED} more` : ''
  log(
    `AG5004: the broker has lost data (${kind === 'volume' ? 'its volume is new or another' : 'its log is cut'}): ${range}. ` +
      `${loss.runs.length} run(s) are lost${names === '' ? '' : `: ${names}${more}`}. ` +
      `${kind === 'volume' ? '' : 'Tasks of other open runs that ended in that time may run again.'}`,
  )
  return loss
}

type Gone = Witnessed & Partial<Pick<EndedRun, 'status' | 'ended'>>

/** Open runs whose record is gone; ended ones that are not in the archive and whose record is gone or open again. */
async function missing(broker: Broker, witness: Witness): Promise<readonly Gone[]> {
  const runs: readonly Gone[] = [...witness.open.values(), ...witness.ended.values()]
  const gone: Gone[] = []
  for (let at = 0; at < runs.length; at += CHUNK) {
    const part = runs.slice(at, at + CHUNK)
    const fields = await broker.readRunFields(
      part.map(({ run }) => run),
      ['def', 'status'],
    )
    part.forEach((run, index) => {
      const [definition, status] = fields[index] ?? []
      if (typeof definition !== 'string' || (run.ended !== undefined && status === 'running')) gone.push(run)
    })
  }
  return gone
}

async function keep(run: Gone, kind: Loss['kind'], range: string, now: number, archive: Archive | null, witness: Witness): Promise<void> {
  const what = kind === 'volume' ? "the broker's volume was lost" : "the end of the broker's log was lost"
  const when =
    run.ended === undefined ? '' : `; it had ended ${run.status} at ${new Date(run.ended).toISOString()}, and its results are gone`
  const error: WorkError = { code: 'lost', message: `${what} (${range})${when}` }
  if (archive !== null && !archive.has(run.run)) {
    const ended = run.ended ?? now
    await archive.write({
      run: run.run,
      pipeline: run.pipeline,
      status: 'failed',
      agents: [...new Set(Object.values(run.jobs))],
      created: run.at,
      ended,
      record: lostRecord(run, error, ended),
      tasks: none(),
      events: [],
    })
  }
  witness.archived(run.run)
}

async function* none(): AsyncGenerator<never> {}

function lostRecord(run: Gone, error: WorkError, ended: number): ReadonlyMap<string, string> {
  const jobs = Object.fromEntries(
    Object.entries(run.jobs).map(([id, agent]) => [
      id,
      { id, agent, needs: [], type: 'task', with: null, foreach: run.pipeline === null ? { in: null, as: 'item' } : null },
    ]),
  )
  const name = run.pipeline ?? Object.values(run.jobs)[0] ?? PLAIN_JOB
  const definition: Definition = {
    name: run.pipeline,
    pipeline: { name, inputs: {}, jobs },
    inputs: {},
    parent: null,
    traceparent: run.traceparent,
  }
  const job: JobRecord = { phase: 'failed', items: 0, error }
  return new Map([
    ['def', JSON.stringify(definition)],
    ['status', 'failed'],
    ['created', String(run.at)],
    ['ended', String(ended)],
    [LOST_FIELD, JSON.stringify(error)],
    ...Object.keys(run.jobs).map((id) => [jobField(id), JSON.stringify(job)] as const),
  ])
}
