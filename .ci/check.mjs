// Types, lint, dead code, format and the generated lint rules, side by side; all that fail are shown, not only the first.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const bin = (name) => `${root}node_modules/.bin/${name}`
const steps = [
  ['types', bin('tsc'), ['-p', '.']],
  ['import rules', process.execPath, ['.ci/lint-config.mjs', '--check']],
  ['lockfile', process.execPath, ['.ci/complete-lockfile.mjs', '--check']],
  ['lint', bin('oxlint'), ['--type-aware', '--deny-warnings']],
  ['dead code', bin('knip'), ['--no-progress']],
  ['format', bin('biome'), ['format', '--reporter=summary']],
]

function run([name, command, args]) {
  const started = performance.now()
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', (error) => resolve({ name, ok: false, output: `${output}${error.message}\n`, ms: 0 }))
    child.on('close', (code) => resolve({ name, ok: code === 0, output, ms: performance.now() - started }))
  })
}

const results = await Promise.all(steps.map(run))
for (const { name, ok, output, ms } of results) {
  if (!ok) process.stdout.write(output)
  process.stdout.write(`${ok ? 'ok    ' : 'FAILED'} ${name} (${(ms / 1000).toFixed(1)} s)\n`)
}
process.exitCode = results.every((result) => result.ok) ? 0 : 1
