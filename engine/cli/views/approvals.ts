import type { ApprovalView } from '../../../spec/protocol.ts'
import { clean, type Paint } from '../io.ts'
import { table } from './table.ts'
import { renderValue } from './work.ts'

const MAX_MESSAGE = 60

export function renderApprovals(all: readonly ApprovalView[]): string {
  if (all.length === 0) return 'no approvals'
  return table(
    ['ID', 'AGENT', 'STATUS', 'ASKED', 'MESSAGE'],
    all.map((it) => [it.id, it.agent, it.status, it.created_at, short(it.message)]),
  )
}

export function renderApproval({ id, agent, status, message, data, comment }: ApprovalView, paint: Paint): string {
  const mark = status === 'approved' ? paint('green', '✔') : status === 'rejected' ? paint('red', '✘') : '•'
  const said = comment === null ? '' : `comment: ${clean(comment)}\n`
  return `${mark} ${status} ${clean(id)}  ${clean(agent)}\n${clean(message)}\n${data === null ? '' : renderValue(data, '  ')}${said}`
}

const short = (text: string): string => {
  const [line = ''] = text.split('\n')
  return line.length > MAX_MESSAGE ? `${line.slice(0, MAX_MESSAGE - 1)}…` : line
}
