/** Tasks and runs as text. Results are data of agents: shown as YAML-like text, control characters taken out. */
import type { ArtifactView, JobView, Json, RunEvent, RunSummary, RunView, TaskView, WorkError, WorkTimes } from '../../../spec/protocol.ts'
import { clean, type Paint } from '../io.ts'
import { table } from './table.ts'

export function renderTask(view: TaskView, paint: Paint): string {
  const head = `${statusOf(view.status, paint)} ${view.id}  ${view.agent}${attempts(view.attempts)}\n`
  const stored = view.artifacts === undefined || view.artifacts.length === 0 ? '' : `artifacts:\n${renderArtifacts(view.artifacts, '  ')}`
  return head + errorText(view.error) + (view.result === null ? '' : renderValue(view.result)) + stored
}

export function renderRun(view: RunView & { readonly artifacts?: readonly ArtifactView[] }, paint: Paint): string {
  const repeats = view.retry_of === undefined ? '' : `  repeats ${view.retry_of}`
  const head = `${statusOf(view.status, paint)} ${view.run}${view.pipeline === null ? '' : `  ${view.pipeline}`}${repeats}\n`
  const errors = view.jobs.map(jobError).join('')
  const trace = view.trace_id === null ? '' : `trace ${view.trace_id}\n`
  const result = view.result === null ? '' : `result:\n${renderValue(view.result, '  ')}`
  const stored = view.artifacts === undefined || view.artifacts.length === 0 ? '' : `artifacts:\n${renderArtifacts(view.artifacts, '  ')}`
  return head + jobsOf(view.jobs) + errors + trace + result + stored
}

/** Waits and sizes are shown where they are known (a gateway of an earlier version told none). */
function jobsOf(jobs: readonly JobView[]): string {
  if (jobs.length === 0) return ''
  const short = ['  JOB', 'AGENT', 'STATUS', 'ATTEMPTS']
  if (jobs.every((job) => job.times === undefined))
    return table(
      short,
      jobs.map((job) => [`  ${job.id}`, job.agent, job.status, String(job.attempts)]),
    )
  const rows = jobs.map((job) => [`  ${job.id}`, job.agent, job.status, String(job.attempts), ...timesOf(job.times)])
  return table([...short, 'WAITED', 'RAN', 'INPUT', 'RESULT'], rows)
}

/** Until it was last taken, from then to its end, and sizes. */
function timesOf(times: WorkTimes | undefined): readonly string[] {
  if (times === undefined) return ['-', '-', '-', '-']
  const { created_at, started_at, ended_at, input_bytes, result_bytes } = times
  return [
    between(created_at, started_at),
    between(started_at, ended_at),
    sizeText(input_bytes),
    result_bytes === null ? '-' : sizeText(result_bytes),
  ]
}

function between(from: string | null, to: string | null): string {
  if (from === null || to === null) return '-'
  return durationText(Math.max(0, Date.parse(to) - Date.parse(from)))
}

/** `5ms`, `1.2s`, `3m12s`, `2h05m`. */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${ms}ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)}s`
  const seconds = Math.round(ms / 1_000)
  const two = (value: number): string => String(value).padStart(2, '0')
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
  return `${Math.floor(seconds / 3_600)}h${two(Math.floor(seconds / 60) % 60)}m`
}

/** `64 B`, `1.5 KiB`, `3.0 GiB`. */
export function sizeText(bytes: number): string {
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  if (bytes < 1_024) return `${bytes} B`
  let [value, unit] = [bytes / 1_024, 0]
  while (value >= 1_024 && unit < units.length - 1) [value, unit] = [value / 1_024, unit + 1]
  return `${value.toFixed(1)} ${units[unit]}`
}

export function renderArtifacts(artifacts: readonly ArtifactView[], indent = ''): string {
  if (artifacts.length === 0) return ''
  return table(
    [`${indent}NAME`, 'SIZE', 'TYPE', 'TASK', 'DIGEST'],
    artifacts.map((it) => [`${indent}${it.name}`, sizeText(it.size), it.type, shortTask(it.task), it.digest]),
  )
}

export function renderRuns({ runs, next = null }: { readonly runs: readonly RunSummary[]; readonly next?: string | null }): string {
  if (runs.length === 0) return 'no runs'
  const older = next === null ? '' : `older ones: agentctl runs ls --before ${next}\n`
  const rows = table(
    ['RUN', 'PIPELINE', 'STATUS', 'CREATED', 'ENDED'],
    runs.map((it) => [it.run, it.pipeline ?? '-', it.status, it.created_at, it.ended_at ?? '-']),
  )
  return rows + older
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
