/** What of a thing that may be at any of several gateways is at this one. */
import type { Broker } from '../../broker/port.ts'
import type { Approvals } from '../approvals.ts'
import type { Archive } from '../archive.ts'
import type { Artifacts } from '../artifacts.ts'
import { dedupHash, dedupRun } from '../dedup.ts'
import type { Runs } from '../runs.ts'

export const KINDS = ['run', 'key', 'approval', 'artifact'] as const
export type Kind = (typeof KINDS)[number]

export interface FindOptions {
  readonly broker: Broker
  readonly runs: Pick<Runs, 'isOpen'>
  readonly archive: Archive | null
  readonly approvals: Pick<Approvals, 'get'>
  readonly artifacts: Pick<Artifacts, 'open'>
  readonly whenReady: () => Promise<void>
}

/** null: it is not here. Else the run that has the key, when the run was made, or the name itself. */
export type Find = (kind: Kind, name: string) => Promise<string | null>

export function finder({ broker, runs, archive, approvals, artifacts, whenReady }: FindOptions): Find {
  const created = async (run: string): Promise<string | null> => {
    const [[at] = []] = await broker.readRunFields([run], ['created'])
    const ms = typeof at === 'string' ? Number(at) : archive?.entry(run)?.created
    return ms === undefined ? null : new Date(ms).toISOString()
  }
  const artifact = async (digest: string): Promise<string | null> => {
    const opened = await artifacts.open(digest)
    await opened?.file.close()
    return opened === null ? null : digest
  }
  return async (kind, name) => {
    await whenReady()
    switch (kind) {
      case 'run':
        return await created(name)
      case 'key':
        return await dedupRun(broker, dedupHash(name), (run) => runs.isOpen(run))
      case 'approval':
        return approvals.get(name) === null ? null : name
      case 'artifact':
        return await artifact(name)
    }
  }
}
