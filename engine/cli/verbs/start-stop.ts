import { EXIT } from '../../errors.ts'
import { prepareStart, prepareStop, restoreController, type VerbContext } from '../../verbs.ts'
import { apply } from '../apply.ts'
import type { Session } from '../session.ts'
import type { Call, Run } from '../verb.ts'

type Prepare = typeof prepareStart

async function change(session: Session, { args }: Call, steps: readonly Prepare[]): Promise<number> {
  const project = await session.project()
  const ctx: VerbContext = await session.verbs()
  session.afterInterrupt = '`agentctl ps` shows what was done.'
  await restoreController(ctx, project)
  let code: number = EXIT.done
  for (const step of steps) {
    const applied = await apply(session, await step(ctx, project, args))
    code = applied.code
    if (step === steps.at(-1) || code !== EXIT.done) {
      await session.out.print(applied.view, () => '')
      break
    }
  }
  return code
}

export const start: Run = (session, call) => change(session, call, [prepareStart])
export const stop: Run = (session, call) => change(session, call, [prepareStop])
export const restart: Run = (session, call) => change(session, call, [prepareStop, prepareStart])
