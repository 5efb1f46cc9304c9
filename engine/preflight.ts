/** What the host must have before anything is made: handler files, readable bind sources. Every problem at once. */
import { lstatSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Diagnostic, Place } from '../spec/diagnostic.ts'
import { forbiddenHostPath } from '../spec/host-paths.ts'
import type { Project } from '../spec/model.ts'
import { DEFAULTS } from '../spec/model.ts'
import { placeOf, type Problem } from './places.ts'

export interface PreflightOptions {
  readonly places: ReadonlyMap<string, Place>
  /** Of this machine, as proc(5) has it. */
  readonly mountinfo?: string
  /** false: the engine is on another machine, whose files cannot be looked at. */
  readonly local: boolean
}

export function preflight(project: Project, options: PreflightOptions): readonly Diagnostic[] {
  const diagnostics: Diagnostic[] = []
  const problem = (code: Diagnostic['code'], key: string, message: string, help: string): void => {
    diagnostics.push({ code, severity: 'error', message, place: placeOf(options.places, key), help, notes: [] })
  }

  if (!options.local) return diagnostics
  for (const agent of Object.values(project.agents)) {
    const uid = Number((agent.user ?? DEFAULTS.agent.user).split(':')[0])
    const gid = Number((agent.user ?? DEFAULTS.agent.user).split(':')[1] ?? uid)
    for (const [index, mount] of agent.mounts.entries()) {
      if (mount.type !== 'bind') continue
      const [key, what] = [`agents.${agent.name}.mounts.${index}`, `bind source of agent "${agent.name}"`]
      if (!checkReadable(mount.source, key, what, uid, gid, problem)) continue
      if (checkAllowed(mount.source, key, what, problem) && mount.read_only) checkWhole(mount.source, key, what, options.mountinfo, problem)
    }
    if (agent.handler.kind === 'module') {
      const key = `agents.${agent.name}.handler`
      const [folder, what] = [dirname(agent.handler.path), `folder of the handler of agent "${agent.name}"`]
      if (
        checkReadable(agent.handler.path, key, `handler of agent "${agent.name}"`, uid, gid, problem) &&
        checkReadable(folder, key, what, uid, gid, problem)
      )
        checkAllowed(folder, key, what, problem)
    }
  }
  for (const service of Object.values(project.services)) {
    for (const [index, mount] of service.mounts.entries()) {
      if (mount.type === 'bind')
        exists(mount.source, `services.${service.name}.mounts.${index}`, `bind source of service "${service.name}"`, problem)
    }
  }
  return diagnostics
}

function exists(path: string, key: string, what: string, problem: Problem): Stats | null {
  try {
    return statSync(path)
  } catch (error) {
    problem('AG3002', key, `${what} ${path}: ${reason(error)}`, 'Correct the path, or create it.')
    return null
  }
}

/** The container's user opens it by its own uid: parents do not matter (the mount is the folder itself), its own mode does. */
function checkReadable(path: string, key: string, what: string, uid: number, gid: number, problem: Problem): boolean {
  const stats = exists(path, key, what, problem)
  if (stats === null) return false
  const bits = stats.uid === uid ? stats.mode >> 6 : stats.gid === gid ? stats.mode >> 3 : stats.mode
  const need = stats.isDirectory() ? 5 : 4
  if ((bits & need) === need) return true
  problem(
    'AG3002',
    key,
    `${what} ${path} cannot be read by uid ${uid}: it belongs to uid ${stats.uid}, mode ${(stats.mode & 0o777).toString(8)}${lstatSync(path).isSymbolicLink() ? ' (through a link)' : ''}`,
    // Never as root: such an agent is refused.
    `Make it readable (\`chmod o+r${stats.isDirectory() ? 'x' : ''}\`), ${stats.uid === 0 ? '' : `run the agent with \`user: "${stats.uid}"\`, `}or copy the data into a volume with \`agentctl cp\`.`,
  )
  return false
}

/** The file's own path was looked at by the loader; behind it may be a link to anywhere. */
function checkAllowed(path: string, key: string, what: string, problem: Problem): boolean {
  const real = realpathSync(path)
  const why = forbiddenHostPath(real)
  if (why === null) return true
  problem(
    'AG3001',
    key,
    `${what} ${path}${real === path ? '' : ` leads to ${real}, which`} must not be given to an agent: ${why}`,
    'Bind a folder of the project, or copy the data into a volume with `agentctl cp`.',
  )
  return false
}

/** What is mounted below a read-only source does not come along: there it could be written (create-body.ts). */
function checkWhole(path: string, key: string, what: string, mountinfo: string | undefined, problem: Problem): void {
  const real = realpathSync(path)
  const below = (mountinfo ?? '')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .find((target) => target.startsWith(`${real}/`))
  if (below !== undefined)
    problem(
      'AG3002',
      key,
      `${what} ${path} has another file system mounted below it, at ${below}, which the agent would not see`,
      'Bind that folder by itself as well, to a target of its own.',
    )
}

export const reason = (error: unknown): string => {
  const code = (error as { code?: string }).code
  return code === 'ENOENT'
    ? 'there is no such file'
    : code === 'EACCES'
      ? 'permission denied'
      : code === 'EISDIR'
        ? 'it is a folder'
        : (code ?? String(error))
}
