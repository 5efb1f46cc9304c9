/** `agentctl doctor`: facts about this machine → findings, each with what was expected and what to do. Pure. */
import { AgentctlError } from './errors.ts'
import type { DoctorFacts, EngineFacts } from './doctor-facts.ts'
import { allocateSubnets, DEFAULT_RANGE } from './subnets.ts'

export type CheckStatus = 'ok' | 'warn' | 'fail'
export interface Check {
  readonly id: string
  readonly status: CheckStatus
  readonly found: string
  readonly expected: string
  /** null: nothing to do. */
  readonly fix: string | null
}
export interface DoctorReport {
  /** Nothing failed; warnings do not count. */
  readonly ok: boolean
  readonly checks: readonly Check[]
}

/** First API with all that we send (Docker 20.10). */
const MIN_API = '1.41'
/** Runs .ts directly and has what the libraries need; bin.js brings its own Node where this is older. */
const MIN_NODE = '22.18'
const GIB = 1_073_741_824
/** Both images take about 0.5 GB, and the first build as much again for its layers. */
const ENGINE_DISK = { fail: GIB, warn: 4 * GIB }
const PROJECT_DISK = { fail: 64 * 1_048_576, warn: GIB / 2 }
/** Networks of a project of some size: one per role and link, and our own. */
const ROOMY_SUBNETS = 32

export function diagnose(facts: DoctorFacts): DoctorReport {
  const checks = [engineCheck(facts), socketCheck(facts), ...engineChecks(facts), projectDisk(facts), nodeCheck(facts), subnetsCheck(facts)]
  return { ok: checks.every(({ status }) => status !== 'fail'), checks }
}

const check = (id: string, expected: string, [status, found, fix = null]: readonly [CheckStatus, string, (string | null)?]): Check => ({
  id,
  status,
  found,
  expected,
  fix,
})

function engineCheck({ engine }: DoctorFacts): Check {
  const expected = 'a container engine that answers'
  if (!engine.ok) return check('engine', expected, ['fail', engine.message, engine.hint])
  return check('engine', expected, [
    'ok',
    `engine ${engine.info.version} at ${engine.info.endpoint}${engine.info.rootless ? ' (rootless)' : ''}`,
  ])
}

function socketCheck({ engine, sockets, user }: DoctorFacts): Check {
  const expected = 'a socket that this user may open'
  const finding = (...what: readonly [CheckStatus, string, string?]): Check => check('socket', expected, what)
  if (engine.ok) return finding('ok', `opened ${engine.info.endpoint}`)
  const closed = sockets.find((socket) => !socket.writable)
  if (closed === undefined)
    return finding(
      'warn',
      sockets.length === 0 ? 'no engine socket on this machine' : `${sockets[0]?.path} can be opened, but nothing answers`,
      'Start or install the engine first.',
    )
  const group = closed.group ?? String(closed.gid)
  return finding(
    'fail',
    `${closed.path} belongs to group ${group}; uid ${user.uid} is not in it`,
    `Run: sudo usermod -aG ${group} ${user.name}   then log in again, or use a rootless engine.`,
  )
}

/** What only the engine can say; without one each is unknown, not wrong. */
function engineChecks(facts: DoctorFacts): readonly Check[] {
  const { engine } = facts
  const about = (id: string, expected: string, ask: (known: EngineFacts) => readonly [CheckStatus, string, (string | null)?]): Check =>
    check(id, expected, engine.ok ? ask(engine) : ['warn', 'unknown: no engine answers', 'See the check "engine".'])
  return [
    about('api', `API ${MIN_API} or later`, ({ info }) =>
      isAtLeast(info.api_version, MIN_API)
        ? ['ok', `API ${info.api_version}`]
        : ['fail', `API ${info.api_version}`, 'Install Docker 20.10 or later.'],
    ),
    about('cgroups', 'cgroups v1 or v2', ({ info }) => ['ok', `cgroups v${info.cgroup_version}`]),
    about('limits', 'memory, CPU and PID limits are enforced', ({ info }) => limits(info.limits, info.rootless)),
    about('seccomp', 'seccomp is on', ({ info }) =>
      info.security_options.some((option) => option.startsWith('name=seccomp'))
        ? ['ok', info.security_options.find((option) => option.startsWith('name=seccomp')) ?? '']
        : [
            'fail',
            info.security_options.join(', ') || 'no security options',
            'Use a kernel and an engine with seccomp (CONFIG_SECCOMP_FILTER).',
          ],
    ),
    about('disk', `${ENGINE_DISK.warn / GIB} GiB free where the engine keeps its data`, ({ info }) =>
      facts.free.engine === null
        ? ['ok', `${info.data_root} is not on this machine: not checked`]
        : room(facts.free.engine, ENGINE_DISK, info.data_root, 'Free some: docker system df shows what takes it.'),
    ),
    ...(['agent', 'engine'] as const).map((part) =>
      about(`image-${part}`, `${facts.references[part]} is on the engine`, ({ images }) =>
        images[part] ? ['ok', facts.references[part]] : ['warn', 'not there', 'Nothing: the first `agentctl up` builds it.'],
      ),
    ),
    about('base-image', 'what our images are built from can be had', ({ images }) => baseImage(facts, images)),
  ]
}

function limits(
  known: { memory: boolean; cpus: boolean; pids: boolean } | undefined,
  rootless: boolean,
): readonly [CheckStatus, string, string?] {
  if (known === undefined) return ['warn', 'the engine does not say', 'Start an agent: a limit that is ignored is reported as AG4006.']
  const missing = [known.memory ? [] : ['memory'], known.cpus ? [] : ['CPU'], known.pids ? [] : ['PIDs']].flat()
  if (missing.length === 0) return ['ok', 'all three']
  const fix = rootless
    ? 'Delegate the controllers to your user (systemd: Delegate=cpu cpuset io memory pids), on cgroups v2.'
    : 'Switch the controllers on in the kernel (cgroup_enable=memory) and restart the engine.'
  return ['fail', `cannot limit ${missing.join(', ')}`, fix]
}

function baseImage({ references, debootstrap }: DoctorFacts, images: EngineFacts['images']): readonly [CheckStatus, string, string?] {
  if (images.agent && images.engine) return ['ok', 'not needed: our images are built']
  if (images.base) return ['ok', references.base]
  if (debootstrap !== null) return ['ok', `${debootstrap} makes one`]
  return [
    'warn',
    `${references.base} is not here: \`up\` will pull it`,
    `Where no registry can be reached: load it (docker load), or apt-get install debootstrap.`,
  ]
}

const projectDisk = ({ free, folder }: DoctorFacts): Check =>
  check(
    'disk-project',
    `${PROJECT_DISK.warn / GIB} GiB free in the project's folder`,
    free.folder === null
      ? ['warn', `${folder} cannot be read`, 'Go to a folder that exists, or name one with --project-directory.']
      : room(free.folder, PROJECT_DISK, folder, 'Free some space.'),
  )

const nodeCheck = ({ node }: DoctorFacts): Check =>
  check(
    'node',
    `Node ${MIN_NODE} or later`,
    isAtLeast(node.replace(/^v/, ''), MIN_NODE) ? ['ok', node] : ['fail', node, 'Run `npm ci` in the checkout: it brings Node 24 along.'],
  )

function subnetsCheck({ subnets }: DoctorFacts): Check {
  const range = subnets.range ?? DEFAULT_RANGE
  const fits = (count: number): string | null => {
    try {
      allocateSubnets({ networks: Array.from({ length: count }, (_, n) => `n${n}`), chosen: {}, taken: subnets.taken, range })
      return null
    } catch (error) {
      return error instanceof AgentctlError ? error.message : String(error)
    }
  }
  const expected = `free /24 subnets in ${range}`
  const fix = 'Set AGENTCTL_SUBNETS to a private range that this machine does not route, such as 172.20.0.0/14, or remove unused projects.'
  const none = fits(1)
  if (none !== null) return check('subnets', expected, ['fail', none, fix])
  return check(
    'subnets',
    expected,
    fits(ROOMY_SUBNETS) === null ? ['ok', `${ROOMY_SUBNETS} or more`] : ['warn', `fewer than ${ROOMY_SUBNETS}`, fix],
  )
}

function room(bytes: number, limit: { fail: number; warn: number }, where: string, fix: string): readonly [CheckStatus, string, string?] {
  const found = `${(bytes / GIB).toFixed(1)} GiB in ${where}`
  return bytes < limit.fail ? ['fail', found, fix] : bytes < limit.warn ? ['warn', found, fix] : ['ok', found]
}

function isAtLeast(version: string, least: string): boolean {
  const [have, want] = [version, least].map((text) => text.split('.').map(Number))
  for (const [index, part] of (want ?? []).entries()) {
    const own = have?.[index] ?? 0
    if (own !== part) return own > part
  }
  return true
}
