/** Gateways that were there and are not now: what they had is kept, and nobody serves it. */
import { readdir } from 'node:fs/promises'

/** Numbers above `gateways` that have a folder, in order. */
export async function leftGateways(stateDir: string, gateways: number): Promise<readonly number[]> {
  const names = await readdir(stateDir).catch(() => [])
  return names
    .flatMap((name) => /^shard-(\d)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .filter((number) => number > gateways)
    .sort((a, b) => a - b)
}

export const leftNote = (left: readonly number[]): string =>
  `runs of gateway ${left.join(', ')} are kept and not served: with gateway.replicas at ${left.at(-1)} they are there again`
