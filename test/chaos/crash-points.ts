/** Which places are tried: all of them, or a sample that the seed decides, spread over the whole way. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bundlePrograms } from '../../engine/images/bundle.ts'
import { findPackageRoot } from '../../engine/images/package-root.ts'
import type { Random } from './random.ts'
import type { Cut } from './redis-proxy.ts'

export interface Program extends Disposable {
  readonly file: string
}
/** The gateway as one file: a trial starts two or three of them. */
export async function gatewayProgram(): Promise<Program> {
  const folder = mkdtempSync(join(tmpdir(), 't-gateway-program-'))
  await bundlePrograms([{ entry: 'engine/gateway/main.ts', file: 'gateway.mjs' }], folder, findPackageRoot())
  return { file: join(folder, 'gateway.mjs'), [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

const SIDES = ['before', 'after'] as const

export const allCuts = (commands: number): readonly (readonly Cut[])[] =>
  Array.from({ length: commands }, (_, index) => SIDES.map((side) => [{ command: index + 1, side }])).flat()

/** One cut in each of `count` equal parts of the way; every second trial also kills the gateway that takes over. */
export function sampledCuts(random: Random, commands: number, count: number): readonly (readonly Cut[])[] {
  return Array.from({ length: count }, (_, index) => {
    const from = Math.floor((index * commands) / count) + 1
    const first: Cut = {
      command: random.whole(from, Math.max(from, Math.floor(((index + 1) * commands) / count))),
      side: random.pick(SIDES),
    }
    return index % 2 === 0 ? [first] : [first, { command: random.whole(1, Math.ceil(commands / 2)), side: random.pick(SIDES) }]
  })
}

/** `width` at once; in order of `items`. */
export async function inParallel<T, R>(items: readonly T[], width: number, work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const lane = async (): Promise<void> => {
    for (let at = next++; at < items.length; at = next++) results[at] = await work(items[at] as T, at)
  }
  await Promise.all(Array.from({ length: width }, lane))
  return results
}
