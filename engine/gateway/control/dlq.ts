/** Dead letters: tasks that ended `failed` or `dead`, until they are dropped; from the archive when their run has left the broker. */
import type { DeadLetter, DeadLetterSummary, Json, RunEvent, SubmitRequest } from '../../../spec/protocol.ts'
import type { FailedCursor, FailedTask } from '../../broker/port.ts'
import { traceIdOf } from '../../telemetry/traceparent.ts'
import { letterOf } from '../archive.ts'
import { archivedLetters, newestFirst } from '../archived-letters.ts'
import { parseAttempts } from '../attempts.ts'
import { runOf } from '../run-record.ts'
import { refuse } from '../submission.ts'
import { decodeTask, inputOf, parseFailure } from '../work.ts'
import { type Call, type Kit, limitOf, send } from './call.ts'
import { shallow } from './submit.ts'

/** Read at once where most are of other agents. */
const CHUNK = 500

const noLetter = (id: string): ReturnType<typeof refuse> => refuse(404, 'AG6011', `there is no dead letter "${id.slice(0, 200)}"`)

export interface LetterPage {
  readonly tasks: readonly DeadLetterSummary[]
  readonly next: string | null
}

export async function list(kit: Kit, call: Call): Promise<void> {
  send(call, await pageOf(kit, call))
}

export async function pageOf(kit: Kit, call: Call): Promise<LetterPage> {
  await kit.whenReady()
  const limit = limitOf(call)
  const agent = call.url.searchParams.get('agent')
  const before = cursorOf(call.url.searchParams.get('before'))
  const found: Letter[] = []
  for (let after = before; found.length <= limit; ) {
    const size = agent === null ? limit + 1 : CHUNK
    const letters = await kit.broker.deadLetters(size, after)
    found.push(...letters.filter((it) => agent === null || it.queue === agent))
    after = letters.at(-1)
    if (letters.length < size) break
  }
  const { archive } = kit.records
  if (archive !== null) {
    const there = new Set(found.map(({ id }) => id))
    // After the letters: what has left the broker meanwhile is in both, and not in neither.
    const inBroker = new Set(await kit.broker.listRuns())
    const old = await archivedLetters(archive, { limit: limit + 1, after: before, agent, inBroker })
    found.push(...old.filter(({ id }) => !there.has(id)).map((it) => ({ ...it, archived: true as const })))
    found.sort(newestFirst)
  }
  const tasks = found.slice(0, limit)
  const last = tasks.at(-1)
  return { tasks: tasks.map(summary), next: found.length > limit && last !== undefined ? `${last.ended_ms}:${last.id}` : null }
}

type Letter = FailedTask & { readonly archived?: true }

/** `next` of a page: TIME:TASK. */
function cursorOf(text: string | null): FailedCursor | undefined {
  if (text === null) return undefined
  const at = text.indexOf(':')
  return { ended_ms: Number(text.slice(0, at)), id: text.slice(at + 1) }
}

export async function show(kit: Kit, call: Call): Promise<void> {
  const letter = await found(kit, call)
  const { attempts, lines } = letter.kept ?? (await keptInBroker(kit, letter))
  const events = lines.map((line) => JSON.parse(line) as RunEvent).filter((event) => event.task === letter.id)
  const view: DeadLetter = {
    ...summary(letter),
    input: JSON.parse(inputOf(letter.data)) as Json,
    history: parseAttempts(attempts),
    events,
  }
  send(call, view)
}

type Kept = { readonly attempts: readonly string[]; readonly lines: readonly string[] }

async function keptInBroker({ broker, events }: Kit, { queue, id }: FailedTask): Promise<Kept> {
  await events.flush()
  const [attempts, lines] = await Promise.all([broker.readAttempts({ queue, id }), broker.readEvents(runOf(id))])
  return { attempts, lines }
}

/** A new run of this one task, with what is given as its input. The dead letter stays until it is dropped. */
export async function retry(kit: Kit, call: Call): Promise<void> {
  const { body } = call
  if (Object.hasOwn(body, 'input')) shallow('"input"', body['input'])
  const letter = await found(kit, call)
  const input = Object.hasOwn(body, 'input') ? (body['input'] as Json) : (JSON.parse(inputOf(letter.data)) as Json)
  const task = decodeTask(letter.id, letter.queue, letter.data)
  const request: SubmitRequest = {
    agent: letter.queue,
    type: task?.type ?? 'task',
    tasks: [input],
    retry_of: runOf(letter.id),
    ...(typeof body['id'] === 'string' ? { id: body['id'] } : {}),
    ...(task?.priority === undefined ? {} : { priority: task.priority }),
    ...(task?.timeouts === undefined ? {} : { timeouts: task.timeouts }),
  }
  send(call, await kit.runs.submit(request))
}

export async function drop(kit: Kit, call: Call): Promise<void> {
  const { archive } = kit.records
  const letter = await found(kit, call)
  // First here: what is dropped in the broker alone would be back with the archive's copy.
  await archive?.dropped.add(letter.id).catch((error: unknown) => {
    throw refuse(503, 'AG6009', `the state volume takes nothing, so dead letter "${letter.id}" cannot be dropped: ${String(error)}`)
  })
  await kit.broker.dropDeadLetter({ queue: letter.queue, id: letter.id })
  send(call, {})
}

async function found(kit: Kit, call: Call): Promise<Letter & { readonly kept?: Kept }> {
  const id = call.at['task'] as string
  await kit.whenReady()
  const agent = await kit.views.agentOf(id)
  const letter = agent === null ? null : await kit.broker.deadLetter({ queue: agent, id })
  if (letter !== null) return letter
  const { archive } = kit.records
  if (archive === null || archive.dropped.has(id)) throw noLetter(id)
  const archived = await archive.read(runOf(id), { task: id, events: true })
  const task = archived?.tasks.get(id)
  const old = task === undefined ? null : letterOf(task)
  if (old === null || archived === null) throw noLetter(id)
  return { ...old, archived: true, kept: { attempts: task?.attempts ?? [], lines: archived.events } }
}

function summary(letter: Letter): DeadLetterSummary {
  const task = decodeTask(letter.id, letter.queue, letter.data)
  const { status, error } = parseFailure(letter.failure)
  return {
    id: letter.id,
    run: runOf(letter.id),
    agent: letter.queue,
    type: task?.type ?? 'task',
    status: status === 'dead' ? 'dead' : 'failed',
    attempts: letter.epoch,
    error,
    ended_at: new Date(letter.ended_ms).toISOString(),
    trace_id: traceIdOf(task?.sent),
    ...(letter.archived === true ? { archived: true } : {}),
  }
}
