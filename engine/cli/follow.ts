/** Submits work and stays with it until it has ended; a gateway that restarts meanwhile is only waited for. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type RunEvent, type RunView, type SubmitRequest, TERMINAL } from '../../spec/protocol.ts'
import { type ControlClient, openControl } from '../control.ts'
import { AgentctlError, EXIT } from '../errors.ts'
import { newRunId } from '../ulid.ts'
import type { ProjectRecord } from '../record.ts'
import { clean, hasColor, painter } from './io.ts'
import type { Session } from './session.ts'
import { shortTask } from './views/work.ts'

/** One request is held this long; the gateway clamps at 30 s. */
const WAIT_MS = 20_000
/** Without any contact for this long, following ends; the run does not. */
const LOST_MS = 60_000
/** The last events may come a moment after the end of the run. */
const LAST_EVENTS_MS = 500
const PAUSE_MS = 50
const TELEMETRY_STOP_MS = 1_000
const OTLP_JSON = 'application/json'

type Without<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never
type Work = Without<SubmitRequest, 'id' | 'traceparent'>

export interface Place {
  readonly project: string
  readonly control: ControlClient
  readonly record: ProjectRecord
}

/** The submitted run: as it stands (detached) or as it ended. */
export async function perform(
  session: Session,
  { project, control, record }: Place,
  work: Work,
  { detach }: { readonly detach: boolean },
): Promise<RunView> {
  const id = newRunId()
  const name = 'pipeline' in work ? `run ${work.pipeline}` : `task ${work.agent}`
  return await traced(session, name, id, { project, control, record }, async (traceparent) => {
    session.afterInterrupt = `It may have been submitted: agentctl -p ${project} runs show ${id}`
    const { run, existing } = await control.submit({ id, ...work, ...(traceparent === null ? {} : { traceparent }) })
    return await stay(session, { project, control }, run, { detach, existing: existing === true })
  })
}

/** The run as it stands (detached) or as it ended. */
export async function stay(
  session: Session,
  { project, control }: Pick<Place, 'project' | 'control'>,
  run: string,
  { detach, existing = false }: { readonly detach: boolean; readonly existing?: boolean },
): Promise<RunView> {
  session.afterInterrupt = `${run} goes on. Follow it with: agentctl -p ${project} runs wait ${run}`
  if (existing) session.progress.note(`${run} has this key; nothing was submitted`)
  if (detach) return await control.run(run)
  if (!existing) session.progress.note(run)
  return await follow(session, control, run)
}

/** Events as progress, until the run has ended. */
export async function follow(session: Session, control: ControlClient, run: string): Promise<RunView> {
  const telling = tellEvents(session, control, run)
  const view = await awaitRun(session, control, run)
  await Promise.race([telling, sleep(LAST_EVENTS_MS)])
  return view
}

async function awaitRun(session: Session, control: ControlClient, run: string): Promise<RunView> {
  for (let contact = Date.now(); ; ) {
    try {
      const view = await control.run(run, WAIT_MS)
      if (TERMINAL.has(view.status)) return view
      contact = Date.now()
    } catch (error) {
      if (!isLost(error) || Date.now() - contact > LOST_MS) throw error
      session.progress.note('the gateway does not answer; the run is waited for')
    }
    await sleep(PAUSE_MS, undefined, { signal: session.signal })
  }
}

const isLost = (error: unknown): boolean => error instanceof AgentctlError && (error.code === 'AG5001' || error.code === 'AG5002')

async function tellEvents(session: Session, control: ControlClient, run: string): Promise<void> {
  if (session.globals.quiet || session.globals.progress === 'quiet') return
  const { io, globals } = session
  const paint = painter(hasColor(io, io.stderr))
  const mark = { completed: paint('green', '✔'), failed: paint('red', '✘'), dead: paint('red', '✘') } as Readonly<Record<string, string>>
  const line = ({ task, agent, event, message, percent }: RunEvent): string => {
    const detail = [percent === undefined ? '' : `${Math.round(percent)}%`, message ?? ''].filter((it) => it !== '').join(' ')
    return clean(`${agent} ${shortTask(task)}  ${event === 'leased' ? 'running' : event}${detail === '' ? '' : `  ${detail}`}`)
  }
  try {
    for await (const event of control.events(run, { follow: true })) {
      if (globals.progress === 'json') io.stderr.write(`${JSON.stringify(event)}\n`)
      else if (event.event !== 'queued') io.stderr.write(` ${mark[event.event] ?? '•'} ${line(event)}\n`)
    }
  } catch {
    // Progress is a courtesy: the run itself is waited for elsewhere, and its errors are told there.
  }
}

export const exitOf = ({ status }: Pick<RunView, 'status'>): number => (status === 'completed' ? EXIT.done : EXIT.failed)

/** The root of the run's trace; its spans leave through the gateway. Nothing here can fail or delay the work. */
async function traced(
  session: Session,
  name: string,
  run: string,
  { project, control, record }: Place,
  act: (traceparent: string | null) => Promise<RunView>,
): Promise<RunView> {
  if (record.project.telemetry === null) return await act(null)
  const [{ startTelemetry }, { failSpan, withSpan }, { ATTR, SPAN }] = await Promise.all([
    import('../telemetry/setup.ts'),
    import('../telemetry/spans.ts'),
    import('../telemetry/names.ts'),
  ])
  const telemetry = await startTelemetry({
    service: 'agentctl',
    project,
    version: record.written_by,
    url: null,
    send: async (body) => await (session.signal.aborted ? sendAfterInterrupt(session, project, body) : control.traces(body, OTLP_JSON)),
  })
  try {
    const attributes = { [ATTR.project]: project, [ATTR.run]: run }
    return await withSpan(SPAN.command(name), { attributes }, async (traceparent, span) => {
      const view = await act(traceparent)
      if (TERMINAL.has(view.status) && view.status !== 'completed') failSpan(span, view.status)
      return view
    })
  } finally {
    await telemetry.stop(TELEMETRY_STOP_MS)
  }
}

/** The session's connection went with its signal; without its root the trace of a run that goes on would be in pieces. */
async function sendAfterInterrupt(session: Session, project: string, body: Uint8Array): Promise<void> {
  const control = await openControl(await session.runtime(), project, AbortSignal.timeout(TELEMETRY_STOP_MS))
  try {
    await control.traces(body, OTLP_JSON)
  } finally {
    control.close()
  }
}
