/**
 * `npm run quickstart`: brings the example up with the command line, as a person would, audits this project's own tree and its
 * node_modules, copies the reports out and takes everything down again, also after a failure or Ctrl-C.
 *
 *   --keep        leave it up        --out DIR     where the reports go (default: audit-report in the project)
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { number, type Report, size } from './handlers/render.ts'
import type { Written } from './handlers/reporter.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const CLI = join(ROOT, 'engine/cli/bin.js')
/** The first `up` of a machine makes the images; every other step takes seconds. */
const UP_TIMEOUT_MS = 15 * 60_000
const STEP_TIMEOUT_MS = 5 * 60_000

const { values: flags } = parseArgs({
  options: { keep: { type: 'boolean', default: false }, out: { type: 'string', default: join(ROOT, 'audit-report') } },
})
const out = resolve(process.env['INIT_CWD'] ?? process.cwd(), flags.out)
const project = `quickstart-${randomBytes(3).toString('hex')}`
const bold =
  process.stdout.isTTY && !process.env['NO_COLOR'] ? (text: string): string => `\x1b[1m${text}\x1b[0m` : (text: string): string => text
const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** Copies a tree, but for names at its top, with modes that everyone can read: a checkout under umask 077 is its owner's alone, and agents run as somebody else. */
function stage(from: string, to: string, skip: ReadonlySet<string>): void {
  mkdirSync(to, { recursive: true })
  chmodSync(to, 0o755)
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (skip.has(entry.name)) continue
    if (entry.isDirectory()) stage(join(from, entry.name), join(to, entry.name), new Set())
    else if (entry.isFile()) {
      copyFileSync(join(from, entry.name), join(to, entry.name))
      chmodSync(join(to, entry.name), 0o644)
    }
  }
}

let interrupted = false
let running: ChildProcess | null = null
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (interrupted) return say('Still taking it down; a moment.')
    interrupted = true
    running?.kill('SIGINT')
  })
}

class StepError extends Error {}

/** Runs one command line of agentctl and shows it; gives what it printed. */
async function agentctl(
  args: readonly string[],
  options: { cwd: string; timeoutMs?: number; capture?: boolean; last?: boolean },
): Promise<string> {
  say(`\n${bold(`$ agentctl ${args.map((arg) => (/^[\w./:=@-]+$/.test(arg) ? arg : `'${arg}'`)).join(' ')}`)}`)
  const begin = performance.now()
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: options.cwd,
    stdio: ['ignore', options.capture ? 'pipe' : 'inherit', 'inherit'],
    timeout: options.timeoutMs ?? STEP_TIMEOUT_MS,
    killSignal: 'SIGINT',
    // The last step must not get the Ctrl-C that is meant for the one before it.
    detached: options.last === true,
  })
  if (options.last !== true) running = child
  let text = ''
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  const code = await new Promise<number | string>((done, fail) =>
    child.on('error', fail).on('close', (status, signal) => done(status ?? signal ?? 'unknown')),
  )
  running = null
  if (interrupted && options.last !== true) throw new StepError('interrupted')
  if (code !== 0)
    throw new StepError(
      `agentctl ${args.find((arg) => /^(?:up|cp|run|down)$/.test(arg)) ?? ''} ended with ${code}${text === '' ? '' : `:\n${text}`}`,
    )
  say(`  ${((performance.now() - begin) / 1000).toFixed(1)} s`)
  return text
}

function writtenOf(text: string): Written {
  const run: { result?: { report?: Written } | null } = JSON.parse(text)
  if (!run.result?.report) throw new StepError(`the run has no report:\n${text}`)
  return run.result.report
}

const top = (entries: readonly (readonly [string, number])[], count: number): string =>
  entries
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, value]) => `${name} ${number(value)}`)
    .join(', ') + (entries.length > count ? `, ${entries.length - count} more` : '')

function summarise(name: string, written: Written): string {
  const { summary }: Report = JSON.parse(readFileSync(join(out, name, 'report.json'), 'utf8'))
  const { secrets, debt } = summary
  const row = (label: string, text: string): string => `  ${label.padEnd(11)}${text}`
  return [
    bold(`${name}`),
    row(
      'files',
      `${number(summary.files)}, ${size(summary.bytes)}, ${number(summary.text_lines)} lines of text${summary.unreadable.count > 0 ? `, ${number(summary.unreadable.count)} unreadable` : ''}`,
    ),
    row(
      'languages',
      top(
        Object.entries(summary.languages)
          .filter(([language]) => language !== 'Binary')
          .map(([language, { lines }]) => [language, lines]),
        5,
      ),
    ),
    row(
      'licences',
      top(
        Object.entries(summary.licences).map(([id, { texts, manifests, headers }]) => [id, texts + manifests + headers]),
        6,
      ) || 'none',
    ),
    row('debt', `${number(debt.todo)} TODO, ${number(debt.fixme)} FIXME in ${number(debt.files)} files`),
    row(
      'secrets',
      secrets.count === 0
        ? 'none that look committed'
        : `${number(secrets.count)} that look committed, first ${secrets.findings[0]?.path}:${secrets.findings[0]?.line} (${secrets.findings[0]?.kind})`,
    ),
    row(
      'largest',
      summary.largest
        .slice(0, 1)
        .map(({ path, bytes }) => `${path} (${size(bytes)})`)
        .join(''),
    ),
    row(
      'complex',
      summary.complex
        .slice(0, 1)
        .map(({ path, branches }) => `${path} (${number(branches)} branches)`)
        .join(''),
    ),
    row(
      'done by',
      Object.entries(written.workers)
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([worker, parts]) => `${worker}: ${parts} parts`)
        .join(', '),
    ),
  ].join('\n')
}

async function audit(cwd: string, folder: string): Promise<Written> {
  const name = basename(folder)
  await agentctl(['-p', project, 'cp', folder, 'intake:/source'], { cwd })
  return writtenOf(
    await agentctl(['-p', project, 'run', 'audit', '--input', `path=${name}`, '--input', `report=${name}`, '--format', 'json'], {
      cwd,
      capture: true,
    }),
  )
}

const NEXT = `Try next:
  less ${join(out, 'project/report.md')}
  cd examples/repo-audit && npx agentctl up -d           the same, step by step: see README.md there
  npx agentctl init my-agents && cd my-agents            a project of your own, with comments`

async function main(folder: string): Promise<void> {
  const cwd = join(folder, 'repo-audit')
  stage(import.meta.dirname, cwd, new Set())
  const own = join(folder, 'project')
  stage(ROOT, own, new Set(['.git', 'node_modules', 'dist', 'coverage', 'audit-report']))
  say(
    `An orchestrator, three analysts and a reporter, each in a container that reaches the gateway and nothing else, as project "${project}".`,
  )
  await agentctl(['-p', project, 'up', '-d'], { cwd, timeoutMs: UP_TIMEOUT_MS })
  const reports = { project: await audit(cwd, own), node_modules: await audit(cwd, join(ROOT, 'node_modules')) }
  mkdirSync(out, { recursive: true })
  for (const [name] of Object.entries(reports)) {
    rmSync(join(out, name), { recursive: true, force: true })
    await agentctl(['-p', project, 'cp', `reporter:/reports/${name}`, out], { cwd })
  }
  for (const [name, written] of Object.entries(reports)) say(`\n${summarise(name, written)}`)
  say(`\nReports: ${join(out, '{project,node_modules}/report.{md,json}')}`)
}

const folder = mkdtempSync(join(tmpdir(), 'agentctl-quickstart-'))
chmodSync(folder, 0o755)
let exit = 0
try {
  await main(folder)
} catch (error) {
  exit = interrupted ? 130 : 1
  process.stderr.write(
    interrupted
      ? '\nInterrupted.\n'
      : `\nquickstart: ${error instanceof StepError ? error.message : error instanceof Error ? error.stack : String(error)}\n`,
  )
}
if (flags.keep && !interrupted)
  say(`\nIt is still up (--keep). Take it down with: npx agentctl -p ${project} down -v\nIts files are in ${folder}.`)
else {
  try {
    await agentctl(['-p', project, 'down', '-v'], { cwd: folder, last: true })
  } catch (error) {
    exit ||= 1
    process.stderr.write(`quickstart: ${error instanceof Error ? error.message : String(error)}\n`)
  }
  rmSync(folder, { recursive: true, force: true })
}
if (exit === 0) say(`\n${NEXT}`)
process.exitCode = exit
