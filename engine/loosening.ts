/** What the file takes away from the default posture of agents, in words: shown by `plan` and `audit`. Pure. */
import { type Agent, DEFAULTS, type Hardening, type Project, type Service } from '../spec/model.ts'
import { SHM_SIZE } from './ports.ts'

export interface Loosening {
  /** "agent coder". */
  readonly of: string
  /** The key of the file. */
  readonly key: string
  readonly value: string
  /** What it opens. */
  readonly effect: string
  /** Id of the control that it changes (engine/posture/controls.ts). */
  readonly control: string
}

/** Capabilities with which a replica is no longer alone behind its address. */
const SPOOFING = ['NET_ADMIN', 'NET_RAW']

export function looseningsOf(project: Project): readonly Loosening[] {
  return [...Object.values(project.agents).flatMap(agentLoosenings), ...Object.values(project.services).flatMap(serviceLoosenings)].sort(
    (a, b) => (a.of === b.of ? 0 : a.of < b.of ? -1 : 1),
  )
}

type Found = readonly [control: string, key: string, value: string, effect: string]
const named = (of: string, found: readonly (Found | null)[]): readonly Loosening[] =>
  found.flatMap((it) => (it === null ? [] : [{ of, control: it[0], key: it[1], value: it[2], effect: it[3] }]))

function agentLoosenings(agent: Agent): readonly Loosening[] {
  const { hardening = {}, mounts, pids_limit } = agent
  const nofile = hardening.ulimits?.['nofile']?.hard ?? 0
  const core = hardening.ulimits?.['core']?.hard ?? 0
  return named(`agent ${agent.name}`, [
    ...common(hardening),
    hardening.read_only === false
      ? ['read-only-root', 'read_only', 'false', 'it can write its root file system, without a limit of size']
      : null,
    pids_limit > DEFAULTS.agent.pids_limit
      ? ['pids', 'pids_limit', String(pids_limit), `more processes than the default of ${DEFAULTS.agent.pids_limit}`]
      : null,
    nofile === -1 || nofile > 4_096 ? ['ulimits', 'ulimits.nofile', limit(nofile), 'more open files than the default of 4096'] : null,
    core !== 0 ? ['ulimits', 'ulimits.core', limit(core), 'core dumps may hold its secrets'] : null,
    ...Object.keys(hardening.ulimits ?? {})
      .filter((name) => name !== 'nofile' && name !== 'core')
      .map(
        (name): Found => ['ulimits', `ulimits.${name}`, limit(hardening.ulimits?.[name]?.hard ?? 0), 'another limit than the engine gives'],
      ),
    ...mounts.map((mount): Found | null =>
      mount.type === 'bind' && !mount.read_only
        ? ['mounts', 'volumes', mount.source, `it can write this folder of the host, at ${mount.target}`]
        : mount.type === 'tmpfs' && mount.target === '/tmp'
          ? ['tmpfs', 'tmpfs', mount.target, 'it can run what it writes there']
          : null,
    ),
  ])
}

/** Of a service only what goes beyond what Compose gives. */
const serviceLoosenings = (service: Service): readonly Loosening[] => named(`service ${service.name}`, common(service.hardening ?? {}))

function common({ cap_add = [], no_new_privileges, seccomp, init, shm_size, runtime, sysctls = {} }: Hardening): readonly (Found | null)[] {
  const spoofing = cap_add.filter((name) => SPOOFING.includes(name))
  return [
    cap_add.length === 0
      ? null
      : [
          'capabilities',
          'cap_add',
          cap_add.join(', '),
          spoofing.length === 0
            ? 'capabilities that it does not have by default'
            : `with ${spoofing.join(' and ')} it can take the addresses of others on its networks`,
        ],
    no_new_privileges === false
      ? [
          'no-new-privileges',
          'security_opt',
          'no-new-privileges:false',
          'a program with set-uid or file capabilities gives it more than it has',
        ]
      : null,
    typeof seccomp === 'object'
      ? ['seccomp', 'security_opt', `seccomp=${seccomp.path}`, 'system calls as this profile says, and not as ours']
      : null,
    init === false ? ['init', 'init', 'false', 'nobody takes in its orphans: they fill its limit of processes'] : null,
    (shm_size ?? 0) > SHM_SIZE ? ['shm', 'shm_size', String(shm_size), `a larger /dev/shm than the default of ${SHM_SIZE}`] : null,
    runtime === undefined ? null : ['runtime', 'runtime', runtime, "its own runtime keeps the boundary, and not the engine's default one"],
    ...Object.keys(sysctls).map((name): Found => ['sysctls', 'sysctls', `${name}=${sysctls[name]}`, 'a kernel setting of its namespaces']),
  ]
}

const limit = (value: number): string => (value === -1 ? 'unlimited' : String(value))

export const renderLoosenings = (loosenings: readonly Loosening[]): readonly string[] =>
  loosenings.length === 0
    ? []
    : ['Loosened by the file:', ...loosenings.map(({ of, key, value, effect }) => `  ${of}  ${key}: ${value}  (${effect})`)]
