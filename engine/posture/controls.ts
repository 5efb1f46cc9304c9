/**
 * Every control of a container, once: what was declared for it, what the engine says, and under which id others know it. Pure.
 * Both sides are text that people read, so a difference names itself. Values of variables are never in it.
 * Ids: CIS Docker Benchmark 1.6 as docker-bench-security numbers it, and the controls of the Pod Security Standards.
 */
import { createHash } from 'node:crypto'
import { type Fields, fields, list, number, text, texts } from '../fields.ts'
import { type ContainerSpec, SHM_SIZE } from '../ports.ts'
import { SECCOMP, STRICT_SECCOMP } from '../seccomp.ts'

/** What `inspect` gave, and the variables of the image (null: not known). */
export interface Effective {
  readonly inspect: Fields
  readonly imageEnvironment: readonly string[] | null
}

export interface Control {
  readonly id: string
  readonly title: string
  readonly cis: readonly string[]
  readonly pss: readonly string[]
  readonly declared: (spec: ContainerSpec) => string
  readonly effective: (effective: Effective, spec: ContainerSpec) => string
  /** Declared so, and as strict as the standard asks. Absent: any declared value is. */
  readonly strict?: (value: string, spec: ContainerSpec) => boolean
}

const host = ({ inspect }: Effective): Fields => fields(inspect['HostConfig'])
const config = ({ inspect }: Effective): Fields => fields(inspect['Config'])
const names = (value: unknown): readonly string[] => list(value).map(text)
const onOff = (value: boolean): string => (value ? 'on' : 'off')
const some = (values: readonly string[]): string => (values.length === 0 ? 'none' : [...values].sort().join(', '))
const capabilities = (drop: readonly string[], add: readonly string[]): string => {
  const bare = (all: readonly string[]): readonly string[] => all.map((name) => name.toUpperCase().replace(/^CAP_/, ''))
  return `drop ${some(bare(drop))}; add ${some(bare(add))}`
}
const option = (effective: Effective, name: string): string | null => {
  const found = names(host(effective)['SecurityOpt']).find((it) => new RegExp(`^${name}([:=]|$)`).test(it))
  return found === undefined ? null : found.slice(name.length + 1)
}

function profile(value: string | null): string {
  if (value === null) return "the engine's own"
  if (value === 'unconfined') return value
  const whole = compact(value)
  if (whole === SECCOMP) return 'ours, default'
  if (whole === STRICT_SECCOMP) return 'ours, strict'
  return `a profile of the file, sha256:${createHash('sha256').update(whole).digest('hex').slice(0, 12)}`
}
function compact(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json))
  } catch {
    return json
  }
}

/** '' and the default's own name are the same. */
const space = (value: unknown, ...same: readonly string[]): string => (same.includes(text(value)) ? 'own' : text(value))

const mount = (type: string, source: string, target: string, isReadOnly: boolean): string =>
  `${type} ${source} at ${target}${isReadOnly ? ' (read-only)' : ''}`
function mountsOf({ inspect }: Effective): string {
  const ofImage = new Set(Object.keys(fields(fields(inspect['Config'])['Volumes'])))
  return some(
    list(inspect['Mounts'])
      .map(fields)
      // What the image declares as a volume is the image's.
      .filter((it) => !(text(it['Type']) === 'volume' && /^[0-9a-f]{64}$/.test(text(it['Name'])) && ofImage.has(text(it['Destination']))))
      .filter((it) => text(it['Type']) !== 'tmpfs')
      .map((it) => mount(text(it['Type']), text(it['Name']) || text(it['Source']), text(it['Destination']), it['RW'] === false)),
  )
}
const memory = (target: string, size: string, exec: boolean): string => `${target} ${size}${exec ? ' exec' : ''}`

const limit = ({ Name, Soft, Hard }: Fields): string => `${text(Name)} ${number(Soft)}:${number(Hard)}`

/** Swap of a machine that does not count it: the memory limit holds all the same. */
const swap = (memory: number, value: number): string => (value === memory || value === -1 ? 'no swap' : `and ${value - memory} of swap`)

function environment(spec: ContainerSpec, { imageEnvironment, ...rest }: Effective): string {
  const have = new Map(
    names(config({ imageEnvironment, ...rest })['Env']).map((it) => [it.slice(0, it.indexOf('=')), it.slice(it.indexOf('=') + 1)]),
  )
  const ofImage = new Set((imageEnvironment ?? [...have.keys()]).map((it) => it.split('=', 1)[0] ?? ''))
  const found = Object.keys(spec.environment).flatMap((name) => {
    const value = have.get(name)
    return value === undefined ? [] : [value === spec.environment[name] ? name : `${name} (another value)`]
  })
  const extra = [...have.keys()].filter((name) => spec.environment[name] === undefined && !ofImage.has(name))
  return some([...found, ...extra.map((name) => `${name} (not declared)`)])
}

const address = (network: string, ip: string): string => (ip === '' ? network : `${network} ${ip}`)

function networks(spec: ContainerSpec, { inspect }: Effective): string {
  const all = fields(fields(inspect['NetworkSettings'])['Networks'])
  const isUp = fields(inspect['State'])['Running'] === true
  const declared = new Map(spec.endpoints.map((endpoint) => [endpoint.network, endpoint.address]))
  return some(
    Object.keys(all)
      .filter((name) => name !== 'none')
      .map((name) => {
        const wanted = declared.get(name) ?? null
        // An address that nobody chose, or of a container that is down, is as it should be.
        return address(name, wanted === null ? '' : isUp ? text(fields(all[name])['IPAddress']) : wanted)
      }),
  )
}

export const CONTROLS: readonly Control[] = [
  {
    id: 'user',
    title: 'user',
    cis: ['4.1', '5.24'],
    pss: ['restricted:running-as-non-root', 'restricted:running-as-non-root-user'],
    declared: (spec) => spec.user ?? "the image's",
    effective: (it, spec) => (spec.user === null ? "the image's" : text(config(it)['User'])),
    strict: (value) => /^[1-9]/.test(value),
  },
  {
    id: 'groups',
    title: 'further groups',
    cis: [],
    pss: [],
    declared: () => 'none',
    effective: (it) => some(names(host(it)['GroupAdd'])),
  },
  {
    id: 'capabilities',
    title: 'capabilities',
    cis: ['5.4'],
    pss: ['baseline:capabilities', 'restricted:capabilities'],
    declared: (spec) => capabilities(spec.cap_drop, spec.cap_add),
    effective: (it) => capabilities(names(host(it)['CapDrop']), names(host(it)['CapAdd'])),
    strict: (value) => value === 'drop ALL; add none',
  },
  {
    id: 'privileged',
    title: 'privileged',
    cis: ['5.5'],
    pss: ['baseline:privileged-containers'],
    declared: () => 'off',
    effective: (it) => onOff(host(it)['Privileged'] === true),
  },
  {
    id: 'no-new-privileges',
    title: 'no new privileges',
    cis: ['5.26'],
    pss: ['restricted:privilege-escalation'],
    declared: (spec) => onOff(spec.no_new_privileges),
    effective: (it) => onOff(['', 'true'].includes(option(it, 'no-new-privileges') ?? 'false')),
    strict: (value) => value === 'on',
  },
  {
    id: 'seccomp',
    title: 'seccomp profile',
    cis: ['5.22', '2.17'],
    pss: ['baseline:seccomp', 'restricted:seccomp'],
    declared: (spec) => profile(spec.seccomp),
    effective: (it) => profile(option(it, 'seccomp')),
    strict: (value) => value.startsWith('ours') || value.startsWith('the engine'),
  },
  {
    id: 'apparmor',
    title: 'AppArmor profile',
    cis: ['5.2'],
    pss: ['baseline:apparmor'],
    declared: (spec) => spec.apparmor ?? "the engine's own",
    effective: (it, spec) => {
      const value = text(it.inspect['AppArmorProfile'])
      return spec.apparmor === undefined && value !== 'unconfined' ? "the engine's own" : value
    },
  },
  {
    id: 'read-only-root',
    title: 'read-only root file system',
    cis: ['5.13'],
    pss: [],
    declared: (spec) => onOff(spec.read_only),
    effective: (it) => onOff(host(it)['ReadonlyRootfs'] === true),
    strict: (value) => value === 'on',
  },
  {
    id: 'masked-paths',
    title: 'masked paths of /proc and /sys',
    cis: [],
    pss: ['baseline:proc-mount-type'],
    declared: (spec) => some(spec.masked_paths ?? []),
    effective: (it, spec) => (spec.masked_paths === null ? 'none' : some(names(host(it)['MaskedPaths']))),
  },
  {
    id: 'read-only-paths',
    title: 'read-only paths of /proc',
    cis: [],
    pss: ['baseline:proc-mount-type'],
    declared: (spec) => some(spec.readonly_paths ?? []),
    effective: (it, spec) => (spec.readonly_paths === null ? 'none' : some(names(host(it)['ReadonlyPaths']))),
  },
  {
    id: 'memory',
    title: 'memory limit',
    cis: ['5.11'],
    pss: [],
    declared: (spec) => `${spec.mem_limit}, no swap`,
    effective: (it) => `${number(host(it)['Memory'])}, ${swap(number(host(it)['Memory']), number(host(it)['MemorySwap']))}`,
  },
  {
    id: 'cpus',
    title: 'CPU limit',
    cis: ['5.12'],
    pss: [],
    declared: (spec) => String(spec.cpus),
    effective: (it) => String(number(host(it)['NanoCpus']) / 1e9),
  },
  {
    id: 'pids',
    title: 'limit of processes',
    cis: ['5.29'],
    pss: [],
    declared: (spec) => String(spec.pids_limit),
    effective: (it) => String(number(host(it)['PidsLimit'])),
  },
  {
    id: 'ulimits',
    title: 'limits per process',
    cis: ['5.19'],
    pss: [],
    declared: (spec) => some(spec.ulimits.map(({ name, soft, hard }) => `${name} ${soft}:${hard}`)),
    effective: (it) => some(list(host(it)['Ulimits']).map(fields).map(limit)),
  },
  {
    id: 'oom',
    title: 'out of memory',
    cis: [],
    pss: [],
    declared: (spec) => `score ${spec.oom_score_adj}`,
    effective: (it) => `score ${number(host(it)['OomScoreAdj'])}${host(it)['OomKillDisable'] === true ? ', never killed' : ''}`,
  },
  {
    id: 'init',
    title: 'init',
    cis: [],
    pss: [],
    declared: (spec) => onOff(spec.init),
    effective: (it) => onOff(host(it)['Init'] === true),
    strict: (value) => value === 'on',
  },
  {
    id: 'shm',
    title: 'size of /dev/shm',
    cis: [],
    pss: [],
    declared: (spec) => String(spec.shm_size ?? SHM_SIZE),
    effective: (it) => String(number(host(it)['ShmSize'])),
  },
  {
    id: 'namespaces',
    title: 'namespaces',
    cis: ['5.10', '5.16', '5.17', '5.21', '5.31'],
    pss: ['baseline:host-namespaces'],
    declared: () => 'ipc own, pid own, uts own, user own, cgroup own',
    effective: (it) =>
      [
        `ipc ${space(host(it)['IpcMode'], 'private')}`,
        `pid ${space(host(it)['PidMode'], '')}`,
        `uts ${space(host(it)['UTSMode'], '')}`,
        `user ${space(host(it)['UsernsMode'], '')}`,
        `cgroup ${space(host(it)['CgroupnsMode'], 'private')}`,
      ].join(', '),
  },
  {
    id: 'cgroup',
    title: 'parent control group',
    cis: ['5.25'],
    pss: [],
    declared: () => 'own',
    effective: (it) => space(host(it)['CgroupParent'], ''),
  },
  {
    id: 'devices',
    title: 'devices of the host',
    cis: ['5.18'],
    pss: [],
    declared: () => 'none',
    effective: (it) =>
      some([
        ...list(host(it)['Devices']).map((device) => text(fields(device)['PathOnHost'])),
        ...list(host(it)['DeviceRequests']).map((device) => `request ${text(fields(device)['Driver'])}`),
        ...names(host(it)['DeviceCgroupRules']),
      ]),
  },
  {
    id: 'sysctls',
    title: 'kernel settings',
    cis: [],
    pss: ['baseline:sysctls'],
    declared: (spec) => some(Object.entries(spec.sysctls).map(([name, value]) => `${name}=${value}`)),
    effective: (it) => some(Object.entries(texts(host(it)['Sysctls'])).map(([name, value]) => `${name}=${value}`)),
  },
  {
    id: 'mounts',
    title: 'mounts',
    cis: ['5.6', '5.20', '5.32'],
    pss: ['baseline:host-path-volumes', 'restricted:volume-types'],
    declared: (spec) =>
      some([
        ...spec.binds.map((it) => mount('bind', it.source, it.target, it.read_only)),
        ...spec.volumes.map((it) => mount('volume', it.source, it.target, it.read_only)),
      ]),
    effective: (it) => mountsOf(it),
    strict: (value) => !value.includes('docker.sock'),
  },
  {
    id: 'propagation',
    title: 'mounts that come through from the host',
    cis: ['5.20'],
    pss: [],
    declared: () => 'none',
    effective: (it) =>
      some(
        list(it.inspect['Mounts'])
          .map(fields)
          .filter((each) => ['shared', 'rshared'].includes(text(each['Propagation'])))
          .map((each) => text(each['Destination'])),
      ),
  },
  {
    id: 'tmpfs',
    title: 'memory file systems',
    cis: [],
    pss: [],
    declared: (spec) => some(spec.tmpfs.map((it) => memory(it.target, String(it.size), it.exec))),
    effective: (it) =>
      some(
        Object.entries(texts(host(it)['Tmpfs'])).map(([target, options]) =>
          memory(target, /(?:^|,)size=([^,]*)/.exec(options)?.[1] ?? 'unlimited', !options.split(',').includes('noexec')),
        ),
      ),
  },
  {
    id: 'others',
    title: "other containers' volumes",
    cis: [],
    pss: [],
    declared: () => 'none',
    effective: (it) => some(names(host(it)['VolumesFrom'])),
  },
  {
    id: 'networks',
    title: 'networks',
    cis: ['5.10', '5.30'],
    pss: ['baseline:host-namespaces'],
    declared: (spec) => some(spec.endpoints.map((it) => address(it.network, it.address ?? ''))),
    effective: (it, spec) => networks(spec, it),
  },
  {
    id: 'names',
    title: 'name resolution',
    cis: [],
    pss: [],
    declared: (spec) => `${some(spec.dns)}; ${some(Object.entries(spec.extra_hosts).map((it) => it.join(':')))}`,
    effective: (it) => `${some(names(host(it)['Dns']))}; ${some(names(host(it)['ExtraHosts']))}`,
  },
  {
    id: 'ports',
    title: 'published ports',
    cis: ['5.8', '5.9', '5.14'],
    pss: ['baseline:host-ports'],
    declared: (spec) => some(spec.ports.map((it) => `${it.host_ip}:${it.host_port || ''}:${it.container_port}/${it.protocol}`)),
    effective: (it) =>
      some(
        Object.entries(fields(host(it)['PortBindings'])).flatMap(([port, bindings]) =>
          list(bindings)
            .map(fields)
            .map((each) => `${text(each['HostIp'])}:${text(each['HostPort'])}:${port}`),
        ),
      ),
  },
  {
    id: 'environment',
    title: 'environment variables',
    cis: [],
    pss: [],
    declared: (spec) => some(Object.keys(spec.environment)),
    effective: (it, spec) => environment(spec, it),
  },
  {
    id: 'program',
    title: 'image and program',
    cis: [],
    pss: [],
    declared: ({ image, entrypoint, command }) => program(image, entrypoint, command),
    effective: (it, { entrypoint, command }) =>
      program(
        text(config(it)['Image']),
        entrypoint === null ? null : names(config(it)['Entrypoint']),
        command === null ? null : names(config(it)['Cmd']),
      ),
  },
  {
    id: 'runtime',
    title: 'OCI runtime',
    cis: [],
    pss: [],
    declared: (spec) => spec.runtime ?? "the engine's own",
    effective: (it, spec) => (spec.runtime === undefined ? "the engine's own" : text(host(it)['Runtime'])),
  },
  {
    id: 'restart',
    title: 'restart policy',
    cis: ['5.15'],
    pss: [],
    declared: (spec) => spec.restart,
    effective: (it) => text(fields(host(it)['RestartPolicy'])['Name']) || 'no',
  },
  {
    id: 'logs',
    title: 'size of logs',
    cis: ['2.13'],
    pss: [],
    declared: () => 'json-file, 3 of 10m',
    effective: (it) => {
      const { Type, Config } = fields(host(it)['LogConfig'])
      const { 'max-size': size = '?', 'max-file': files = '?' } = texts(Config)
      return `${text(Type)}, ${files} of ${size}`
    },
  },
]

/** A long script is told by its digest: a difference is what counts. */
function program(image: string, entrypoint: readonly string[] | null, command: readonly string[] | null): string {
  const words = (all: readonly string[] | null): string => {
    if (all === null) return "the image's"
    const whole = JSON.stringify(all)
    return whole.length <= 120 ? whole : `sha256:${createHash('sha256').update(whole).digest('hex').slice(0, 12)}`
  }
  return `${image}; entrypoint ${words(entrypoint)}; command ${words(command)}`
}

/** Declared and effective differ. */
export interface Difference {
  readonly control: string
  readonly declared: string
  readonly effective: string
}

export function compare(spec: ContainerSpec, effective: Effective): readonly Difference[] {
  return CONTROLS.flatMap((control) => {
    const [declared, found] = [control.declared(spec), control.effective(effective, spec)]
    return declared === found ? [] : [{ control: control.id, declared, effective: found }]
  })
}

/** Of long lists that what only one of the two has. */
export function narrowed({ control, declared, effective }: Difference): Difference {
  if (Math.max(declared.length, effective.length) <= LONG) return { control, declared, effective }
  const [before, after] = [declared.split(', '), effective.split(', ')]
  const only = (these: readonly string[], others: readonly string[]): string => {
    const own = these.filter((it) => !others.includes(it))
    return own.length === 0 ? 'nothing else' : own.join(', ')
  }
  return { control, declared: only(before, after), effective: only(after, before) }
}
const LONG = 120

export function renderDifference(difference: Difference): string {
  const { control, declared, effective } = narrowed(difference)
  return `${control}: declared ${declared}, is ${effective}`
}
