import { CODES, type Code } from '../../../spec/codes.ts'
import { nearest } from '../../../spec/suggest.ts'
import { EXIT } from '../../errors.ts'
import { usage } from '../failure.ts'
import type { Run } from '../verb.ts'
import { table } from '../views/table.ts'

interface ErrorView {
  readonly code: string
  readonly title: string
  readonly fix: string
}

const viewOf = (code: Code): ErrorView => ({ code, ...CODES[code] })

export const errors: Run = async ({ out }, { args: [given] }) => {
  const known = Object.keys(CODES) as Code[]
  if (given === undefined) {
    await out.print({ errors: known.map(viewOf) }, (view) =>
      table(
        ['CODE', 'TITLE'],
        view.errors.map((it) => [it.code, it.title]),
      ),
    )
    return EXIT.done
  }
  const code = known.find((it) => it === given.toUpperCase())
  if (code === undefined) {
    const near = nearest(given.toUpperCase(), known)
    throw usage(`there is no error code "${given}"`, near === null ? '`agentctl errors` lists them all.' : `Did you mean ${near}?`)
  }
  await out.print(viewOf(code), (view) => `${view.code}: ${view.title}\n  help: ${view.fix}`)
  return EXIT.done
}
