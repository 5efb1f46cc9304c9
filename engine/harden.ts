/**
 * The posture of every container, in one place. Pure: nothing is read, nothing is decided elsewhere.
 * Values and their sources: docs/security.md; the same posture on an old engine as on a new one, so nothing is left to the engine's defaults.
 */
import type { Hardening, Workload } from '../spec/model.ts'
import type { ContainerSpec } from './ports.ts'
import { STRICT_SECCOMP } from './seccomp.ts'

type Posture = Pick<
  ContainerSpec,
  | 'read_only'
  | 'cap_drop'
  | 'cap_add'
  | 'no_new_privileges'
  | 'seccomp'
  | 'masked_paths'
  | 'readonly_paths'
  | 'sysctls'
  | 'ulimits'
  | 'oom_score_adj'
  | 'init'
  | 'apparmor'
  | 'runtime'
  | 'shm_size'
>

/** Profiles of the file by path: they are read on the machine that has them, and kept in the record. */
export type SeccompProfiles = { readonly [path: string]: string }

/** The newest engine's list: older ones lack powercap (GHSA-jq35-85cj-fj4p), interrupts and thermal_throttle (GHSA-6fw5-f8r9-fgfm). */
const MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
]
/** The engine masks those of its own processors (GHSA-6fw5-f8r9-fgfm); a path that is not there costs nothing. */
const thermal = (cpus: number): readonly string[] =>
  Array.from({ length: cpus }, (_, cpu) => `/sys/devices/system/cpu/cpu${cpu}/thermal_throttle`)
const READONLY_PATHS: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** No core files, and so many open files. */
export const ulimits = (nofile: number): Posture['ulimits'] => [
  { name: 'core', soft: 0, hard: 0 },
  { name: 'nofile', soft: nofile, hard: nofile },
]

const LOCKED_DOWN: Omit<Posture, 'seccomp' | 'oom_score_adj'> = {
  read_only: true,
  cap_drop: ['ALL'],
  cap_add: [],
  no_new_privileges: true,
  masked_paths: MASKED_PATHS,
  readonly_paths: READONLY_PATHS,
  // The engine opens unprivileged ICMP sockets to every group by itself; nobody here pings.
  sysctls: { 'net.ipv4.ping_group_range': '1 0', 'net.ipv6.conf.all.disable_ipv6': '1' },
  ulimits: ulimits(4_096),
  init: true,
}

/** Where the container is made: processors of the engine's machine, profiles of the file. */
export interface Ground {
  readonly seccomp: string
  readonly cpus: number
  readonly profiles: SeccompProfiles
}

/** Agents die before anything that they depend on: +500. */
export const agentPosture = ({ hardening }: Pick<Workload, 'hardening'>, ground: Ground): Posture =>
  changed({ ...lockedDown(ground.cpus), seccomp: ground.seccomp, oom_score_adj: 500 }, hardening, ground)

/** Our own parts; `network` false: no sysctls of a network they do not have. A part on two networks must not route between them. */
export const trustedPosture = (seccomp: string, network: boolean, cpus: number): Posture => ({
  ...lockedDown(cpus),
  seccomp,
  oom_score_adj: 0,
  sysctls: network ? { ...LOCKED_DOWN.sysctls, 'net.ipv4.ip_forward': '0' } : {},
})

/** Services are the user's own images, which often start as root and write to their root file system: what Compose gives, with limits and no new privileges. */
export const servicePosture = ({ hardening }: Pick<Workload, 'hardening'>, ground: Ground): Posture =>
  changed(
    {
      ...lockedDown(ground.cpus),
      read_only: false,
      cap_drop: [],
      no_new_privileges: true,
      seccomp: null,
      sysctls: {},
      ulimits: [{ name: 'core', soft: 0, hard: 0 }],
      oom_score_adj: 100,
    },
    hardening,
    ground,
  )

const lockedDown = (cpus: number): typeof LOCKED_DOWN => ({ ...LOCKED_DOWN, masked_paths: [...MASKED_PATHS, ...thermal(cpus)] })

/** What the file says about it, over what it would be. */
function changed(posture: Posture, hardening: Hardening | undefined, { seccomp, profiles }: Ground): Posture {
  if (hardening === undefined) return posture
  const { cap_add = [], cap_drop = [], apparmor, runtime, shm_size, sysctls = {}, ulimits: limits = {} } = hardening
  return {
    ...posture,
    cap_add,
    cap_drop: posture.cap_drop.includes('ALL') || cap_drop.includes('ALL') ? ['ALL'] : cap_drop,
    read_only: hardening.read_only ?? posture.read_only,
    no_new_privileges: hardening.no_new_privileges ?? posture.no_new_privileges,
    init: hardening.init ?? posture.init,
    seccomp: hardening.seccomp === undefined ? posture.seccomp : profileOf(hardening.seccomp, seccomp, profiles),
    sysctls: { ...posture.sysctls, ...sysctls },
    ulimits: merged(posture.ulimits, limits),
    ...(apparmor === undefined ? {} : { apparmor }),
    ...(runtime === undefined ? {} : { runtime }),
    ...(shm_size === undefined ? {} : { shm_size }),
  }
}

function profileOf(choice: NonNullable<Hardening['seccomp']>, seccomp: string, profiles: SeccompProfiles): string {
  if (choice === 'default') return seccomp
  if (choice === 'strict') return STRICT_SECCOMP
  const profile = profiles[choice.path]
  // The record that names it has it; without it nothing may start with less.
  if (profile === undefined) throw new Error(`the record has no seccomp profile ${choice.path}`)
  return profile
}

function merged(base: Posture['ulimits'], limits: NonNullable<Hardening['ulimits']>): Posture['ulimits'] {
  const all = new Map(base.map((limit) => [limit.name, limit]))
  for (const [name, { soft, hard }] of Object.entries(limits)) all.set(name, { name, soft, hard })
  return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}
