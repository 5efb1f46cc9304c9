import { EXIT } from '../../errors.ts'
import { refuseNewer, restoreController } from '../../verbs.ts'
import { ps as observe } from '../../ps.ts'
import { flag, type Run } from '../verb.ts'
import { namesOf, renderPs } from '../views/ps.ts'

export const ps: Run = async (session, call) => {
  const project = await session.project()
  const ctx = await session.verbs()
  await refuseNewer(ctx, project)
  await restoreController(ctx, project)
  const view = await observe(ctx, project)
  const shown = flag(call, 'all')
    ? view.containers
    : view.containers.filter((it) => it.kind !== 'service' || it.status !== 'exited' || it.exit_code !== 0)
  const quiet = session.globals.quiet || flag(call, 'q')
  await session.out.print({ ...view, containers: shown }, quiet ? namesOf : renderPs)
  return EXIT.done
}
