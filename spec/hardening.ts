/** Compose's keys by which a file changes a posture. What would take a control away as a whole is refused here; the rest is a loosening that `plan` and `audit` show. */
import { type Context, pathOf } from './context.ts'
import { found } from './describe.ts'
import type { Hardening, SeccompChoice } from './model.ts'
import type { Span } from './source.ts'
import { didYouMean } from './suggest.ts'
import { child, entriesOf, itemsOf, type MapNode, type Node, textOf } from './tree.ts'
import * as values from './values.ts'
import { absent, flag, integer, readOr } from './workload.ts'

/** capabilities(7), without CAP_. */
const CAPABILITIES: readonly string[] = [
  ...['AUDIT_CONTROL', 'AUDIT_READ', 'AUDIT_WRITE', 'BLOCK_SUSPEND', 'BPF', 'CHECKPOINT_RESTORE', 'CHOWN', 'DAC_OVERRIDE'],
  ...['DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'IPC_LOCK', 'IPC_OWNER', 'KILL', 'LEASE', 'LINUX_IMMUTABLE', 'MAC_ADMIN', 'MAC_OVERRIDE'],
  ...['MKNOD', 'NET_ADMIN', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_RAW', 'PERFMON', 'SETFCAP', 'SETGID', 'SETPCAP', 'SETUID'],
  ...['SYS_ADMIN', 'SYS_BOOT', 'SYS_CHROOT', 'SYS_MODULE', 'SYS_NICE', 'SYS_PACCT', 'SYS_PTRACE', 'SYS_RAWIO', 'SYS_RESOURCE', 'SYS_TIME'],
  ...['SYS_TTY_CONFIG', 'SYSLOG', 'WAKE_ALARM'],
]
/** With one of these a container is the host: no key of the file gives them to an agent. */
const HOST_CAPABILITIES: ReadonlySet<string> = new Set([
  ...['BPF', 'DAC_READ_SEARCH', 'MAC_ADMIN', 'MAC_OVERRIDE', 'PERFMON', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_MODULE', 'SYS_PTRACE'],
  ...['SYS_RAWIO', 'SYS_TIME', 'SYSLOG'],
])

/** Pod Security Standards, baseline: settings of a namespace, without any way to the host. */
const SAFE_SYSCTLS: ReadonlySet<string> = new Set([
  'kernel.shm_rmid_forced',
  ...['ip_local_port_range', 'ip_local_reserved_ports', 'ip_unprivileged_port_start', 'ping_group_range'].map((name) => `net.ipv4.${name}`),
  ...['tcp_fin_timeout', 'tcp_keepalive_intvl', 'tcp_keepalive_probes', 'tcp_keepalive_time', 'tcp_rmem', 'tcp_syncookies', 'tcp_wmem'].map(
    (name) => `net.ipv4.${name}`,
  ),
])
/** Those that the engine takes at all; on a host without a namespace for them they would be the host's. */
const OWN_SYSCTL = /^(net\.[a-z0-9._-]+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+)$/

interface Place {
  readonly what: string
  readonly isAgent: boolean
  readonly at: string
  readonly context: Context
}
type Refuse = (span: Span, message: string, help: string) => void

/** undefined: the file says nothing about it. */
export function hardeningOf(node: MapNode, section: 'agents' | 'services', name: string, context: Context): Hardening | undefined {
  const place: Place = {
    what: `${section === 'agents' ? 'agent' : 'service'} "${name}"`,
    isAgent: section === 'agents',
    at: `${section}.${name}`,
    context,
  }
  const get = (key: string): Node | undefined => (absent(child(node, key)) ? undefined : child(node, key))
  const all: Hardening = {
    ...given('cap_add', capabilities(get('cap_add'), true, place)),
    ...given('cap_drop', capabilities(get('cap_drop'), false, place)),
    ...options(get('security_opt'), place),
    ...given('read_only', onOff(get('read_only'), context)),
    ...given('ulimits', ulimits(get('ulimits'), context)),
    ...given('shm_size', sizeOf(get('shm_size'), context)),
    ...given('init', onOff(get('init'), context)),
    ...given('runtime', get('runtime') === undefined ? undefined : textOf(get('runtime'))),
    ...given('sysctls', sysctls(get('sysctls'), place)),
  }
  return Object.keys(all).length === 0 ? undefined : all
}

const given = <K extends keyof Hardening>(key: K, value: Hardening[K] | undefined): Hardening =>
  value === undefined ? {} : { [key]: value }
const refuser =
  ({ context }: Place): Refuse =>
  (span, message, help) =>
    context.report('AG3001', span, message, { help })

const onOff = (node: Node | undefined, context: Context): boolean | undefined =>
  node === undefined ? undefined : flag(node, false, context)
const sizeOf = (node: Node | undefined, context: Context): number | undefined =>
  node === undefined ? undefined : readOr(values.size(textOf(node)), node, context, 67_108_864)

function capabilities(node: Node | undefined, added: boolean, place: Place): readonly string[] | undefined {
  const names: string[] = []
  for (const item of itemsOf(node)) {
    const name = textOf(item).toUpperCase().replace(/^CAP_/, '')
    if (name === 'ALL' && !added) names.push(name)
    else if (name === 'ALL')
      refuser(place)(item.span, `${place.what} must not have all capabilities`, 'name those that it needs, for example cap_add: [NET_RAW]')
    else if (!CAPABILITIES.includes(name))
      place.context.report('AG1005', item.span, `expected the name of a capability, got ${found(item)}`, {
        help: didYouMean(name, CAPABILITIES) ?? 'capabilities(7) lists them: NET_RAW, NET_BIND_SERVICE, …',
      })
    else if (added && place.isAgent && HOST_CAPABILITIES.has(name))
      refuser(place)(
        item.span,
        `${place.what} must not have the capability ${name}: with it a container reaches the host`,
        'remove it; what needs it belongs outside an agent',
      )
    else names.push(name)
  }
  return names.length === 0 ? undefined : [...new Set(names)].sort()
}

/** Compose takes KEY:VALUE and KEY=VALUE. */
function options(node: Node | undefined, place: Place): Hardening {
  const { what, context } = place
  let all: Hardening = {}
  for (const item of itemsOf(node)) {
    const [, key = '', value = ''] = /^([^:=]+)(?:[:=](.*))?$/s.exec(textOf(item)) ?? []
    const unconfined = `${what} must not be unconfined: ${key} would be off`
    switch (key) {
      case 'no-new-privileges':
        if (!['', 'true', 'false'].includes(value))
          context.report('AG1005', item.span, `expected true or false after "${key}:", got ${found(item)}`)
        all = { ...all, no_new_privileges: value !== 'false' }
        break
      case 'seccomp': {
        if (value === 'unconfined' || value === '')
          refuser(place)(item.span, unconfined, 'write a profile of your own (seccomp=./profile.json) that allows what it needs')
        else {
          context.mark(`${place.at}.security_opt.seccomp`, item.span)
          all = { ...all, seccomp: seccomp(value, item, context) }
        }
        break
      }
      case 'apparmor':
        if (value === 'unconfined' || value === '')
          refuser(place)(item.span, unconfined, 'name a profile that the machine has loaded, or leave it out')
        else {
          context.mark(`${place.at}.security_opt.apparmor`, item.span)
          all = { ...all, apparmor: value }
        }
        break
      case 'systempaths':
        refuser(place)(item.span, `${what} must not see the masked paths of /proc and /sys`, 'remove it')
        break
      case 'label':
      case 'credentialspec':
        context.report('AG1006', item.span, `the security option "${key}" is not supported yet (${what})`, { help: 'remove it' })
        break
      default:
        context.report('AG1005', item.span, `expected seccomp, apparmor or no-new-privileges, got ${found(item)}`, {
          help: didYouMean(key, ['seccomp', 'apparmor', 'no-new-privileges']) ?? 'for example security_opt: ["seccomp=strict"]',
        })
    }
  }
  return all
}

const seccomp = (value: string, item: Node, context: Context): SeccompChoice =>
  value === 'default' || value === 'strict' ? value : { path: pathOf(value, context, item.span) }

/** -1 is the engine's word for no limit. */
function ulimits(node: Node | undefined, context: Context): Hardening['ulimits'] {
  if (node === undefined) return undefined
  const limit = (at: Node | undefined): number => (textOf(at) === '-1' ? -1 : integer(at, 0, 0, Number.MAX_SAFE_INTEGER, context))
  const all = entriesOf(node).map(([name, { value }]) => {
    const [soft, hard] = value.kind === 'map' ? [limit(child(value, 'soft')), limit(child(value, 'hard'))] : [limit(value), limit(value)]
    const isWhole = value.kind !== 'map' || (child(value, 'soft') !== undefined && child(value, 'hard') !== undefined)
    if (isWhole && hard !== -1 && (soft === -1 || soft > hard))
      context.report('AG1005', value.span, `expected a soft limit that is not above the hard one for "${name}"`)
    return [name, { soft, hard }] as const
  })
  return all.length === 0 ? undefined : Object.fromEntries(all.sort(([a], [b]) => (a < b ? -1 : 1)))
}

function sysctls(node: Node | undefined, place: Place): Hardening['sysctls'] {
  if (node === undefined) return undefined
  const pairs =
    node.kind === 'list'
      ? node.items.map((item) => [...pair(textOf(item)), item.span] as const)
      : entriesOf(node).map(([name, entry]) => [name, textOf(entry.value), entry.key] as const)
  const all: [string, string][] = []
  for (const [name, value, span] of pairs) {
    if (!OWN_SYSCTL.test(name))
      refuser(place)(span, `${place.what} must not set "${name}": it is no setting of a container's own namespaces`, 'set it on the host')
    else if (place.isAgent && !SAFE_SYSCTLS.has(name))
      refuser(place)(
        span,
        `${place.what} must not set "${name}": it is none of the settings that Kubernetes calls safe`,
        `those are ${[...SAFE_SYSCTLS].join(', ')}`,
      )
    else all.push([name, value])
  }
  return all.length === 0 ? undefined : Object.fromEntries(all.sort(([a], [b]) => (a < b ? -1 : 1)))
}

function pair(text: string): readonly [string, string] {
  const at = text.indexOf('=')
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}
