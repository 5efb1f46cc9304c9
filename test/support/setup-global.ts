import { leftovers, type Leftover } from './leftovers.ts'

const SETTLE_MS = 10_000

/** Nothing of a test's projects (`t-…`) may outlive the tests: containers, networks and volumes are counted before and after. */
export default async function setup(): Promise<() => Promise<void>> {
  const before = new Set((await leftovers()).map((thing) => thing.id))
  return async () => {
    if (process.env['KEEP_FAILED'] === '1') return
    const fresh = async (): Promise<Leftover[]> => (await leftovers()).filter((thing) => !before.has(thing.id))
    const deadline = Date.now() + SETTLE_MS
    let left = await fresh()
    while (left.length > 0 && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 500))
      left = await fresh()
    }
    if (left.length === 0) return
    process.exitCode = 1
    const lines = left.map((thing) => `  ${thing.kind} ${thing.name} (project ${thing.project})`)
    throw new Error(`the tests left things on the engine:\n${lines.join('\n')}`)
  }
}
