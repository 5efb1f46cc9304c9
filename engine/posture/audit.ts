/** `agentctl audit`: every control of every container, as others number them, declared and effective. Pure. */
import { LABEL } from '../names.ts'
import type { ContainerSpec, EngineInfo } from '../ports.ts'
import type { Loosening } from '../loosening.ts'
import { CONTROLS, type Difference, type Effective } from './controls.ts'

/** `loosened`: as it was declared, and less than the standard asks. `differs`: not as it was declared. */
export type Status = 'ok' | 'loosened' | 'differs'
export interface AuditControl {
  readonly id: string
  readonly title: string
  readonly cis: readonly string[]
  readonly pss: readonly string[]
  readonly status: Status
  readonly declared: string
  /** What the engine says; null: as declared. */
  readonly effective: string | null
  /** Why it is loosened. */
  readonly note: string | null
}
export interface AuditContainer {
  readonly container: string
  readonly kind: string
  readonly agent: string | null
  readonly service: string | null
  readonly replica: number
  /** What the kernel says in its namespaces; agents only. */
  readonly probe: 'ok' | 'differs' | 'not readable' | 'not running' | null
  readonly controls: readonly AuditControl[]
}
export interface Finding {
  readonly severity: 'high' | 'medium'
  readonly container: string
  readonly control: string
  readonly cis: readonly string[]
  readonly pss: readonly string[]
  readonly declared: string
  readonly effective: string
  /** Who says so. */
  readonly seen_by: 'engine' | 'kernel'
}
export interface AuditReport {
  readonly project: string
  /** Nothing differs from what was declared. */
  readonly ok: boolean
  readonly engine: { readonly version: string; readonly api_version: string; readonly cgroup_version: number }
  readonly containers: readonly AuditContainer[]
  readonly findings: readonly Finding[]
  readonly loosenings: readonly Loosening[]
  /** What the machine does not have, whatever the file says. */
  readonly notes: readonly { readonly cis: readonly string[]; readonly message: string }[]
}

export interface Looked {
  readonly spec: ContainerSpec
  readonly effective: Effective
  /** null: it was not probed. A string: why it could not be. */
  readonly probe: readonly Difference[] | 'not running' | 'not readable' | null
}

/** A limit that is off is work for the operator; a control that is gone may be an attack. */
const MEDIUM: ReadonlySet<string> = new Set(['cpus', 'oom', 'init', 'shm', 'restart', 'logs', 'program', 'names'])

/** Why a part of ours needs more than an agent. */
const OURS: { readonly [kind: string]: { readonly [control: string]: string } } = {
  controller: {
    user: "uid 0 without any capability: it opens the engine's socket as its owner",
    mounts: "it alone has the engine's socket, and no network",
  },
  secrets: { user: 'uid 0 without any capability: the files that it holds are its own' },
}

export function auditContainer({ spec, effective, probe }: Looked, loosenings: readonly Loosening[]): AuditContainer {
  const group = spec.labels[LABEL.agent] ?? spec.labels[LABEL.service] ?? ''
  const own = loosenings.filter((it) => it.of === `${spec.kind} ${group}`)
  const controls = CONTROLS.map((control): AuditControl => {
    const { id, title, cis, pss, strict } = control
    const declared = control.declared(spec)
    const found = control.effective(effective, spec)
    const loosening = own.find((it) => it.control === id)
    const isLoose = loosening !== undefined || strict?.(declared, spec) === false
    const status: Status = found !== declared ? 'differs' : isLoose ? 'loosened' : 'ok'
    const because =
      loosening === undefined
        ? (OURS[spec.kind]?.[id] ?? (spec.kind === 'service' ? 'what Compose gives a service' : null))
        : loosening.effect
    return {
      id,
      title,
      cis,
      pss,
      status,
      declared,
      effective: found === declared ? null : found,
      note: status === 'loosened' ? because : null,
    }
  })
  return {
    container: spec.name,
    kind: spec.kind,
    agent: spec.labels[LABEL.agent] ?? null,
    service: spec.labels[LABEL.service] ?? null,
    replica: Number(spec.labels[LABEL.replica]),
    probe: probe === null || typeof probe === 'string' ? probe : probe.length === 0 ? 'ok' : 'differs',
    controls,
  }
}

export function auditReport(project: string, info: EngineInfo, all: readonly Looked[], loosenings: readonly Loosening[]): AuditReport {
  const containers = all.map((looked) => auditContainer(looked, loosenings))
  const findings = containers.flatMap((container, index) => [
    ...container.controls.flatMap((it): readonly Finding[] =>
      it.effective === null ? [] : [finding(container.container, it.id, it.declared, it.effective, 'engine')],
    ),
    ...probeFindings(container.container, all[index]?.probe ?? null),
  ])
  return {
    project,
    ok: findings.length === 0,
    engine: { version: info.version, api_version: info.api_version, cgroup_version: info.cgroup_version },
    containers,
    findings,
    loosenings,
    notes: notesOf(info),
  }
}

function probeFindings(container: string, probe: Looked['probe']): readonly Finding[] {
  if (probe === null || probe === 'not running') return []
  if (probe === 'not readable') return [finding(container, 'probe', 'readable in its namespaces', 'not readable', 'kernel')]
  return probe.map(({ control, declared, effective }) => finding(container, control, declared, effective, 'kernel'))
}

function finding(container: string, id: string, declared: string, effective: string, seen_by: Finding['seen_by']): Finding {
  const control = CONTROLS.find((it) => it.id === id)
  return {
    severity: MEDIUM.has(id) ? 'medium' : 'high',
    container,
    control: id,
    cis: control?.cis ?? [],
    pss: control?.pss ?? [],
    declared,
    effective,
    seen_by,
  }
}

function notesOf({ security_options }: EngineInfo): AuditReport['notes'] {
  const has = (name: string): boolean => security_options.some((option) => option.startsWith(`name=${name}`))
  return [
    ...(has('apparmor') || has('selinux')
      ? []
      : [
          {
            cis: ['5.2', '5.3'],
            message: 'the kernel of the engine has neither AppArmor nor SELinux: seccomp and capabilities stand alone',
          },
        ]),
    ...(has('userns') || has('rootless')
      ? []
      : [{ cis: ['2.9'], message: "the engine maps no user namespace: uid 0 of a container is the host's uid 0" }]),
  ]
}
