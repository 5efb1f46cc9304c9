import { EXIT } from '../../errors.ts'
import type { Run } from '../verb.ts'
import { renderExplanations, renderRunExplanation } from '../views/explain.ts'

/** Of a run: enough to see why it does not go on. */
const MAX_TASKS = 20

export const explain: Run = async (session, { args: [id = ''] }) => {
  const { control } = await session.control(await session.project())
  if (id.includes('.')) await session.out.print(await control.explain(id), (view) => renderExplanations([view]))
  else await session.out.print(await control.explainRun(id, { limit: MAX_TASKS }), renderRunExplanation)
  return EXIT.done
}
