import { showHost } from '../../../spec/hosts.ts'
import type { UrlVerdict } from '../../egress/check-url.ts'
import type { AuditLine } from '../audit-lines.ts'
import { clean, type Paint } from '../io.ts'

type Check = UrlVerdict & { readonly agent: string; readonly url: string }

export function renderCheck({ agent, verdict, host, port, scheme, message }: Check, paint: Paint): string {
  const sign = verdict === 'allow' ? paint('green', '✔') : paint('red', '✘')
  return `${sign} ${clean(agent)} → ${scheme}://${showHost(host)}:${port}\n  ${clean(message)}\n`
}

/** One line per decision; what an agent asked for is an agent's text. */
export function renderAuditLine(line: AuditLine, paint: Paint): string {
  const { at, agent, replica, host, port, scheme, method, verdict, reason, rule, suppressed } = line
  const who = replica === 0 ? `${agent} (one-off)` : `${agent}-${replica}`
  const what = host === null ? '-' : `${scheme}://${showHost(host)}:${port}`
  const sign = verdict === 'allow' ? paint('green', 'allow') : paint('red', 'deny ')
  const how = [method ?? '', what].filter((it) => it !== '').join(' ')
  const why = [verdict === 'allow' ? '' : reason, rule ?? '', suppressed === undefined ? '' : `(${suppressed} before it not shown)`]
  return `${at}  ${clean(who)}  ${sign}  ${clean(how)}  ${clean(why.filter((it) => it !== '').join('  '))}`.trimEnd() + '\n'
}
