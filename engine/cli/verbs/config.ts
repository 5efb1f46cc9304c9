import { configView } from '../../../spec/config.ts'
import { EXIT } from '../../errors.ts'
import type { Run } from '../verb.ts'

export const config: Run = async ({ globals, load, out }) => {
  const { project } = await load()
  if (globals.quiet) return EXIT.done
  const { stringify } = await import('yaml')
  await out.print(configView(project), (view) => stringify(view, { lineWidth: 0 }))
  return EXIT.done
}
