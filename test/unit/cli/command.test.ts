import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { VERB_NAMES } from '../../../engine/cli/program.ts'
import { CODES } from '../../../spec/codes.ts'
import { agentctl } from './fake-io.ts'

const folder = (): string => mkdtempSync(join(tmpdir(), 'agentctl-cli-'))
const FILE = 'name: demo\nagents:\n  coder:\n    handler: exec\n'

test('version is one document with the three keys of the contract', async () => {
  const { code, stdout } = await agentctl(['version', '--format', 'json'])
  expect(code).toBe(0)
  expect(Object.keys(JSON.parse(stdout))).toEqual(['version', 'api_version', 'node'])
  expect((await agentctl(['--version'])).stdout).toMatch(/^agentctl \d+\.\d+\.\d+, Engine API 1\.41, Node /)
})

test.each([
  ['an unknown verb', ['upp'], 'unknown command "upp"', 'Did you mean up?'],
  ['an unknown flag', ['ps', '--al'], 'unknown option "--al"', 'Did you mean --all?'],
  ['a missing argument', ['task'], 'missing required argument "agent"', undefined],
  ['a surplus argument', ['down', 'x'], 'too many arguments for "down"', undefined],
  ['a wrong format', ['--format', 'yaml', 'ps'], '--format expects one of text, json, got "yaml"', undefined],
  ['a profile', ['--profile', 'x', 'ps'], '--profile is not built yet', undefined],
  ['a verb of a later version', ['trace', 'run_1', '--all'], '`agentctl trace` is not built yet', undefined],
  [
    'a priority out of range',
    ['-p', 'x', 'task', 'a', '1', '--priority', '10'],
    '--priority expects a whole number from -9 to 9, got "10"',
    undefined,
  ],
  ['a wrong delay', ['-p', 'x', 'run', 'p', '--delay', 'soon'], '--delay expects a duration like 30s, 5m or 1h30m, got "soon"', undefined],
  ['a life of no key', ['-p', 'x', 'run', 'p', '--key-ttl', '5m'], '--key-ttl goes with --key', undefined],
  ['no time at all', ['-p', 'x', 'task', 'a', '1', '--timeout', '0'], '--timeout expects more than 0', undefined],
  ['work flags of a one-off container', ['run', '--agent', 'a', '--priority', '1', '--', 'ls'], '--priority, --delay', undefined],
  [
    'a flag of another word',
    ['-p', 'x', 'runs', 'show', 'run_1', '--status', 'failed'],
    '--status is for runs ls, not for runs show',
    undefined,
  ],
  ['-q where nothing is listed', ['-p', 'x', 'runs', 'wait', 'run_1', '-q'], '-q is for runs ls, not for runs wait', undefined],
  [
    '-q where an artifact is got',
    ['-p', 'x', 'artifacts', 'get', 'run_1', 'a', '-q'],
    '-q is for artifacts ls, not for artifacts get',
    undefined,
  ],
  [
    'an agent of one dead letter',
    ['-p', 'x', 'dlq', 'show', 't', '--agent', 'a'],
    '--agent is for dlq ls and drop, not for dlq show',
    undefined,
  ],
  ['an agent beside ids', ['-p', 'x', 'dlq', 'drop', 't', '--agent', 'a'], 'dlq drop takes --agent with --all, not with ids', undefined],
  ['no dead letters at all', ['-p', 'x', 'dlq', 'ls', '--limit', '0'], '--limit expects at least 1', undefined],
  ['a status that is none', ['-p', 'x', 'runs', 'ls', '--status', 'done'], '--status expects one of queued, running, completed', undefined],
  ['a wrong word after dlq', ['-p', 'x', 'dlq', 'dorp'], 'dlq has no "dorp"', 'Did you mean drop?'],
  ['dlq drop of nothing', ['-p', 'x', 'dlq', 'drop'], 'dlq drop expects ids of dead letters, or --all', undefined],
  [
    'dlq drop of some and all',
    ['-p', 'x', 'dlq', 'drop', 'run_1.a.0', '--all'],
    'dlq drop expects ids of dead letters, or --all',
    undefined,
  ],
  ['an input and an editor', ['-p', 'x', 'dlq', 'retry', 't', '--input', '1', '--edit'], 'give either --input or --edit', undefined],
  [
    'an editor without a terminal',
    ['-p', 'x', 'dlq', 'retry', 't', '--edit'],
    '--edit needs a terminal',
    'Give the input with --input JSON.',
  ],
  ['another input that is not JSON', ['-p', 'x', 'dlq', 'retry', 't', '--input', '{'], '--input is not JSON', undefined],
  ['a word that approvals has not', ['-p', 'x', 'approvals', 'list'], 'approvals has no "list"', undefined],
  [
    'artifacts get without a name',
    ['-p', 'x', 'artifacts', 'get', 'run_1'],
    'artifacts get expects the id of a run and the name',
    undefined,
  ],
  ['a proxy to nowhere', ['-p', 'x', 'proxy'], 'proxy expects either --socket PATH or --port', undefined],
  ['a proxy for everyone', ['-p', 'x', 'proxy', '--port', '0.0.0.0:80'], '--port takes loopback addresses alone, got "0.0.0.0"', undefined],
  ['a proxy on no port', ['-p', 'x', 'proxy', '--port', '99999'], '--port expects PORT or ADDRESS:PORT, got "99999"', undefined],
  ['a token for a socket', ['-p', 'x', 'proxy', '--socket', 's', '--token-file', 't'], '--token-file goes with --port', undefined],
  ['a one-off container without a command', ['run', '--agent', 'coder'], 'run --agent expects a command after --', undefined],
  ['a one-off container with inputs', ['run', '--agent', 'a', '--input', 'k=v', '--', 'ls'], '--input is for pipelines', undefined],
  ['a wrong scale', ['-p', 'x', 'scale', 'coder'], 'expected AGENT=COUNT like "coder=3", got "coder"', undefined],
  ['a wrong project name', ['-p', 'Nope', 'ps'], '-p "Nope" is not a project name', undefined],
  ['input that is not JSON', ['-p', 'x', 'task', 'coder', '{'], 'the input of the task is not JSON', undefined],
  ['a wrong word after runs', ['-p', 'x', 'runs', 'sho', 'y'], 'runs has no "sho"', 'Did you mean show?'],
  ['runs show without a run', ['-p', 'x', 'runs', 'show'], 'runs show expects the id of a run', undefined],
  ['an unknown code', ['errors', 'AG4010X'], 'there is no error code "AG4010X"', undefined],
])('%s is bad usage: AG7001, exit 2, nothing on stdout', async (_name, args, message, hint) => {
  const { code, stdout, stderr } = await agentctl(args)
  expect(code).toBe(2)
  expect(stdout).toBe('')
  expect(stderr).toContain(`✘ error AG7001: ${message}`)
  if (hint !== undefined) expect(stderr).toContain(`help: ${hint}`)
})

test('with --format json an error is the one document on stdout', async () => {
  const before = await agentctl(['--format', 'json', 'upp'])
  expect(JSON.parse(before.stdout)).toEqual({ error: { code: 'AG7001', message: 'unknown command "upp"', hint: 'Did you mean up?' } })
  expect(before.stderr).toBe('')
  const after = await agentctl(['ps', '--format=json', '--bogus'])
  expect(JSON.parse(after.stdout).error.code).toBe('AG7001')
})

test('no arguments: the help, on stderr, exit 2; --help: on stdout, exit 0', async () => {
  const none = await agentctl([])
  expect([none.code, none.stdout]).toEqual([2, ''])
  expect(none.stderr).toContain('Usage: agentctl')
  const help = await agentctl(['--help'])
  expect([help.code, help.stderr]).toEqual([0, ''])
  for (const verb of VERB_NAMES) expect(help.stdout).toMatch(new RegExp(`^  ${verb}\\b`, 'm'))
  expect(help.stdout).not.toMatch(/^ {2}trace/m)
})

test.each(VERB_NAMES.map((verb) => [verb]))('%s --help has a summary and an example', async (verb) => {
  const { code, stdout } = await agentctl([verb, '--help'])
  expect(code).toBe(0)
  expect(stdout).toContain('Examples:\n  $ agentctl ')
})

test('global flags are taken before and after the verb; logs keeps -f for itself', async () => {
  const cwd = folder()
  writeFileSync(join(cwd, 'other.yaml'), FILE)
  for (const args of [
    ['-f', 'other.yaml', 'config', '--format', 'json'],
    ['--format', 'json', 'config', '-f', 'other.yaml'],
    ['config', '--file', 'other.yaml', '--format=json'],
  ]) {
    const { code, stdout } = await agentctl(args, { cwd })
    expect([code, JSON.parse(stdout).name]).toEqual([0, 'demo'])
  }
  expect((await agentctl(['logs', '-f', 'x', '-p', 'y'], { cwd })).stderr).toContain('AG4001')
})

test('the file is found in a parent folder, and named in another', async () => {
  const cwd = folder()
  writeFileSync(join(cwd, 'agents.yaml'), FILE)
  mkdirSync(join(cwd, 'a/b'), { recursive: true })
  expect((await agentctl(['config', '--quiet'], { cwd: join(cwd, 'a/b') })).code).toBe(0)
  const none = await agentctl(['config'], { cwd: folder() })
  expect([none.code, none.stderr]).toEqual([2, expect.stringContaining('AG1009')])
})

test('-p wins over AGENTCTL_PROJECT_NAME, that over the name in the file', async () => {
  const cwd = folder()
  writeFileSync(join(cwd, 'agents.yaml'), FILE)
  const name = async (args: string[], environment = {}): Promise<string> =>
    JSON.parse((await agentctl(['config', '--format', 'json', ...args], { cwd, environment })).stdout).name
  expect(await name([])).toBe('demo')
  expect(await name([], { AGENTCTL_PROJECT_NAME: 'two' })).toBe('two')
  expect(await name(['-p', 'three'], { AGENTCTL_PROJECT_NAME: 'two' })).toBe('three')
})

test('variables come from the shell, then --env-file, else .env', async () => {
  const cwd = folder()
  writeFileSync(join(cwd, 'agents.yaml'), `${FILE}    environment: { A: "\${A:-none}" }\n`)
  writeFileSync(join(cwd, '.env'), '# comment\nexport A="from .env" # more\n')
  writeFileSync(join(cwd, 'other'), "A='from other'\n")
  const a = async (args: string[] = [], environment = {}): Promise<string> =>
    JSON.parse((await agentctl(['config', '--format', 'json', ...args], { cwd, environment })).stdout).agents.coder.environment.A
  expect(await a()).toBe('from .env')
  expect(await a(['--env-file', 'other'])).toBe('from other')
  expect(await a([], { A: 'shell' })).toBe('shell')
  expect((await agentctl(['config', '--env-file', 'nowhere'], { cwd })).code).toBe(2)
})

test('a line of an env file that is none is not shown: it may be a secret', async () => {
  const cwd = folder()
  writeFileSync(join(cwd, 'agents.yaml'), FILE)
  writeFileSync(join(cwd, '.env'), 'A=1\nhunter2\n')
  const { code, stderr } = await agentctl(['config'], { cwd })
  expect(code).toBe(2)
  expect(stderr).toContain('.env:2: expected NAME=value')
  expect(stderr).not.toContain('hunter2')
})

test('problems of the file: every one, with its place; JSON is the same object', async () => {
  const cwd = folder()
  writeFileSync(
    join(cwd, 'agents.yaml'),
    'name: demo\nagents:\n  coder: { handler: exec, replica: 2 }\n  tester: { handler: exec, uses: [nope] }\n',
  )
  const text = await agentctl(['config'], { cwd })
  expect([text.code, text.stdout]).toEqual([2, ''])
  expect(text.stderr).toMatch(/^agents\.yaml:3:27: error AG1004: /m)
  expect(text.stderr).toMatch(/^agents\.yaml:4:\d+: error AG2001: /m)
  const json = await agentctl(['config', '--format', 'json'], { cwd })
  expect(JSON.parse(json.stdout).diagnostics.map((it: { code: string; line: number }) => [it.code, it.line])).toEqual([
    ['AG1004', 3],
    ['AG2001', 4],
  ])
  expect(json.stderr).toBe('')
})

test('no engine: AG4001, exit 1, and what was tried', async () => {
  const { code, stderr } = await agentctl(['-p', 'x', 'ps'])
  expect(code).toBe(1)
  expect(stderr).toMatch(/✘ error AG4001: .*\n {2}help: .*nonexistent/)
})

test('init writes a project that loads, and overwrites nothing', async () => {
  const cwd = folder()
  const made = await agentctl(['init', 'My Agents', '--format', 'json'], { cwd })
  expect(made.code).toBe(0)
  expect(JSON.parse(made.stdout)).toMatchObject({ project: 'my-agents', files: ['agents.yaml', 'handlers/summarise.ts', '.env.example'] })
  const config = await agentctl(['config', '--format', 'json'], { cwd: join(cwd, 'My Agents') })
  expect(config.stderr).toBe('')
  expect(Object.keys(JSON.parse(config.stdout).agents)).toEqual(['shell', 'summariser'])
  const before = readFileSync(join(cwd, 'My Agents/agents.yaml'), 'utf8')
  const again = await agentctl(['init', 'My Agents'], { cwd })
  expect([again.code, again.stderr]).toEqual([2, expect.stringContaining('agents.yaml exists; init overwrites nothing')])
  expect(readFileSync(join(cwd, 'My Agents/agents.yaml'), 'utf8')).toBe(before)
})

test('colour on a terminal alone, and never against NO_COLOR', async () => {
  expect((await agentctl(['upp'], { tty: true, environment: { TERM: 'xterm' } })).stderr).toContain('\u001b[31m✘\u001b[0m')
  expect((await agentctl(['upp'], { tty: true, environment: { NO_COLOR: '1' } })).stderr).not.toContain('\u001b')
  expect((await agentctl(['upp'])).stderr).not.toContain('\u001b')
})

test('AGENTCTL_DEBUG adds the stack', async () => {
  expect((await agentctl(['upp'], { environment: { AGENTCTL_DEBUG: '1' } })).stderr).toMatch(/\n {4}at /)
})

test('errors explains every code', async () => {
  const one = await agentctl(['errors', 'ag4001'])
  expect(one.stdout).toContain(`AG4001: ${CODES.AG4001.title}`)
  const all = await agentctl(['errors', '--format', 'json'])
  expect(JSON.parse(all.stdout).errors).toHaveLength(Object.keys(CODES).length)
})

test('conformance judges a program by the rules that are named, and says what it was not given', async () => {
  const agent = [process.execPath, 'agents/main.ts']
  const kept = await agentctl(['conformance', '--format', 'json', '--rule', 'connects', '--rule', 'cancel', '--', ...agent])
  expect(kept.code).toBe(0)
  expect(JSON.parse(kept.stdout)).toMatchObject({
    ok: true,
    rules: [
      { id: 'connects', status: 'kept' },
      { id: 'cancel', status: 'not_applicable' },
    ],
  })
  const broken = await agentctl(['conformance', '--rule', 'connects', '--', '/bin/true'])
  expect(broken.code).toBe(1)
  expect(broken.stdout).toContain('BROKEN')
  const none = await agentctl(['conformance'])
  expect([none.code, none.stderr]).toEqual([2, expect.stringContaining('conformance expects the command of an agent')])
  const wrong = await agentctl(['conformance', '--input', '{', '--', '/bin/true'])
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('--input is not JSON')])
})
