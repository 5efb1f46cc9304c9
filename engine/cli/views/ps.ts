import type { PsContainer, PsView } from '../../progress.ts'
import { table } from './table.ts'

export function renderPs({ project, status, containers }: PsView): string {
  if (containers.length === 0) return `project ${project}: ${status}, no containers`
  const rows = containers.map((it) => [it.name, it.kind, state(it), ready(it.ready), it.tasks === null ? '' : String(it.tasks), it.image])
  return `${table(['NAME', 'KIND', 'STATUS', 'READY', 'TASKS', 'IMAGE'], rows)}project ${project}: ${status}`
}

export const namesOf = ({ containers }: PsView): string => containers.map((it) => it.name).join('\n')

/** An agent on our image is ready long before the image's slow healthcheck has run for the first time. */
function state({ status, health, exit_code, ready }: PsContainer): string {
  if (status === 'exited' || status === 'dead') return `${status} (${exit_code ?? '?'})`
  if (health === 'starting' && ready === true) return status
  return health === null ? status : `${status} (${health})`
}

const ready = (value: boolean | null): string => (value === null ? '?' : value ? 'yes' : 'no')
