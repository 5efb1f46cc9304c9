import { EXIT } from '../../errors.ts'
import { wordOf } from '../actions.ts'
import { flag, type Run, value } from '../verb.ts'
import { renderApproval, renderApprovals } from '../views/approvals.ts'

export const approvals: Run = async (session, call) => {
  wordOf('approvals', call.args, { ls: { min: 0, max: 0, what: '' } })
  const { control } = await session.control(await session.project())
  const found = await control.approvals(flag(call, 'all') ? 'all' : 'pending')
  await session.out.print({ approvals: found }, (view) =>
    flag(call, 'q') || session.globals.quiet ? view.approvals.map((it) => it.id).join('\n') : renderApprovals(view.approvals),
  )
  return EXIT.done
}

const decide =
  (decision: 'approve' | 'reject'): Run =>
  async (session, call) => {
    const { control } = await session.control(await session.project())
    const comment = value(call, 'comment') ?? undefined
    await session.out.print(await control[decision](call.args[0] ?? '', comment), renderApproval)
    return EXIT.done
  }

export const approve: Run = decide('approve')
export const reject: Run = decide('reject')
