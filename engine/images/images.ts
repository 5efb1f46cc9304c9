/** Our images as the verbs want them: named at once, built when a plan is applied. */
import type { ContainerRuntime } from '../ports.ts'
import type { Images } from '../up.ts'
import { readContent } from './content.ts'
import { ensureImages, imageReference } from './ensure.ts'
import { findPackageRoot } from './package-root.ts'

export function packageImages(runtime: ContainerRuntime, packageRoot: string = findPackageRoot()): Images {
  return {
    references: () => {
      const [engine, agent] = readContent(packageRoot).parts
      return Promise.resolve({ engine: imageReference(engine), agent: imageReference(agent) })
    },
    ensure: async (signal, emit, wanted) => {
      await ensureImages(runtime, { packageRoot, signal, emit, ...(wanted === undefined ? {} : { wanted }) })
    },
  }
}
