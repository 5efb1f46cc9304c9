/** The chaos suite in short: about a minute of faults. `npm run test:chaos` is the long form; a seed repeats work and faults. */
import { expect, test } from 'vitest'
import { chaos } from './chaos.ts'
import { seedOf } from './random.ts'
import { reportOf, reportText } from './report.ts'

const seed = seedOf(process.env)

test(`600 tasks under faults: none is lost, none is visible twice (SEED=${seed})`, async () => {
  process.stdout.write(`chaos: SEED=${seed}\n`)
  const result = await chaos({
    seed,
    tasks: 600,
    minutes: 0.75,
    shape: { work: 3, keyed: 1, lead: 2 },
    agent_ms: 1_000,
    core_ms: 7_000,
    controller_ms: 25_000,
    durability: 'strict',
    restartEngine: null,
    log: () => {},
  })
  const report = reportOf(result)
  const text = reportText(report)
  process.stdout.write(text)
  expect(report.tasks).toBeGreaterThan(400)
  expect(result.history.faults.length).toBeGreaterThan(20)
  for (const part of ['gateway', 'Redis'])
    expect(result.history.faults.filter(({ kind, missed }) => kind.startsWith(part) && !missed).length, part).toBeGreaterThan(0)
  for (const { invariant, checked, violations } of report.invariants) {
    expect(violations, `${invariant}\n${text}`).toEqual([])
    expect(checked, invariant).toBeGreaterThan(0)
  }
}, 420_000)
