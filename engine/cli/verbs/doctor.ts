import { dirname } from 'node:path'
import { diagnose } from '../../doctor.ts'
import { gatherFacts } from '../../doctor-facts.ts'
import { EXIT } from '../../errors.ts'
import { readContent } from '../../images/content.ts'
import { PUBLISHED } from '../../images/debian.ts'
import { imageReference } from '../../images/ensure.ts'
import { findPackageRoot } from '../../images/package-root.ts'
import { findFile } from '../project.ts'
import type { Session } from '../session.ts'
import type { Run } from '../verb.ts'
import { renderDoctor } from '../views/doctor.ts'

export const doctor: Run = async (session) => {
  const { io, signal } = session
  const [engine, agent] = readContent(findPackageRoot()).parts.map(imageReference) as [string, string]
  const references = { engine, agent, base: PUBLISHED }
  const facts = await gatherFacts({ connect: session.runtime, references, environment: io.environment, folder: folderOf(session), signal })
  const report = diagnose(facts)
  await session.out.print(report, renderDoctor)
  return report.ok ? EXIT.done : EXIT.failed
}

/** Of the project, if there is one. */
function folderOf({ io, globals }: Session): string {
  try {
    return dirname(findFile(io, globals))
  } catch {
    return io.cwd
  }
}
