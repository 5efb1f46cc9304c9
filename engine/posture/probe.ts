/**
 * What the kernel says of a replica, read in its own namespaces by a program of ours: text → facts → differences. Pure.
 * The reader is a copy of `cat` that nobody may read (mode 0711), so the kernel makes its process closed to others of its uid:
 * what an agent does to processes of its own user cannot change what the reader says.
 */
import type { ContainerSpec } from '../ports.ts'
import type { Difference } from './controls.ts'

/** Paths in both of our images (engine/images). */
const READER = '/opt/agentctl/probe'
const MARK_FILE = '/opt/agentctl/mark'
const MARK = '--- agentctl probe ---'

/** cgroups v2 and v1: what is not there says nothing. */
const LIMITS = ['memory.max', 'memory/memory.limit_in_bytes', 'pids.max', 'pids/pids.max', 'cpu.max', 'cpu/cpu.cfs_quota_us'] as const

/** In this order; what may hold anything is the last. Who joined from beside has mounts and limits of its own. */
const sources = (inside: boolean): readonly string[] => [
  '/proc/1/status',
  `/proc/${inside ? 'self' : '1'}/mountinfo`,
  '/proc/self/net/route',
  '/proc/self/net/dev',
  ...LIMITS.map((name) => (inside ? `/sys/fs/cgroup/${name}` : '/dev/null')),
  '/proc/1/environ',
]

/** `inside`: executed in the container itself; else in one that has joined its namespaces, where mounts are those of process 1. */
export const probeCommand = (inside: boolean): readonly string[] => [
  READER,
  ...sources(inside).flatMap((path, index) => (index === 0 ? [path] : [MARK_FILE, path])),
]

export interface Mounted {
  readonly target: string
  readonly type: string
  readonly options: readonly string[]
  /** Of the file system: size of a tmpfs. */
  readonly superOptions: readonly string[]
}
export interface Seen {
  /** Fields of /proc/1/status. */
  readonly status: { readonly [name: string]: string }
  readonly mounts: readonly Mounted[]
  /** [destination, mask, gateway] in the kernel's hex. */
  readonly routes: readonly { readonly device: string; readonly destination: string; readonly gateway: string }[]
  readonly devices: readonly string[]
  /** Of its control group; null: not readable. */
  readonly limits: { readonly memory: string | null; readonly pids: string | null; readonly cpus: string | null }
  /** null: not readable. */
  readonly variables: readonly string[] | null
}

/** null: that is not what the reader says. */
export function parseProbe(text: string): Seen | null {
  const parts = text.split(`${MARK}\n`)
  const [
    status = '',
    mounts = '',
    routes = '',
    devices = '',
    memory2 = '',
    memory1 = '',
    pids2 = '',
    pids1 = '',
    cpu2 = '',
    cpu1 = '',
    ...rest
  ] = parts
  if (rest.length === 0 || !status.startsWith('Name:')) return null
  const environment = rest.join(`${MARK}\n`)
  return {
    status: Object.fromEntries(
      lines(status).map((line) => [
        line.slice(0, line.indexOf(':')),
        line
          .slice(line.indexOf(':') + 1)
          .trim()
          .replaceAll(/\s+/g, ' '),
      ]),
    ),
    mounts: lines(mounts).map(mounted),
    routes: lines(routes)
      .slice(1)
      .map((line) => {
        const [device = '', destination = '', gateway = ''] = line.split('\t')
        return { device, destination, gateway }
      }),
    devices: lines(devices)
      .filter((line) => line.includes(':'))
      .map((line) => line.slice(0, line.indexOf(':')).trim()),
    limits: {
      memory: (memory2 || memory1).trim() || null,
      pids: (pids2 || pids1).trim() || null,
      cpus: cpuOf(cpu2.trim() || cpu1.trim()),
    },
    variables:
      environment === '' ? null : environment.split('\0').flatMap((it) => (it.includes('=') ? [it.slice(0, it.indexOf('='))] : [])),
  }
}

/** "50000 100000" or, on v1, the quota alone: the engine's period is 100 ms. */
function cpuOf(text: string): string | null {
  const [quota, period = '100000'] = text.split(' ')
  if (quota === undefined || quota === '') return null
  return Number(quota) > 0 ? String(Number(quota) / Number(period)) : 'unlimited'
}

const lines = (text: string): readonly string[] => text.split('\n').filter((line) => line.trim() !== '')

/** proc(5): id parent major:minor root target options [optional…] - type source super-options. */
function mounted(line: string): Mounted {
  const [own = '', file = ''] = line.split(' - ')
  const [, , , , target = '', options = ''] = own.split(' ')
  const [type = '', , superOptions = ''] = file.split(' ')
  // \040 is a blank.
  return {
    target: target.replaceAll(/\\(\d{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8))),
    type,
    options: options.split(','),
    superOptions: superOptions.split(','),
  }
}

/** What every container of the engine's has, whatever was asked for; device nodes where the engine is rootless. */
const ENGINE_MOUNTS =
  /^\/(proc|dev|sys|etc\/(hosts|hostname|resolv\.conf)|(usr\/)?sbin\/docker-init|dev\/(pts|shm|mqueue|console|null|zero|full|random|urandom|tty)|sys\/fs\/cgroup(\/.*)?)$/

/** capabilities(7), in the kernel's order. */
const BITS: readonly string[] = [
  ...['CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE'],
  ...['NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT'],
  ...['SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE'],
  ...['AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ'],
  ...['PERFMON', 'BPF', 'CHECKPOINT_RESTORE'],
]
export function capabilitiesOf(hex: string): string {
  const mask = BigInt(`0x${/^[0-9a-f]+$/i.test(hex) ? hex : '0'}`)
  const held = BITS.filter((_, bit) => ((mask >> BigInt(bit)) & 1n) === 1n)
  return held.length === 0 ? 'none' : [...held].sort().join(', ')
}

/** Of an agent. A field that the runtime's own kernel does not have (gVisor) is asked of the engine alone. `volumes`: of its image. */
export function compareProbe(spec: ContainerSpec, seen: Seen, volumes: readonly string[] = []): readonly Difference[] {
  const found: Difference[] = []
  const check = (control: string, declared: string, effective: string | undefined): void => {
    if (effective !== undefined && effective !== declared) found.push({ control, declared, effective })
  }
  const { status } = seen
  const [uid = '', gid = uid] = (spec.user ?? '').split(':')
  if (uid !== '') {
    check('user', Array(4).fill(uid).join(' '), status['Uid'])
    check('user', Array(4).fill(gid).join(' '), status['Gid'])
  }
  const bounding = spec.cap_add.length === 0 ? 'none' : [...spec.cap_add].sort().join(', ')
  check('capabilities', bounding, caps(status['CapBnd']))
  // Its user is not root: what is added is in force through a program alone.
  check('capabilities', 'none', caps(status['CapEff']))
  check('no-new-privileges', spec.no_new_privileges ? '1' : '0', status['NoNewPrivs'])
  check(
    'seccomp',
    'a filter',
    status['Seccomp'] === undefined ? undefined : status['Seccomp'] === '2' ? 'a filter' : `mode ${status['Seccomp']}`,
  )
  const { memory, pids, cpus } = seen.limits
  // The kernel counts whole pages, and the quota in microseconds.
  check('memory', String(Math.floor(spec.mem_limit / 4096) * 4096), memory ?? undefined)
  check('pids', String(spec.pids_limit), pids ?? undefined)
  check('cpus', String(Math.floor(spec.cpus * 100_000) / 100_000), cpus ?? undefined)
  found.push(...compareMounts(spec, seen, volumes))
  const interfaces = seen.devices.filter((device) => device !== 'lo')
  check('networks', `${spec.endpoints.length} interfaces`, `${interfaces.length} interfaces`)
  for (const route of foreignRoutes(spec, seen)) found.push({ control: 'networks', declared: 'no other route', effective: route })
  const missing = Object.keys(spec.environment).filter((name) => seen.variables !== null && !seen.variables.includes(name))
  check('environment', 'all of its variables', missing.length === 0 ? 'all of its variables' : `without ${missing.join(', ')}`)
  return found
}

/**
 * Subnets are /24. Docker 20.10 gives an internal network a default route to the address that `inhibit_ipv4` leaves without an owner:
 * what counts is that every route stays in a network that was declared.
 */
function foreignRoutes(spec: ContainerSpec, { routes }: Seen): readonly string[] {
  if (spec.endpoints.some(({ address }) => address === null)) return []
  const subnet = (address: string): string => address.slice(0, address.lastIndexOf('.'))
  const declared = new Set(spec.endpoints.map(({ address }) => subnet(address ?? '')))
  return routes.flatMap(({ device, destination, gateway }) => {
    const [to, by] = [ipOf(destination), ipOf(gateway)]
    const next = to === '0.0.0.0' ? by : to
    if (declared.has(subnet(next))) return []
    return [to === '0.0.0.0' ? `a default route to ${by} by ${device}` : `a route to ${to} by ${device}`]
  })
}

/** The kernel writes the address as the number that it is in memory: least byte first here. */
const ipOf = (hex: string): string =>
  (hex.match(/../g) ?? [])
    .map((byte) => Number.parseInt(byte, 16))
    .reverse()
    .join('.')

const caps = (hex: string | undefined): string | undefined => (hex === undefined ? undefined : capabilitiesOf(hex))
const access = (mount: Mounted): string => (mount.options.includes('ro') ? 'read-only' : 'writable')

function compareMounts(spec: ContainerSpec, { mounts }: Seen, volumes: readonly string[]): readonly Difference[] {
  const found: Difference[] = []
  const differ = (control: string, target: string, declared: string, effective: string): void => {
    if (declared !== effective) found.push({ control, declared: `${target} ${declared}`, effective: `${target} ${effective}` })
  }
  // The last one at a target is the one that is seen.
  const at = new Map(mounts.map((mount) => [mount.target, mount]))
  const known = new Set<string>(['/', ...volumes])
  const root = at.get('/')
  if (root !== undefined) differ('read-only-root', '/', spec.read_only ? 'read-only' : 'writable', access(root))
  for (const { target, read_only } of [...spec.binds, ...spec.volumes]) {
    known.add(target)
    const mount = at.get(target)
    differ('mounts', target, read_only ? 'read-only' : 'writable', mount === undefined ? 'not mounted' : access(mount))
  }
  for (const { target, size, exec } of spec.tmpfs) {
    known.add(target)
    const mount = at.get(target)
    const kib = mount?.superOptions.find((option) => option.startsWith('size='))?.slice('size='.length)
    const declared = `tmpfs ${Math.ceil(size / 4096) * 4}k${exec ? '' : ' noexec'} nosuid nodev`
    differ(
      'tmpfs',
      target,
      declared,
      mount === undefined
        ? 'not mounted'
        : [mount.type, kib ?? 'unlimited', ...['noexec', 'nosuid', 'nodev'].filter((option) => mount.options.includes(option))].join(' '),
    )
  }
  for (const path of spec.readonly_paths ?? []) {
    known.add(path)
    const mount = at.get(path)
    // A path that this kernel does not have is not mounted.
    if (mount !== undefined) differ('read-only-paths', path, 'read-only', access(mount))
  }
  for (const path of spec.masked_paths ?? []) known.add(path)
  for (const { target } of at.values())
    if (!known.has(target) && !ENGINE_MOUNTS.test(target)) differ('mounts', target, 'not mounted', 'mounted')
  const proc = at.get('/sys')
  if (proc !== undefined) differ('read-only-paths', '/sys', 'read-only', access(proc))
  return found
}
