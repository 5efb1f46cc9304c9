import { setTimeout as sleep } from 'node:timers/promises'
import { AgentctlError, EXIT } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import type { PsView } from '../../progress.ts'
import { ps } from '../../ps.ts'
import { prepareStop } from '../../verbs.ts'
import { type Applied, apply, showPlan } from '../apply.ts'
import { parseSeconds } from '../arguments.ts'
import { streamLogs } from '../log-stream.ts'
import { prepare } from '../prepare-up.ts'
import type { Session } from '../session.ts'
import { type Call, flag, type Run, value } from '../verb.ts'
import { logRenderer } from '../views/logs.ts'

/** An agent that runs already has so long to connect before it is shown as not ready. */
const COMING_MS = 10_000
const LOOK_MS = 200

export const up: Run = async (session, call) => {
  const limit = value(call, 'waitTimeout')
  const seconds = limit === null ? null : parseSeconds('--wait-timeout', limit)
  if (flag(call, 'dryRun')) {
    await showPlan(session, await prepare(session, call))
    return EXIT.done
  }
  const { project } = await session.load()
  session.afterInterrupt = 'What was started goes on: `agentctl ps` shows it, `agentctl up` completes it, `agentctl down` removes it.'
  const { code, view } = await applyWithin(session, call, seconds)
  const isAttached = !flag(call, 'detach') && !flag(call, 'wait') && seconds === null
  if (session.out.json && code !== EXIT.interrupted) {
    const { status, containers } = await seen(session, project.name, code === EXIT.done ? COMING_MS : 0)
    const document = { ...view, status, containers }
    if (isAttached && code === EXIT.done) await session.out.line(document, () => '')
    else await session.out.print(document, () => '')
  } else await session.out.print(view, () => '')
  return isAttached && code === EXIT.done ? await followUntilInterrupt(session, project.name) : code
}

/** What an `up` before this one started, and was interrupted at, may be on its way to the gateway: no step of this one waits for it. */
async function seen(session: Session, project: string, wait_ms: number): Promise<PsView> {
  const ctx = await session.verbs()
  for (const end = Date.now() + wait_ms; ; await sleep(LOOK_MS)) {
    const view = await ps(ctx, project)
    const isComing = view.containers.some(
      ({ kind, status, health, ready }) => kind === 'agent' && status === 'running' && health !== 'unhealthy' && ready === false,
    )
    if (!isComing || Date.now() >= end || session.signal.aborted) return view
  }
}

async function applyWithin(session: Session, call: Call, seconds: number | null): Promise<Applied> {
  const late = seconds === null ? null : AbortSignal.timeout(Math.max(1, seconds * 1_000))
  const signal = late === null ? session.signal : AbortSignal.any([session.signal, late])
  const tooLate = (cause?: unknown): AgentctlError =>
    new AgentctlError('AG4008', `not everything was ready within ${seconds} s`, {
      hint: 'See `agentctl ps`, or raise --wait-timeout.',
      exit: EXIT.partial,
      cause,
    })
  try {
    const applied = await apply(session, await prepare(session, call, signal))
    if (applied.code === EXIT.interrupted && late?.aborted === true && !session.signal.aborted) throw tooLate()
    return applied
  } catch (error) {
    if (late?.aborted === true && !session.signal.aborted) throw tooLate(error)
    throw error
  }
}

/** As Compose: the logs, and the first Ctrl-C stops what was started. */
async function followUntilInterrupt(session: Session, project: string): Promise<number> {
  const detached = new AbortController()
  session.interrupts.redirect(() => detached.abort())
  session.progress.note('Following the logs; Ctrl-C stops the project, `agentctl up -d` would not follow.')
  const runtime = await session.runtime()
  const wants = ({ labels }: { labels: { readonly [name: string]: string } }): boolean =>
    ['agent', 'service'].includes(labels[LABEL.kind] ?? '')
  const render = logRenderer({ prefix: true, timestamps: false })
  try {
    await streamLogs(
      runtime,
      project,
      { follow: true, tail: null, since: String(Date.now() / 1_000 - 1), wants },
      (line) => session.out.line(line, render),
      detached.signal,
    )
    return EXIT.done
  } catch (error) {
    if (!detached.signal.aborted) throw error
  }
  session.progress.note('Stopping the project (press Ctrl-C again to leave it as it is)')
  const ctx = await session.verbs(new AbortController().signal)
  const stopped = await apply(session, await prepareStop(ctx, project, []))
  return stopped.code === EXIT.done ? EXIT.interrupted : stopped.code
}
