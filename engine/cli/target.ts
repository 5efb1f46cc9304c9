/** One running container out of AGENT, SERVICE, `NAME-2` or a container's name. */
import { AgentctlError } from '../errors.ts'
import { LABEL } from '../names.ts'
import type { ObservedContainer } from '../ports.ts'
import { refuseNewer, resolveContainers, type VerbContext } from '../verbs.ts'
import { parseCount } from './arguments.ts'

export async function oneContainer(
  ctx: VerbContext,
  project: string,
  name: string,
  index: string | null,
  { running }: { readonly running: boolean },
): Promise<ObservedContainer> {
  const [found] = await Promise.all([resolveContainers(ctx, project, name), refuseNewer(ctx, project)])
  const replica = index === null ? null : parseCount('--index', index)
  const container =
    replica === null
      ? (found.find((it) => it.status === 'running') ?? found[0])
      : found.find((it) => Number(it.labels[LABEL.replica] ?? 1) === replica)
  if (container === undefined)
    throw new AgentctlError('AG4012', `"${name}" has no replica ${replica}`, { hint: `See \`agentctl ps -p ${project}\`.` })
  if (running && container.status !== 'running') {
    throw new AgentctlError('AG4012', `${container.name} is not running (${container.status})`, {
      hint: `Start it with \`agentctl start ${name}\`; \`agentctl logs ${name}\` says why it ended.`,
    })
  }
  return container
}
