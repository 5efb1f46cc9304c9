import { AgentctlError, EXIT } from '../../errors.ts'
import { parseInputs } from '../arguments.ts'
import { usage } from '../failure.ts'
import { exitOf, perform } from '../follow.ts'
import { withArtifacts } from '../stored.ts'
import { workOptions } from '../submit-options.ts'
import { flag, type Run, value, values } from '../verb.ts'
import { renderRun } from '../views/work.ts'

export const run: Run = async (session, call) => {
  const agent = value(call, 'agent')
  if (agent !== null) return await (await import('./run-one-off.ts')).runOneOffVerb(session, call, agent)
  const [pipeline, ...rest] = call.args
  if (pipeline === undefined) throw usage('run expects the name of a pipeline', 'agentctl run PIPELINE --input NAME=VALUE')
  if (rest.length > 0) throw usage(`run takes one pipeline, got ${call.args.length} arguments`, 'Inputs are given as --input NAME=VALUE.')
  const options = workOptions(call)
  const project = await session.project()
  const { control, record } = await session.control(project)
  const known = Object.keys(record.project.pipelines)
  const definition = record.project.pipelines[pipeline]
  if (definition === undefined) {
    const hint = known.length === 0 ? 'Its file has no pipelines.' : `Its pipelines: ${known.sort().join(', ')}.`
    throw new AgentctlError('AG6003', `project "${project}" has no pipeline "${pipeline}"`, { hint, exit: EXIT.usage })
  }
  const inputs = parseInputs(values(call, 'input'), definition.inputs)
  const detach = flag(call, 'detach')
  const view = await perform(session, { project, control, record }, { pipeline, inputs, ...options }, { detach })
  await session.out.print(detach ? view : await withArtifacts(control, view), detach ? (it) => it.run : renderRun)
  return detach ? EXIT.done : exitOf(view)
}
