import { EXIT } from '../../errors.ts'
import { findPackageRoot, readPackage } from '../../images/package-root.ts'
import type { Run } from '../verb.ts'

/** The Engine API that we speak on every engine (Docker 20.10 and later); no engine is asked. */
const API_VERSION = '1.41'

export const version: Run = async ({ out }) => {
  const view = { version: readPackage(findPackageRoot()).version, api_version: API_VERSION, node: process.versions.node }
  await out.print(view, (it) => `agentctl ${it.version}, Engine API ${it.api_version}, Node ${it.node}`)
  return EXIT.done
}
