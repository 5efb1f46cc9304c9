import type { PsContainer, PsView } from '../../progress.ts'
import { table } from './table.ts'

export function renderPs({ project, status, containers }: PsView): string {
  if (containers.length === 0) return `project ${project}: ${status}, no containers`
  const rows = containers.map(it => [it.name, it.kind, state(it), ready(it.ready), it.tasks === null ? '' : String(it.tasks), it.image])
  return `${table(['NAME', 'KIND', 'STATUS', 'READY', 'TASKS', 'IMAGE'], rows)}project ${project}: ${status}`
}

export const namesOf = ({ containers }: PsView): string => containers.map(it => it.name).join('\n')

function state({ status, health, exit_code }: PsContainer): string {
  if (status === 'exited' || status === 'dead') return `${status} (${exit_code ?? '?'})`
  return health === null ? status : `${status} (${health})`
}

const ready = (value: boolean | null): string => (value === null ? '?' : value ? 'yes' : 'no')
