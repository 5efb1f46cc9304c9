/** What a user of Compose tries on the first day: init, doctor, changed files, logs, exec, pipes; every verb as JSON. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentctl, eventually, leftovers, type Result, run, start } from './cli-process.ts'

const name = `t-day-${Math.random().toString(36).slice(2, 8)}`
const folder = mkdtempSync(join(tmpdir(), `${name}-`))
const here = { cwd: folder }
const cli = (...args: readonly string[]): Promise<Result> => agentctl(args, here)
const done = (result: Result): Result => {
  expect(result.code, result.stdout + result.stderr).toBe(0)
  return result
}

beforeAll(async () => {
  // An empty folder, two commands, and it works.
  expect(
    done(await cli('init', '-p', name))
      .stdout.trim()
      .split('\n'),
  ).toEqual(['agents.yaml', 'handlers/summarise.ts', '.env.example'])
  done(await cli('up', '-d'))
}, 300_000)

afterAll(async () => {
  await agentctl(['-p', name, 'down', '-v'], { cwd: tmpdir() })
  expect(await leftovers(name)).toEqual([])
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

test('what init wrote runs: the pipeline of its comment, with the handler', async () => {
  const ran = done(await cli('run', 'hello', '--input', 'text=to be or not to be', '--format', 'json')).json()
  expect(ran).toMatchObject({ status: 'completed', result: { count: { words: 6 }, look: { exit_code: 0 } } })
  const again = await cli('init', '-p', name, '--format', 'json')
  expect([again.code, again.json().error.code]).toEqual([2, 'AG7001'])
})

test('doctor, with an engine and without: every finding says what was expected, every problem what to do', async () => {
  for (const [environment, ok] of [
    [{}, true],
    [{ DOCKER_HOST: 'unix:///nowhere/docker.sock' }, false],
  ] as const) {
    const result = await agentctl(['doctor', '--format', 'json'], { ...here, environment })
    const report = result.json() as { ok: boolean; checks: readonly Record<string, string | null>[] }
    expect([result.code, report.ok]).toEqual([ok ? 0 : 1, ok])
    for (const check of report.checks) {
      expect(Object.keys(check)).toEqual(['id', 'status', 'found', 'expected', 'fix'])
      expect(['ok', 'warn', 'fail']).toContain(check['status'])
      if (check['status'] !== 'ok') expect(check['fix'], String(check['id'])).toEqual(expect.stringMatching(/\w/))
    }
    expect(report.checks.map(({ id }) => id)).toEqual(
      expect.arrayContaining(['engine', 'api', 'cgroups', 'seccomp', 'disk', 'image-agent', 'image-engine', 'node']),
    )
  }
  const text = await agentctl(['doctor'], { ...here, environment: { DOCKER_HOST: 'unix:///nowhere/docker.sock' } })
  expect(text.stdout).toMatch(/✘ engine +No container engine answers/)
})

test('every verb that answers answers with one JSON document', async () => {
  const task = done(await cli('task', 'shell', '{"command": "true"}', '--detach', '--format', 'json')).json() as { id: string }
  const id = task.id.split('.')[0] ?? ''
  const verbs: readonly (readonly string[])[] = [
    ['version'],
    ['config'],
    ['plan'],
    ['up', '-d'],
    ['up', '--dry-run'],
    ['ps'],
    ['ps', '-a'],
    ['exec', 'shell', 'true'],
    ['task', 'shell', '{"command": "true"}'],
    ['run', 'hello', '--detach'],
    ['runs', 'ls'],
    ['runs', 'show', id],
    ['runs', 'wait', id],
    ['runs', 'cancel', id],
    ['scale', 'shell=2'],
    ['stop', 'summariser'],
    ['start', 'summariser'],
    ['restart', 'summariser'],
    ['cp', 'shell:/etc/hostname', folder],
    ['down', '--dry-run'],
    ['doctor'],
    ['errors'],
    ['errors', 'AG4001'],
    // What is wrong is told in the same form.
    ['no-such-verb'],
    ['up', '--no-such-flag'],
    ['task', 'shell', '{'],
    ['exec', 'shell'],
    ['errors', 'AG0000'],
  ]
  for (const verb of verbs) {
    const { stdout, stderr, code } = await cli('--format', 'json', ...verb)
    expect(() => JSON.parse(stdout) as unknown, `${verb.join(' ')} (exit ${code}):\n${stdout}\n${stderr}`).not.toThrow()
  }
  for (const verb of [['logs'], ['runs', 'logs', id]]) {
    const { stdout } = done(await cli(...verb, '--format', 'json'))
    for (const line of stdout.split('\n').filter((it) => it !== '')) expect(() => JSON.parse(line) as unknown, line).not.toThrow()
  }
})

test('exec passes on how the command ended', async () => {
  for (const [command, code] of [
    [['true'], 0],
    [['sh', '-c', 'exit 42'], 42],
    [['/etc/hostname'], 126],
    [['sh', '-c', 'kill -9 $$'], 137],
  ] as const) {
    expect([command.join(' '), (await cli('exec', 'shell', ...command)).code]).toEqual([command.join(' '), code])
  }
  // 126 or 127, as the engine says; and why.
  const missing = await cli('exec', 'shell', 'no-such-command')
  expect([126, 127]).toContain(missing.code)
  expect(missing.stdout + missing.stderr).toContain('no-such-command')
})

test('a changed file: the removed goes, the added comes, the changed is replaced, the rest is left alone', async () => {
  const file = (agents: string): string =>
    `name: ${name}\nagents:\n  shell: { handler: exec, replicas: 2, concurrency: 2, mem_limit: 256m }\n${agents}`
  const before = readFileSync(join(folder, 'agents.yaml'), 'utf8')
  const ids = async (): Promise<ReadonlyMap<string, string>> => {
    const lines = await run('docker', [
      'ps',
      '-a',
      '--no-trunc',
      '--filter',
      `label=agentctl.project=${name}`,
      '--format',
      '{{.Names}} {{.ID}}',
    ])
    return new Map(
      lines
        .trim()
        .split('\n')
        .map((line) => line.split(' ') as [string, string]),
    )
  }
  writeFileSync(
    join(folder, 'agents.yaml'),
    file('  old: { handler: exec, mem_limit: 64m }\n  edited: { handler: exec, mem_limit: 64m }\n'),
  )
  done(await cli('up', '-d', '--remove-orphans'))
  const first = await ids()
  writeFileSync(
    join(folder, 'agents.yaml'),
    file('  edited: { handler: exec, mem_limit: 80m }\n  young: { handler: exec, mem_limit: 64m }\n'),
  )
  const kept = done(await cli('up', '-d'))
  expect(kept.stderr).toMatch(new RegExp(`no longer in the file: ${name}-old-1; .up --remove-orphans. removes`))
  expect([...(await ids()).keys()]).toContain(`${name}-old-1`)
  done(await cli('up', '-d', '--remove-orphans'))
  const second = await ids()
  const changed = [...new Set([...first.keys(), ...second.keys()])].filter((it) => first.get(it) !== second.get(it)).sort()
  expect(changed).toEqual([`${name}-edited-1`, `${name}-old-1`, `${name}-young-1`])
  expect([second.has(`${name}-old-1`), second.has(`${name}-young-1`)]).toEqual([false, true])
  for (const agent of ['shell', 'edited', 'young'])
    expect(done(await cli('task', agent, '{"command": "echo here"}', '--format', 'json')).json().result.stdout).toBe('here\n')
  const gone = await cli('task', 'old', '{"command": "true"}', '--format', 'json')
  expect([gone.code, gone.json().error.code]).toEqual([2, 'AG6002'])
  writeFileSync(join(folder, 'agents.yaml'), before)
  done(await cli('up', '-d', '--remove-orphans'))
  expect((await cli('plan', '--format', 'json')).json().steps).toEqual([])
})

const BIN = resolve(import.meta.dirname, '../../engine/cli/bin.js')
/** A line for the shell, in which "agentctl" is the command. */
async function shell(line: string, environment: { readonly [name: string]: string } = {}): Promise<{ code: number | null; text: string }> {
  const script = `agentctl() { "${process.execPath}" "${BIN}" "$@"; }\n${line}`
  const child = spawn('bash', ['-c', script], {
    cwd: folder,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  })
  let text = ''
  child.stdout.on('data', (chunk) => (text += String(chunk)))
  child.stderr.on('data', (chunk) => (text += String(chunk)))
  return { code: await new Promise((end) => child.on('close', end)), text }
}

test('a reader that has enough is no failure', async () => {
  for (const verb of ['logs agentctl-broker', 'ps', 'config', 'errors', 'runs ls', '--help']) {
    const { code, text } = await shell(`agentctl ${verb} | head -n 1; exit "\${PIPESTATUS[0]}"`)
    expect([verb, code, text.trim().split('\n').length]).toEqual([verb, 0, 1])
  }
})

test('colours: for a terminal, and never against NO_COLOR', async () => {
  const onTerminal = `script -qec '"${process.execPath}" "${BIN}" doctor' /dev/null`
  expect((await shell(onTerminal, { NO_COLOR: '', TERM: 'xterm' })).text).toContain('\u001b[32m')
  expect((await shell(onTerminal, { NO_COLOR: '1', TERM: 'xterm' })).text).not.toContain('\u001b[')
  expect((await shell('agentctl doctor', { NO_COLOR: '', TERM: 'xterm' })).text).not.toContain('\u001b[')
})

test('logs: --tail 0 tells nothing old; -f ends when the project goes', async () => {
  expect(done(await cli('logs', '--tail', '0')).stdout).toBe('')
  const following = start(['logs', '-f', 'shell', 'agentctl-gateway', '--tail', '0', '--format', 'json'], here)
  const bare = start(['logs', '-f'], here)
  await eventually(() => bare.child.exitCode === null && following.child.exitCode === null, 'both follow')
  await new Promise((later) => setTimeout(later, 1_500))
  done(await agentctl(['-p', name, 'down'], { cwd: tmpdir() }))
  const [one, other] = await Promise.all([following.result, bare.result])
  expect([one.code, other.code], one.stderr + other.stderr).toEqual([0, 0])
  for (const line of one.stdout.split('\n').filter((it) => it !== '')) JSON.parse(line)
})
