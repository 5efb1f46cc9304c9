/** The real command as a child process, without a terminal, as scripts and CI run it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const BIN = resolve(import.meta.dirname, '../../engine/cli/bin.js')

export interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  /** stdout as JSON; its shape is what the tests are about. */
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly json: () => any
}

export interface Running {
  readonly child: ChildProcess
  readonly result: Promise<Result>
  readonly stdout: () => string
  readonly stderr: () => string
  /** Until the text shows on either stream. */
  readonly shows: (text: string | RegExp, ms?: number) => Promise<void>
  readonly signal: (signal: NodeJS.Signals) => void
}

export interface Options {
  readonly cwd?: string
  readonly environment?: { readonly [name: string]: string }
  readonly stdin?: string
  readonly timeout_ms?: number
  /** A command that starts the CLI as somebody else: `setpriv …`. */
  readonly wrap?: readonly string[]
}

/** Longest for one command on a busy machine that also builds the images. */
const COMMAND_MS = 170_000

export function start(args: readonly string[], { cwd, environment, stdin, timeout_ms = COMMAND_MS, wrap = [] }: Options = {}): Running {
  const [command, ...rest] = [...wrap, process.execPath, BIN, ...args] as [string, ...string[]]
  const child = spawn(command, rest, {
    cwd,
    env: { ...process.env, NO_COLOR: '', ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin ?? '')
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk) => (stdout += String(chunk)))
  child.stderr.on('data', (chunk) => (stderr += String(chunk)))
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout_ms)
  const result = new Promise<Result>((done) => {
    child.on('close', (code) => {
      clearTimeout(timer)
      done({ code, stdout, stderr, json: () => JSON.parse(stdout) })
    })
  })
  const shows = async (text: string | RegExp, ms = 60_000): Promise<void> => {
    const found = (): boolean => (typeof text === 'string' ? `${stdout}${stderr}`.includes(text) : text.test(`${stdout}${stderr}`))
    for (const end = Date.now() + ms; !found(); await sleep(20)) {
      if (Date.now() > end || child.exitCode !== null)
        throw new Error(`agentctl ${args.join(' ')} never showed ${String(text)}; exit ${child.exitCode}\n${stdout}\n${stderr}`)
    }
  }
  return { child, result, stdout: () => stdout, stderr: () => stderr, shows, signal: (signal) => void child.kill(signal) }
}

export const agentctl = (args: readonly string[], options: Options = {}): Promise<Result> => start(args, options).result

/** A project folder; the name is new, so that runs beside each other and leftovers do not meet. */
export function projectFolder(
  prefix: string,
  files: (name: string) => { readonly [path: string]: string },
): { readonly name: string; readonly folder: string } {
  const name = `${prefix}-${Math.random().toString(36).slice(2, 8)}`
  const folder = mkdtempSync(join(tmpdir(), `${prefix}-`))
  // An agent, whose uid is another one, reads its handler there.
  chmodSync(folder, 0o755)
  for (const [path, content] of Object.entries(files(name))) writeFileSync(join(folder, path), content)
  return { name, folder }
}

/** Engine objects of the project: containers, networks and volumes, by label. */
export async function leftovers(project: string): Promise<readonly string[]> {
  const lists = [
    ['ps', '-aq'],
    ['network', 'ls', '-q'],
    ['volume', 'ls', '-q'],
  ]
  const found = await Promise.all(lists.map((args) => run('docker', [...args, '--filter', `label=agentctl.project=${project}`])))
  return found
    .join('\n')
    .split('\n')
    .filter((line) => line !== '')
}

export async function run(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 })
  let [text, problem] = ['', '']
  child.stdout.on('data', (chunk) => (text += String(chunk)))
  child.stderr.on('data', (chunk) => (problem += String(chunk)))
  const code = await new Promise((done) => child.on('close', done))
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: ${problem}`)
  return text
}

export async function eventually(check: () => boolean | Promise<boolean>, what: string, ms = 20_000): Promise<void> {
  for (const end = Date.now() + ms; !(await check()); await sleep(100)) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
  }
}
