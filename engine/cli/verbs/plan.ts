import { EXIT } from '../../errors.ts'
import { showPlan } from '../apply.ts'
import type { Session } from '../session.ts'
import { type Call, flag, type Run } from '../verb.ts'
import { prepare } from '../prepare-up.ts'

/** As Terraform's -detailed-exitcode, but no code that means something else here. */
const CHANGES = 4

export const plan: Run = async (session: Session, call: Call) => {
  const prepared = await prepare(session, call)
  await showPlan(session, prepared)
  return flag(call, 'exitCode') && prepared.plan.steps.length > 0 ? CHANGES : EXIT.done
}
