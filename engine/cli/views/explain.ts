import type { Explanation } from '../../../spec/protocol.ts'
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
