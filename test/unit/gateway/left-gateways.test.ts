import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { leftGateways, leftNote } from '../../../engine/gateway/shards/left.ts'

test('gateways that are no more are told from those that are', async () => {
  const folder = mkdtempSync(join(tmpdir(), 't-left-'))
  try {
    for (const name of ['archive', 'artifacts', 'shard-2', 'shard-3', 'shard-x']) mkdirSync(join(folder, name))
    expect(await leftGateways(folder, 1)).toEqual([2, 3])
    expect(await leftGateways(folder, 2)).toEqual([3])
    expect(await leftGateways(folder, 3)).toEqual([])
    expect(await leftGateways(join(folder, 'none'), 1)).toEqual([])
    expect(leftNote([2, 3])).toContain('gateway 2, 3 ')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
