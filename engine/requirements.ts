/** What the file asks of the engine, before anything is made: its runtimes, its kernel's AppArmor, limits that it enforces. Pure. */
import type { Diagnostic, Place } from '../spec/diagnostic.ts'
import type { Project, Workload } from '../spec/model.ts'
import { placeOf } from './places.ts'
import type { EngineInfo } from './ports.ts'

const LIMITS = [
  ['memory', 'mem_limit'],
  ['cpus', 'cpus'],
  ['pids', 'pids_limit'],
] as const

const OTHER_FOLDER = 'Bind a folder that holds only what the agent needs.'
const contains = (outer: string, inner: string): boolean => outer === inner || inner.startsWith(outer === '/' ? '/' : `${outer}/`)

/** What is the engine's on this machine, wherever it was told to keep it. */
function engineOwn(source: string, { data_root, endpoint }: EngineInfo): string | null {
  const socket = endpoint.replace(/^unix:\/\//, '')
  if (socket.startsWith('/') && contains(source, socket)) return "it is or contains the engine's socket: whoever has it owns the host"
  if (data_root !== '' && (contains(data_root, source) || contains(source, data_root)))
    return `the engine keeps its images, volumes and secrets in ${data_root}`
  return null
}

export function requirements(project: Project, info: EngineInfo, places: ReadonlyMap<string, Place>): readonly Diagnostic[] {
  const found: Diagnostic[] = []
  const say = (code: Diagnostic['code'], key: string, message: string, help: string): void =>
    void found.push({ code, severity: 'error', message, place: placeOf(places, key), help, notes: [] })
  const look = (section: 'agents' | 'services', { name, hardening }: Workload): void => {
    const what = `${section === 'agents' ? 'agent' : 'service'} "${name}"`
    const { runtime, apparmor } = hardening ?? {}
    if (runtime !== undefined && !info.runtimes.includes(runtime))
      say(
        'AG3005',
        `${section}.${name}.runtime`,
        `${what} asks for the runtime "${runtime}", which the engine does not have`,
        `It has ${info.runtimes.join(', ') || 'none'}. Install ${runtime} on its machine, register it under "runtimes" in /etc/docker/daemon.json and restart the engine; or remove the key.`,
      )
    if (apparmor !== undefined && !info.security_options.some((option) => option.startsWith('name=apparmor')))
      say(
        'AG3005',
        `${section}.${name}.security_opt.apparmor`,
        `${what} asks for the AppArmor profile "${apparmor}", and the kernel of the engine has no AppArmor`,
        'Use a machine that has it, or remove the option.',
      )
    for (const [limit, key] of LIMITS)
      if (info.limits?.[limit] === false)
        say(
          'AG4006',
          `${section}.${name}.${key}`,
          `the engine cannot enforce the ${limit === 'cpus' ? 'CPU' : limit} limit of ${what} (\`${key}\`)`,
          '`agentctl doctor` says how to switch it on.',
        )
  }
  for (const agent of Object.values(project.agents)) {
    look('agents', agent)
    for (const [index, mount] of agent.mounts.entries()) {
      const why = mount.type === 'bind' ? engineOwn(mount.source, info) : null
      if (why !== null && mount.type === 'bind')
        say(
          'AG3001',
          `agents.${agent.name}.mounts.${index}`,
          `agent "${agent.name}" must not have "${mount.source}" of the host: ${why}`,
          OTHER_FOLDER,
        )
    }
  }
  for (const service of Object.values(project.services)) look('services', service)
  return found
}
