/** A project that is up, by name: for verbs that need no file. */
import { AgentctlError } from '../errors.ts'
import type { ProjectRecord } from '../record.ts'
import { readRecord, restoreController, resolveContainers, type VerbContext } from '../verbs.ts'

export async function requireProject(ctx: VerbContext, project: string): Promise<ProjectRecord> {
  await resolveContainers(ctx, project, null)
  await restoreController(ctx, project)
  const record = await readRecord(ctx, project)
  if (record === null)
    throw new AgentctlError('AG4012', `project "${project}" has no record; its \`up\` was interrupted early`, {
      hint: 'Bring it up again with `agentctl up`.',
    })
  return record
}
