/**
 * "No kill between two instructions can split it": the gateway is killed at commands that it sends to Redis, before Redis has them and
 * after Redis has executed them. Here a sample by a printed seed; `npm run test:chaos -- crash-points` tries every one.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { gatewayProgram, inParallel, type Program, sampledCuts } from '../../chaos/crash-points.ts'
import { crashTrial, wrong } from '../../chaos/crash-scenario.ts'
import { random, seedOf } from '../../chaos/random.ts'
import { startRedis, type TestRedis } from '../../support/redis.ts'

const SAMPLES = 20
const WIDTH = 2
const seed = seedOf(process.env)

let redis: TestRedis
let program: Program
beforeAll(async () => {
  redis = await startRedis()
  program = await gatewayProgram()
})
afterAll(async () => {
  program[Symbol.dispose]()
  await redis.stop()
})

test(`a gateway killed at any command to Redis splits nothing (SEED=${seed})`, async () => {
  const whole = await crashTrial(redis, 'whole', program.file, [])
  expect(wrong(whole), 'without a kill').toEqual([])
  expect(whole.commands.length).toBeGreaterThan(50)
  process.stdout.write(`crash points: SEED=${seed}, ${SAMPLES} of 2 × ${whole.commands.length} places\n`)
  const cuts = sampledCuts(random(seed), whole.commands.length, SAMPLES)
  const trials = await inParallel(cuts, WIDTH, (cut, index) => crashTrial(redis, `trial-${index}`, program.file, cut))
  expect(trials.filter((it) => it.reached.length > 0).length).toBeGreaterThan(SAMPLES / 2)
  for (const trial of trials) expect(wrong(trial), JSON.stringify(trial.cuts)).toEqual([])
}, 180_000)
