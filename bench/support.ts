/** What the benchmarks share: projects through the real command, medians, one closing line each. */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

export const ROOT: string = resolve(import.meta.dirname, '..')
const BIN = join(ROOT, 'engine/cli/bin.js')

export const median = (numbers: readonly number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

export interface BenchProject extends Disposable {
  readonly name: string
  readonly folder: string
  write(files: { readonly [path: string]: string }): void
  /** Runs `agentctl …`; ms from process start to its end. Throws with its stderr when it fails. */
  agentctl(
    args: readonly string[],
    environment?: { readonly [name: string]: string },
  ): Promise<{ readonly ms: number; readonly stdout: string }>
}

export function benchProject(name: string, files: { readonly [path: string]: string }): BenchProject {
  const folder = mkdtempSync(join(tmpdir(), `agentctl-bench-${name}-`))
  chmodSync(folder, 0o755)
  const write: BenchProject['write'] = (all) => {
    for (const [path, content] of Object.entries(all)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true, mode: 0o755 })
      writeFileSync(join(folder, path), content, { mode: 0o644 })
    }
  }
  write(files)
  const command = (args: readonly string[]): string[] => [
    BIN,
    '-p',
    name,
    '--project-directory',
    folder,
    '-f',
    join(folder, 'agents.yaml'),
    ...args,
  ]
  const self: BenchProject = {
    name,
    folder,
    write,
    agentctl: (args, environment = {}) => run(process.execPath, command(args), environment),
    [Symbol.dispose]() {
      if (!open.delete(self)) return
      down(command)
      rmSync(folder, { recursive: true, force: true })
    },
  }
  open.add(self)
  // What a killed run left behind.
  down(command)
  return self
}

const open = new Set<Disposable>()

/** For an interrupted run, which no `using` cleans up after. */
export function disposeAll(): void {
  for (const one of open) one[Symbol.dispose]()
}

function down(command: (args: readonly string[]) => string[]): void {
  const ended = spawnSync(process.execPath, command(['down', '-v', '--timeout', '1']), { timeout: 120_000, encoding: 'utf8' })
  if (ended.status !== 0) process.stderr.write(`could not clean up: ${ended.stderr}\n`)
}

export function run(
  program: string,
  args: readonly string[],
  environment: { readonly [name: string]: string } = {},
  timeout_ms = 240_000,
): Promise<{ ms: number; stdout: string }> {
  return new Promise((done, fail) => {
    const begin = performance.now()
    const child = spawn(program, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'], timeout: timeout_ms })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString('utf8')))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')))
    child.on('error', fail)
    child.on('close', (code) => {
      const ms = performance.now() - begin
      if (code === 0) done({ ms, stdout })
      else fail(new Error(`${args.slice(1).join(' ')} exited ${code}\n${stderr}`))
    })
  })
}

let met = 0
let missed = 0

/** One line per figure: name, value, target, verdict. `ok` null: a figure without a target. */
export function report(name: string, value: string, target: string, ok: boolean | null): void {
  if (ok === true) met += 1
  if (ok === false) missed += 1
  process.stdout.write(`${ok === null ? ' ' : ok ? '✔' : '✘'} ${name.padEnd(58)} ${value.padStart(9)}   ${target}\n`)
}

/** What a figure stands beside: the peer, the rounds. */
export function remark(text: string): void {
  process.stdout.write(`    ${text}\n`)
}

export function closing(): void {
  process.stdout.write(`${met} targets met, ${missed} missed (docs/benchmarks.md says what is measured and why one is missed)\n`)
}
