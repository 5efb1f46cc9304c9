/**
 * `npm run test:chaos [-- crash-points]`: the long forms. SEED, TASKS, MINUTES, DURABILITY, RESTARTS=0 (the engine is the machine's) in the environment. Exit code 1: an invariant was violated.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startRedis } from '../support/redis.ts'
import { chaos } from './chaos.ts'
import { allCuts, gatewayProgram, inParallel, sampledCuts } from './crash-points.ts'
import { crashTrial, wrong } from './crash-scenario.ts'
import { secondEngine } from './engine.ts'
import { random, seedOf } from './random.ts'
import { reportOf, reportText } from './report.ts'

const seed = seedOf(process.env)
const out = (line: string): void => void process.stdout.write(`${line}\n`)

/** On an engine of its own, so that the engine can be restarted too; where there can be none (no root, no dockerd), on the one there is. */
async function long(): Promise<boolean> {
  if (process.env['RESTARTS'] === '0') return longOn(null)
  const engine = await secondEngine().catch((error: unknown) => {
    out(`no engine of our own, so the engine is not restarted: ${error instanceof Error ? error.message : String(error)}`)
    return null
  })
  try {
    if (engine !== null) process.env['DOCKER_HOST'] = engine.host
    return await longOn(engine === null ? null : () => engine.restart())
  } finally {
    await engine?.[Symbol.asyncDispose]()
  }
}

async function longOn(restartEngine: (() => Promise<void>) | null): Promise<boolean> {
  const result = await chaos({
    seed,
    tasks: Number(process.env['TASKS'] ?? 10_000),
    minutes: Number(process.env['MINUTES'] ?? 12),
    shape: { work: 5, keyed: 2, lead: 3 },
    agent_ms: 1_000,
    core_ms: 15_000,
    controller_ms: 100_000,
    durability: process.env['DURABILITY'] === 'normal' ? 'normal' : 'strict',
    restartEngine,
    log: out,
  })
  const report = reportOf(result)
  const file = join(mkdtempSync(join(tmpdir(), 'agentctl-chaos-')), 'report.json')
  writeFileSync(file, JSON.stringify(report, null, 1))
  out(`\n${reportText(report)}\n${file}`)
  return report.invariants.every((it) => it.violations.length === 0)
}

/** Every command on both sides, then pairs: the gateway that takes over dies too. */
async function crashPoints(): Promise<boolean> {
  const redis = await startRedis()
  using program = await gatewayProgram()
  try {
    const whole = await crashTrial(redis, 'whole', program.file, [])
    const places = whole.commands.length
    const cuts = [...allCuts(places), ...sampledCuts(random(seed), places, places)]
    let bad = 0
    let reached = 0
    await inParallel(cuts, 2, async (cut, index) => {
      const trial = await crashTrial(redis, `trial-${index}`, program.file, cut)
      if (trial.reached.length > 0) reached += 1
      const found = wrong(trial)
      if (found.length === 0) return
      bad += 1
      out(`✘ ${JSON.stringify(cut)}\n${found.map((it) => `    ${it}`).join('\n')}`)
    })
    out(
      `${bad === 0 ? '✔' : '✘'} crash points (SEED=${seed}): ${cuts.length} trials at ${places} commands, ${reached} kills reached, ${bad} trials violated an invariant`,
    )
    return bad === 0
  } finally {
    await redis.stop()
  }
}

out(`SEED=${seed}`)
const [what = 'long'] = process.argv.slice(2)
if (what !== 'long' && what !== 'crash-points') {
  process.stderr.write(`unknown part "${what}", expected long or crash-points\n`)
  process.exit(2)
}
process.exitCode = (what === 'long' ? await long() : await crashPoints()) ? 0 : 1
