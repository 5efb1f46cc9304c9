import { EXIT } from '../../errors.ts'
import { prepareDown } from '../../verbs.ts'
import { apply, showPlan } from '../apply.ts'
import { parseSeconds } from '../arguments.ts'
import { flag, type Run, value } from '../verb.ts'

export const down: Run = async (session, call) => {
  const timeout = value(call, 'timeout')
  const project = await session.project()
  session.afterInterrupt = 'What is left of the project is removed by another `agentctl down`.'
  const prepared = await prepareDown(await session.verbs(), project, {
    volumes: flag(call, 'volumes'),
    ...(timeout === null ? {} : { timeout_s: Math.ceil(parseSeconds('--timeout', timeout)) }),
  })
  if (flag(call, 'dryRun')) {
    await showPlan(session, prepared)
    return EXIT.done
  }
  const { code, view } = await apply(session, prepared)
  await session.out.print(view, () => '')
  return code === EXIT.partial ? EXIT.failed : code
}
