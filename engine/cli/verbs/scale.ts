import { EXIT } from '../../errors.ts'
import { prepareScale, restoreController } from '../../verbs.ts'
import { apply, showPlan } from '../apply.ts'
import { parseScale } from '../arguments.ts'
import { flag, type Run } from '../verb.ts'

export const scale: Run = async (session, call) => {
  const counts = parseScale(call.args)
  const project = await session.project()
  const ctx = await session.verbs()
  const prepared = await prepareScale(ctx, project, counts)
  if (flag(call, 'dryRun')) {
    await showPlan(session, prepared)
    return EXIT.done
  }
  session.afterInterrupt = 'What was started goes on; `agentctl ps` shows it.'
  const { code, view } = await apply(session, prepared)
  await restoreController(ctx, project)
  await session.out.print(view, () => '')
  return code
}
