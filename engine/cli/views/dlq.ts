import type { AttemptView, DeadLetter, DeadLetterSummary } from '../../../spec/protocol.ts'
import { clean, type Paint } from '../io.ts'
import { table } from './table.ts'
import { renderEvent, renderValue } from './work.ts'

const MAX_ERROR = 60
/** The whole list is in the JSON. */
const MAX_EVENTS = 20

export function renderDeadLetters(tasks: readonly DeadLetterSummary[]): string {
  if (tasks.length === 0) return 'no dead letters'
  return table(
    ['TASK', 'AGENT', 'STATUS', 'ATTEMPTS', 'ENDED', 'ERROR'],
    tasks.map((it) => [
      it.id,
      it.agent,
      it.archived === true ? `${it.status}, archived` : it.status,
      String(it.attempts),
      it.ended_at,
      errorOf(it),
    ]),
  )
}

export function renderDeadLetter(view: DeadLetter, paint: Paint): string {
  const head = `${paint('red', '✘')} ${view.status} ${view.id}  ${view.agent}  ${view.attempts} execution(s), ended ${view.ended_at}${view.archived === true ? ', archived' : ''}\n`
  const error = view.error === null ? '' : `error ${clean(view.error.code)}: ${clean(view.error.message)}\n`
  const trace = view.trace_id === null ? '' : `trace ${view.trace_id}\n`
  const history = view.history.length === 0 ? '' : `executions:\n${view.history.map(attempt).join('')}`
  const events = view.events.slice(-MAX_EVENTS).map((event) => `  ${renderEvent(event)}\n`)
  return `${head}${error}${trace}input:\n${renderValue(view.input, '  ')}${history}${events.length === 0 ? '' : `events:\n${events.join('')}`}`
}

function attempt({ attempt: number, replica, started_at, ended_at, error, log }: AttemptView): string {
  const head = `  ${number}. ${clean(replica)}  ${started_at} to ${ended_at}  ${clean(error.code)}: ${clean(error.message)}\n`
  return head + (log === '' ? '' : renderValue(log, '       '))
}

function errorOf({ error }: DeadLetterSummary): string {
  if (error === null) return '-'
  const [line = ''] = `${error.code}: ${error.message}`.split('\n')
  return line.length > MAX_ERROR ? `${line.slice(0, MAX_ERROR - 1)}…` : line
}
