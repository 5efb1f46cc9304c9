import { expect, test } from 'vitest'
import { DEFAULT_WORK } from '../../../spec/model.ts'
import { agent } from '../../support/project.ts'
import { world } from './world.ts'

test('six seconds of nothing but computing are not a stall: the thread that beats is another', async () => {
  const stall = { repeats: 2, steps: 2, tokens: 1 }
  await using on = await world([agent('busy', { work: { ...DEFAULT_WORK, stall } })])
  on.start('busy', {
    handler: on.module(`export default async () => {
      const from = Date.now()
      let turns = 0
      while (Date.now() - from < 6_000) turns += 1
      return turns > 0
    }`),
  })
  expect(await on.task('busy', null)).toMatchObject({ status: 'completed', attempts: 1, result: true })
  expect(await on.replicas()).toEqual([{ agent: 'busy', replica: 1, connected: true, tasks: 0 }])
}, 60_000)
