import { TERMINAL, type WorkStatus } from '../../../spec/protocol.ts'
import type { ControlClient, RunFilter, RunPage } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { checkFlags, limitOf, runOf, wordOf } from '../actions.ts'
import { usage } from '../failure.ts'
import { exitOf, follow, stay } from '../follow.ts'
import type { Session } from '../session.ts'
import { withArtifacts } from '../stored.ts'
import { type Call, flag, type Run, value } from '../verb.ts'
import { renderEvent, renderRun, renderRuns } from '../views/work.ts'

const ONE = { min: 1, max: 1, what: 'the id of a run', hint: '`agentctl runs ls` lists them.' } as const
const WORDS = { ls: { min: 0, max: 0, what: '' }, show: ONE, wait: ONE, cancel: ONE, logs: ONE, retry: ONE } as const
const LS = ['ls'] as const
const FLAGS = { status: LS, agent: LS, limit: LS, before: LS, q: LS, follow: ['logs'], all: ['retry'], detach: ['retry'] } as const
const STATUSES: readonly string[] = ['queued', 'running', ...TERMINAL]
const PAGE = 1_000

export const runs: Run = async (session, call) => {
  const { word, args } = wordOf('runs', call.args, WORDS)
  checkFlags('runs', word, call, FLAGS)
  const filter = filterOf(call)
  const project = await session.project()
  const { control } = await session.control(project)
  const run = runOf(args[0] ?? '')
  switch (word) {
    case 'ls':
      return await list(session, control, filter, flag(call, 'q'))
    case 'show':
      await session.out.print(await withArtifacts(control, await control.run(run)), renderRun)
      return EXIT.done
    case 'wait': {
      session.afterInterrupt = `${run} goes on.`
      const view = await follow(session, control, run)
      await session.out.print(await withArtifacts(control, view), renderRun)
      return exitOf(view)
    }
    case 'cancel':
      await control.cancel(run)
      await session.out.print(await control.run(run), renderRun)
      return EXIT.done
    case 'logs':
      session.afterInterrupt = `${run} goes on.`
      for await (const event of control.events(run, { follow: flag(call, 'follow') })) await session.out.line(event, renderEvent)
      return EXIT.done
    case 'retry': {
      const detach = flag(call, 'detach')
      const made = await control.retry(run, { all: flag(call, 'all') })
      const view = await stay(session, { project, control }, made.run, { detach })
      await session.out.print(detach ? view : await withArtifacts(control, view), detach ? (it) => it.run : renderRun)
      return detach ? EXIT.done : exitOf(view)
    }
  }
}

type Filter = RunFilter & { readonly limit: number }

function filterOf(call: Call): Filter {
  const given = (name: string): string | undefined => value(call, name) ?? undefined
  const [status, agent, before] = [given('status'), given('agent'), given('before')]
  if (status !== undefined && !STATUSES.includes(status)) throw usage(`--status expects one of ${STATUSES.join(', ')}, got "${status}"`)
  return {
    limit: limitOf(call),
    ...(status === undefined ? {} : { status: status as WorkStatus }),
    ...(agent === undefined ? {} : { agent }),
    ...(before === undefined ? {} : { before: runOf(before) }),
  }
}

async function list(session: Session, control: ControlClient, filter: Filter, short: boolean): Promise<number> {
  const found: RunPage['runs'][number][] = []
  let next: string | null = null
  for (let left = filter.limit; left > 0; left = filter.limit - found.length) {
    const page: RunPage = await control.runs({ ...filter, limit: Math.min(left, PAGE), ...(next === null ? {} : { before: next }) })
    found.push(...page.runs)
    next = page.next
    if (next === null) break
  }
  await session.out.print({ runs: found, next }, (view) =>
    short || session.globals.quiet ? view.runs.map((it) => it.run).join('\n') : renderRuns(view),
  )
  return EXIT.done
}
