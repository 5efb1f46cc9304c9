import { type Explanation, TERMINAL } from '../../../spec/protocol.ts'
import type { ControlClient } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import type { Run } from '../verb.ts'
import { renderExplanations } from '../views/explain.ts'

/** Of a run: enough to see why it does not go on. */
const MAX_TASKS = 20

export const explain: Run = async (session, { args: [id = ''] }) => {
  const { control } = await session.control(await session.project())
  if (id.includes('.')) {
    await session.out.print(await control.explain(id), (view) => renderExplanations([view]))
    return EXIT.done
  }
  const tasks: Explanation[] = []
  for (const task of await unfinished(control, id)) {
    if (tasks.length === MAX_TASKS) break
    const view = await control.explain(task)
    if (!TERMINAL.has(view.status)) tasks.push(view)
  }
  await session.out.print({ run: id, tasks }, (view) => renderExplanations(view.tasks) || `${id} waits for nothing: it has ended`)
  return EXIT.done
}

async function unfinished(control: ControlClient, run: string): Promise<readonly string[]> {
  const { jobs, pipeline } = await control.run(run)
  const open = jobs.filter((it) => !TERMINAL.has(it.status))
  if (pipeline === null) return open.map((it) => it.id)
  return open.flatMap((job) => Array.from({ length: Math.max(1, job.tasks ?? 1) }, (_, item) => `${run}.${job.id}.${item}`))
}
