/** The plan of `up`, for `up` itself and `plan`. */
import { packageImages } from '../images/images.ts'
import { findPackageRoot, readPackage } from '../images/package-root.ts'
import { prepareUp } from '../up.ts'
import type { Prepared } from '../verbs.ts'
import { parseScale } from './arguments.ts'
import type { Session } from './session.ts'
import { type Call, flag, values } from './verb.ts'

export async function prepare(session: Session, call: Call, signal: AbortSignal = session.signal): Promise<Prepared> {
  const scale = parseScale(values(call, 'scale'))
  const { project, places } = await session.load()
  const ctx = await session.verbs(signal)
  return await prepareUp(ctx, project, {
    images: packageImages(ctx.runtime),
    version: readPackage(findPackageRoot()).version,
    places,
    scale,
    forceRecreate: flag(call, 'forceRecreate'),
    removeOrphans: flag(call, 'removeOrphans'),
  })
}
