/** Tasks and runs as text. Results are data of agents: shown as YAML-like text, control characters taken out. */
import type { JobView, Json, RunEvent, RunSummary, RunView, TaskView, WorkError } from '../../../spec/protocol.ts'
import { clean, type Paint } from '../io.ts'
import { table } from './table.ts'

export function renderTask(view: TaskView, paint: Paint): string {
  const head = `${statusOf(view.status, paint)} ${view.id}  ${view.agent}${attempts(view.attempts)}\n`
  return head + errorText(view.error) + (view.result === null ? '' : renderValue(view.result))
}

export function renderRun(view: RunView, paint: Paint): string {
  const head = `${statusOf(view.status, paint)} ${view.run}${view.pipeline === null ? '' : `  ${view.pipeline}`}\n`
  const rows = view.jobs.map((job) => [`  ${job.id}`, job.agent, job.status, String(job.attempts)])
  const jobs = rows.length === 0 ? '' : table(['  JOB', 'AGENT', 'STATUS', 'ATTEMPTS'], rows)
  const errors = view.jobs.map(jobError).join('')
  const trace = view.trace_id === null ? '' : `trace ${view.trace_id}\n`
  return head + jobs + errors + trace + (view.result === null ? '' : `result:\n${renderValue(view.result, '  ')}`)
}

export function renderRuns({ runs }: { readonly runs: readonly RunSummary[] }): string {
  if (runs.length === 0) return 'no runs'
  return table(
    ['RUN', 'PIPELINE', 'STATUS', 'CREATED', 'ENDED'],
    runs.map((it) => [it.run, it.pipeline ?? '-', it.status, it.created_at, it.ended_at ?? '-']),
  )
}

export function renderEvent({ at, task, agent, event, message, percent }: RunEvent): string {
  const detail = [percent === undefined ? '' : `${Math.round(percent)}%`, message ?? ''].filter((it) => it !== '').join(' ')
  return clean(`${at} ${agent} ${shortTask(task)} ${event}${detail === '' ? '' : `  ${detail}`}`)
}

/** `run_X.scan.3` → `scan.3`: who reads one run's events knows the run. */
export const shortTask = (task: string): string => task.replace(/^run_[^.]+\./, '')

const jobError = ({ id, error }: JobView): string => (error === null ? '' : `  ${id}: ${errorText(error)}`)
const errorText = (error: WorkError | null): string => (error === null ? '' : `error ${clean(error.code)}: ${clean(error.message)}\n`)
const attempts = (count: number): string => (count > 1 ? `  ${count} attempts` : '')

function statusOf(status: TaskView['status'], paint: Paint): string {
  if (status === 'completed') return `${paint('green', '✔')} completed`
  if (status === 'queued' || status === 'running') return `• ${status}`
  return `${paint('red', '✘')} ${status}`
}

/** `key: value` lines; text of several lines as a block. */
export function renderValue(value: Json, indent = ''): string {
  if (typeof value === 'string') {
    if (!value.includes('\n')) return `${indent}${clean(value)}\n`
    return value
      .replace(/\n$/, '')
      .split('\n')
      .map((line) => `${indent}${clean(line)}\n`)
      .join('')
  }
  if (value === null || typeof value !== 'object') return `${indent}${JSON.stringify(value)}\n`
  if (Array.isArray(value))
    return value.length === 0
      ? `${indent}[]\n`
      : value.map((it: Json) => `${indent}- ${renderValue(it, `${indent}  `).trimStart()}`).join('')
  const entries = Object.entries(value as { readonly [key: string]: Json })
  return entries.length === 0 ? `${indent}{}\n` : entries.map(([key, it]) => `${indent}${clean(key)}:${below(it, indent)}`).join('')
}

function below(value: Json, indent: string): string {
  const isBlock =
    (typeof value === 'string' && value.includes('\n')) || (value !== null && typeof value === 'object' && Object.keys(value).length > 0)
  return isBlock ? `\n${renderValue(value, `${indent}  `)}` : ` ${renderValue(value)}`
}
