import { type Explanation, type RunExplanation, TERMINAL } from '../../../spec/protocol.ts'
import { clean } from '../io.ts'

/** Most immediate reason first, one line each. */
export function renderExplanations(all: readonly Explanation[]): string {
  return all
    .map(({ id, agent, status, reasons }) => {
      const lines = reasons.map(({ code, message }) => `  ${code}: ${clean(message)}\n`)
      return `${clean(id)}  ${clean(agent)}  ${status}\n${lines.join('') || '  nothing holds it back\n'}`
    })
    .join('')
}

export function renderRunExplanation({ run, status, tasks, next }: RunExplanation): string {
  if (TERMINAL.has(status)) return `${run} waits for nothing: it has ended`
  if (tasks.length === 0) return `${run}  ${status}\n  nothing of it waits at this moment\n`
  return `${renderExplanations(tasks)}${next === null ? '' : '… and more of it has not ended\n'}`
}
