/**
 * The posture of every container, in one place. Pure: nothing is read, nothing is decided elsewhere.
 * Values and their sources: docs/security.md; the same posture on an old engine as on a new one, so nothing is left to the engine's defaults.
 */
import type { ContainerSpec } from './ports.ts'

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
>

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

/** Agents die before anything that they depend on: +500. */
export const agentPosture = (seccomp: string): Posture => ({ ...LOCKED_DOWN, seccomp, oom_score_adj: 500 })

/** Our own parts; `network` false: no sysctls of a network they do not have. `forwards` never: a part on two networks must not route between them. */
export const trustedPosture = (seccomp: string, network: boolean): Posture => ({
  ...LOCKED_DOWN,
  seccomp,
  oom_score_adj: 0,
  sysctls: network ? { ...LOCKED_DOWN.sysctls, 'net.ipv4.ip_forward': '0' } : {},
})

/** Services are the user's own images, which often start as root and write to their root file system: what Compose gives, with limits and no new privileges. */
export const servicePosture = (): Posture => ({
  ...LOCKED_DOWN,
  read_only: false,
  cap_drop: [],
  no_new_privileges: true,
  seccomp: null,
  masked_paths: MASKED_PATHS,
  sysctls: {},
  ulimits: [{ name: 'core', soft: 0, hard: 0 }],
  oom_score_adj: 100,
})
