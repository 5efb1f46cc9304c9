import { narrowed } from '../../posture/controls.ts'
import type { AuditContainer, AuditReport } from '../../posture/audit.ts'
import type { Paint } from '../io.ts'
import { table } from './table.ts'

const MARK = { ok: '✔', loosened: '!', differs: '✘' } as const
const MAX_VALUE = 72

export function renderAudit({ project, containers, findings, loosenings, notes }: AuditReport, paint: Paint): string {
  const groups = Map.groupBy(containers, (it) => it.agent ?? it.service ?? it.kind)
  const parts = [...groups.values()].map((replicas) => group(replicas, groups.size === 1, paint))
  if (loosenings.length > 0)
    parts.push(
      `Loosened by the file\n${table(
        ['', 'OF', 'KEY', 'VALUE', 'WHAT IT OPENS'],
        loosenings.map((it) => ['!', it.of, it.key, it.value, it.effect]),
      )}`,
    )
  if (notes.length > 0) parts.push(`The machine\n${notes.map((it) => ` ! ${it.message} (CIS ${it.cis.join(', ')})\n`).join('')}`)
  if (findings.length > 0)
    parts.push(
      `${paint('red', 'Not as declared')}\n${table(
        ['', 'SEVERITY', 'CONTAINER', 'CONTROL', 'CIS', 'DECLARED', 'IS', 'SAYS'],
        findings.map((it) => {
          const { declared, effective } = narrowed(it)
          return ['✘', it.severity, it.container, it.control, it.cis.join(' '), declared, effective, `the ${it.seen_by}`]
        }),
      )}`,
    )
  const count = containers.reduce((sum, it) => sum + it.controls.length, 0)
  const loose = containers.reduce((sum, it) => sum + it.controls.filter(({ status }) => status === 'loosened').length, 0)
  parts.push(`${project}: ${count} controls of ${containers.length} containers: ${findings.length} not as declared, ${loose} loosened`)
  return `${parts.join('\n')}\n`
}

/** Replicas of one role are declared alike: one table, with what the worst of them is. Of what is no agent only what is not as it should be, unless it was asked for. */
function group(replicas: readonly AuditContainer[], asked: boolean, paint: Paint): string {
  const [first] = replicas
  if (first === undefined) return ''
  const name = first.agent ?? first.service ?? `agentctl-${first.kind}`
  const probes = replicas.flatMap((it) => (it.probe === null ? [] : [it.probe]))
  const kernel = probes.length === 0 ? '' : `; the kernel says: ${[...new Set(probes)].join(', ')}`
  const rows = first.controls.map((control, index) => {
    const statuses = replicas.map((it) => it.controls[index]?.status ?? 'ok')
    const status = statuses.includes('differs') ? 'differs' : statuses.includes('loosened') ? 'loosened' : 'ok'
    const value = `${short(control.declared)}${control.note === null ? '' : `  (${control.note})`}`
    // The strictest level of those that ask for it.
    return { status, row: [MARK[status], control.title, control.cis.join(' '), control.pss.at(-1) ?? '', value] } as const
  })
  const shown = asked || first.agent !== null ? rows : rows.filter(({ status }) => status !== 'ok')
  const rest = rows.length - shown.length
  const count = replicas.length === 1 ? '' : ` (${replicas.length} replicas)`
  const head = `${paint('bold', `${first.agent === null ? '' : 'agent '}${name}`)}${count}${rest === 0 ? '' : `: ${rest} controls as they should be`}${kernel}`
  return `${head}\n${
    shown.length === 0
      ? ''
      : table(
          ['', 'CONTROL', 'CIS', 'PSS', 'DECLARED'],
          shown.map(({ row }) => row),
        )
  }`
}

const short = (value: string): string => (value.length <= MAX_VALUE ? value : `${value.slice(0, MAX_VALUE - 1)}…`)
