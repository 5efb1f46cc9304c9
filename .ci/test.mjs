// `npm test`: the checks, then every test; the last line of stdout is "N passed, N failed, N skipped".
// Arguments go to vitest (a file, -t NAME, --project unit) and leave the checks out.
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const BUDGET_MIN = 15
const HARD_STOP_MIN = 45 // a slow machine may go over the budget, a hung test may not keep CI for ever
const root = fileURLToPath(new URL('..', import.meta.url))
const args = process.argv.slice(2)
const started = performance.now()
const minutes = () => (performance.now() - started) / 60_000

function run(name, argv, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, argv, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, ...(process.stdout.isTTY ? {} : { NO_COLOR: '1' }), ...env },
    })
    const forward = (signal) => child.kill(signal)
    process.on('SIGINT', forward)
    process.on('SIGTERM', forward)
    const stop = setTimeout(() => {
      process.stderr.write(`${name} still runs after ${HARD_STOP_MIN} minutes: stopping it\n`)
      child.kill('SIGTERM')
      setTimeout(() => child.kill('SIGKILL'), 20_000).unref()
    }, HARD_STOP_MIN * 60_000)
    child.on('close', (code) => {
      clearTimeout(stop)
      process.off('SIGINT', forward)
      process.off('SIGTERM', forward)
      resolve(code ?? 1)
    })
  })
}

function readSummary(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return { passed: 0, failed: 0, skipped: 0, reasons: [] }
  }
}

// All temporary folders of the tests are in this one, and go with it. A short name: sockets lie there. Agents, whose uid is another one, look in.
const scratch = mkdtempSync(join(tmpdir(), 'actl-'))
chmodSync(scratch, 0o755)
try {
  const checks = args.length === 0 ? await run('the checks', ['.ci/check.mjs']) : 0
  const summary = join(scratch, 'summary.json')
  const reporters = ['--reporter=default', '--reporter=./test/support/summary-reporter.ts']
  const tests = await run('vitest', ['node_modules/vitest/vitest.mjs', 'run', ...reporters, ...args], {
    AGENTCTL_TEST_SUMMARY: summary,
    TMPDIR: scratch,
  })

  const count = readSummary(summary)
  for (const reason of count.reasons) process.stdout.write(`skipped: ${reason}\n`)
  // Failed checks, or a run that ends badly although no test failed (things left on the engine, no summary), count as one failure each.
  const failed = count.failed + (checks === 0 ? 0 : 1) + (tests !== 0 && count.failed === 0 ? 1 : 0)
  if (tests !== 0 && count.failed === 0) process.stdout.write('failed: the test run itself (see above)\n')
  if (checks !== 0) process.stdout.write('failed: the checks (see above)\n')
  const took = minutes()
  process.stdout.write(`took ${took.toFixed(1)} min${took > BUDGET_MIN ? `: over the budget of ${BUDGET_MIN} min` : ''}\n`)
  process.stdout.write(`${count.passed} passed, ${failed} failed, ${count.skipped} skipped\n`)
  process.exitCode = failed === 0 ? 0 : 1
} finally {
  try {
    rmSync(scratch, { recursive: true, force: true })
  } catch (error) {
    process.stderr.write(`${scratch} is left behind: ${error.message}\n`)
  }
}
