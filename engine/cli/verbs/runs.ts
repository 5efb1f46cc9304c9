import { nearest } from '../../../spec/suggest.ts'
import { EXIT } from '../../errors.ts'
import type { ControlClient } from '../../control.ts'
import { usage } from '../failure.ts'
import { exitOf, follow } from '../follow.ts'
import type { Session } from '../session.ts'
import { type Call, flag, type Run } from '../verb.ts'
import { renderEvent, renderRun, renderRuns } from '../views/work.ts'

type Action = (session: Session, control: ControlClient, run: string, call: Call) => Promise<number>

const ACTIONS: Readonly<Record<string, Action>> = {
  show: async ({ out }, control, run) => {
    await out.print(await control.run(run), renderRun)
    return EXIT.done
  },
  wait: async (session, control, run, _call) => {
    session.afterInterrupt = `${run} goes on.`
    const view = await follow(session, control, run)
    await session.out.print(view, renderRun)
    return exitOf(view)
  },
  cancel: async ({ out }, control, run) => {
    await control.cancel(run)
    await out.print(await control.run(run), renderRun)
    return EXIT.done
  },
  logs: async (session, control, run, call) => {
    session.afterInterrupt = `${run} goes on.`
    for await (const event of control.events(run, { follow: flag(call, 'follow') })) await session.out.line(event, renderEvent)
    return EXIT.done
  },
}
const NAMES: readonly string[] = ['ls', ...Object.keys(ACTIONS)]

export const runs: Run = async (session, call) => {
  const [what = '', id, ...rest] = call.args
  const action = Object.hasOwn(ACTIONS, what) ? ACTIONS[what] : undefined
  if (action === undefined && what !== 'ls') {
    const near = nearest(what, NAMES)
    throw usage(
      `runs has no "${what}": expected one of ${NAMES.join(', ')}`,
      near === null ? 'See `agentctl runs --help`.' : `Did you mean ${near}?`,
    )
  }
  if (action !== undefined && id === undefined) throw usage(`runs ${what} expects the id of a run`, '`agentctl runs ls` lists them.')
  if (rest.length > 0 || (action === undefined && id !== undefined)) throw usage(`runs ${what} got too many arguments`)
  const project = await session.project()
  const { control } = await session.control(project)
  // The id of a task names its run.
  if (action !== undefined) return await action(session, control, (id ?? '').replace(/\..*$/s, ''), call)
  await session.out.print(await control.runs(), (view) =>
    session.globals.quiet ? view.runs.map((it) => it.run).join('\n') : renderRuns(view),
  )
  return EXIT.done
}
