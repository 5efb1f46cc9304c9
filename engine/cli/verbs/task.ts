import { text as readAll } from 'node:stream/consumers'
import type { TaskView } from '../../../spec/protocol.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { parseJson } from '../arguments.ts'
import { exitOf, perform } from '../follow.ts'
import { workOptions } from '../submit-options.ts'
import { flag, type Run, value } from '../verb.ts'
import { renderTask } from '../views/work.ts'

export const task: Run = async (session, call) => {
  const [agent = '', text = ''] = call.args
  const input = parseJson('the input of the task', text === '-' ? await readAll(session.io.stdin) : text)
  const options = workOptions(call)
  const project = await session.project()
  const { control, record } = await session.control(project)
  const known = Object.keys(record.project.agents)
  if (!known.includes(agent))
    throw new AgentctlError('AG6002', `project "${project}" has no agent "${agent}"`, {
      hint: `Its agents: ${known.sort().join(', ')}.`,
      exit: EXIT.usage,
    })
  const detach = flag(call, 'detach')
  const run = await perform(
    session,
    { project, control, record },
    { agent, type: value(call, 'type') ?? 'task', tasks: [input], ...options },
    { detach },
  )
  const id = run.jobs[0]?.id ?? 'task'
  const view: TaskView = await control.task(id.startsWith('run_') ? id : `${run.run}.${id}.0`)
  await session.out.print(view, detach ? (it) => it.id : renderTask)
  return detach ? EXIT.done : exitOf(view)
}
