/** One small project, used through the real command in every way that the verbs offer. */
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentctl, eventually, leftovers, projectFolder, type Result, run, start } from './cli-process.ts'

const { name, folder } = projectFolder('cli', (project) => ({
  'agents.yaml': `name: ${project}
agents:
  shell: { handler: exec, replicas: 2, mem_limit: 64m, volumes: [out:/out] }
  counter: { handler: { module: ./count.ts }, mem_limit: 128m, environment: { GREETING: "\${GREETING:-hi}" } }
volumes: { out: {} }
pipelines:
  count:
    inputs: { text: { type: string, required: true }, times: { type: number, default: 1 } }
    jobs:
      count: { agent: counter, with: { text: "\${{ inputs.text }}", times: "\${{ inputs.times }}" } }
      say: { agent: shell, needs: [count], with: { command: [cat], stdin: "\${{ needs.count.result.text }}" } }
`,
  'count.ts': `import type { Context } from '@agentctl/cli/agent'
export default async (input: { text: string; times: number }, ctx: Context) => {
  ctx.progress('counting')
  console.log('counted for', process.env.GREETING)
  return { words: input.text.split(' ').length * input.times, text: input.text }
}
`,
}))
const here = { cwd: folder }
const cli = (...args: readonly string[]): Promise<Result> => agentctl(args, here)
/** From anywhere, by name alone. */
const named = (...args: readonly string[]): Promise<Result> => agentctl(['-p', name, ...args], { cwd: tmpdir() })
const done = (result: Result): Result => {
  if (result.code !== 0) throw new Error(`exit ${result.code}\n${result.stdout}\n${result.stderr}`)
  return result
}

beforeAll(async () => {
  const up = done(await cli('up', '-d', '--progress', 'plain'))
  expect(up.stdout).toBe('')
  expect(up.stderr).toMatch(new RegExp(`^ ✔ container ${name}-shell-2 {2}started {2}\\d+\\.\\ds$`, 'm'))
  expect(up.stderr).toMatch(new RegExp(`^${name}: \\d+ steps done in \\d+\\.\\ds$`, 'm'))
  expect(up.stderr).not.toContain('\u001b')
}, 300_000)

afterAll(async () => {
  const down = await named('down', '-v', '--format', 'json')
  expect([down.code, down.json()]).toMatchObject([0, { project: name, ok: true, failures: [] }])
  expect(await leftovers(name)).toEqual([])
}, 120_000)

test('a second up changes nothing, and the plan is empty', async () => {
  expect(done(await cli('up', '-d')).stderr).toContain(`${name}: no changes`)
  expect((await cli('plan')).stdout).toBe('No changes.\n')
  expect((await cli('plan', '--exit-code', '--format', 'json')).json()).toEqual({ project: name, steps: [] })
  const changed = await agentctl(['plan', '--exit-code'], { ...here, environment: { GREETING: 'hello' } })
  expect(changed.code).toBe(4)
  expect(changed.stdout).toMatch(new RegExp(`create-container container:${name}-counter-1 .*config`))
  const dry = await cli('up', '--dry-run', '--scale', 'shell=3', '--format', 'json')
  expect(dry.json().steps.map((step: { op: string; target: string }) => `${step.op} ${step.target}`)).toContain(
    `create-container container:${name}-shell-3`,
  )
})

test('ps tells what runs, with and without the file', async () => {
  const { project, status, containers } = done(await named('ps', '--format', 'json')).json()
  expect([project, status]).toEqual([name, 'running'])
  const shell = containers.find((it: { name: string }) => it.name === `${name}-shell-2`)
  expect(shell).toMatchObject({
    kind: 'agent',
    agent: 'shell',
    service: null,
    replica: 2,
    status: 'running',
    ready: true,
    exit_code: null,
    tasks: 0,
  })
  expect(Object.keys(shell).sort()).toEqual([
    'agent',
    'exit_code',
    'health',
    'image',
    'kind',
    'name',
    'ready',
    'replica',
    'service',
    'started_at',
    'status',
    'tasks',
  ])
  expect(new Set(containers.map((it: { kind: string }) => it.kind))).toEqual(
    new Set(['agent', 'gateway', 'broker', 'egress', 'controller', 'secrets']),
  )
  expect(done(await cli('ps')).stdout).toMatch(new RegExp(`^${name}-shell-1 +agent +running +yes +0 +agentctl/agent`, 'm'))
  expect(done(await cli('ps', '-q')).stdout.split('\n')).toContain(`${name}-counter-1`)
})

test('a task: its result, its failure, its exit code', async () => {
  const good = done(await cli('task', 'shell', '{"command": "echo hello; id -u"}', '--format', 'json'))
  expect(good.json()).toMatchObject({
    agent: 'shell',
    type: 'task',
    status: 'completed',
    attempts: 1,
    error: null,
    result: { exit_code: 0, stdout: 'hello\n10001\n' },
  })
  const stdin = await agentctl(['task', 'shell', '-'], { ...here, stdin: '{"command": ["echo", "from stdin"]}' })
  expect(done(stdin).stdout).toContain('stdout:\n  from stdin')
  const bad = await cli('task', 'shell', '{"command": "exit 3", "check": true}', '--format', 'json')
  expect([bad.code, bad.json().status]).toEqual([1, 'failed'])
  expect(bad.json().error.message).toContain('3')
})

test('wrong input is told with a code, exit 2, and nothing is queued', async () => {
  const before = done(await cli('runs', 'ls', '--format', 'json')).json().runs.length
  const cases: readonly (readonly [code: string, args: readonly string[]])[] = [
    ['AG6002', ['task', 'shel', '{}']],
    ['AG6003', ['run', 'cuont']],
    ['AG6006', ['run', 'count']],
    ['AG6006', ['run', 'count', '--input', 'text=x', '--input', 'times=many']],
    ['AG6005', ['task', 'shell', JSON.stringify({ command: 'cat', stdin: 'x'.repeat(70_000) })]],
    ['AG4012', ['exec', 'nobody', 'ls']],
    ['AG4012', ['scale', 'nobody=2']],
  ]
  for (const [code, args] of cases) {
    const result = await cli(...args, '--format', 'json')
    expect([args[0], result.code, result.json().error.code]).toEqual([args[0], 2, code])
  }
  expect(done(await cli('runs', 'ls', '--format', 'json')).json().runs).toHaveLength(before)
})

test('a run: jobs, result, and the same told again by runs', async () => {
  const ran = done(await named('run', 'count', '--input', 'text=1 2 3', '--input', 'times=2', '--format', 'json'))
  const view = ran.json()
  expect(view).toMatchObject({
    pipeline: 'count',
    status: 'completed',
    inputs: { text: '1 2 3', times: 2 },
    result: { say: { stdout: '1 2 3' } },
  })
  expect(view.jobs.map((job: { id: string; status: string }) => `${job.id} ${job.status}`)).toEqual(['count completed', 'say completed'])
  expect(ran.stderr).toContain('counting')
  expect(done(await cli('runs', 'show', view.run, '--format', 'json')).json()).toEqual(view)
  expect(done(await cli('runs', 'wait', view.run)).stdout).toContain(`✔ completed ${view.run}  count`)
  expect(done(await cli('runs', 'ls', '--format', 'json')).json().runs).toContainEqual(
    expect.objectContaining({ run: view.run, pipeline: 'count', status: 'completed' }),
  )
  const events = done(await cli('runs', 'logs', view.run, '--format', 'json'))
    .stdout.trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(events.filter((it) => it.event === 'completed').map((it) => it.agent)).toEqual(['counter', 'shell'])
  const unknown = await cli('runs', 'show', 'run_00000000000000000000000000', '--format', 'json')
  expect([unknown.code, unknown.json().error.code]).toEqual([1, 'AG6001'])
})

test('detached work is waited for and cancelled by its id', async () => {
  const run = done(await cli('run', 'count', '--input', 'text=x', '--detach')).stdout.trim()
  expect(run).toMatch(/^run_[0-9A-Z]{26}$/)
  expect(done(await cli('runs', 'wait', run, '--format', 'json')).json().status).toBe('completed')
  const task = done(await cli('task', 'shell', '{"command": "sleep 60"}', '--detach')).stdout.trim()
  const cancelled = done(await cli('runs', 'cancel', task, '--format', 'json')).json()
  expect(cancelled.status).toBe('cancelled')
  expect((await cli('runs', 'wait', task)).code).toBe(1)
})

test('Ctrl-C leaves a run going and says how to follow it', async () => {
  const running = start(['task', 'shell', '{"command": "sleep 3; echo survived"}'], here)
  await running.shows(/shell task\.0 {2}running/)
  running.signal('SIGINT')
  const { code, stdout, stderr } = await running.result
  expect([code, stdout]).toEqual([130, ''])
  const [, args = ''] = /Follow it with: agentctl (.*)$/m.exec(stderr) ?? []
  const waited = done(await agentctl([...args.split(' '), '--format', 'json'], { cwd: tmpdir() }))
  expect(waited.json().status).toBe('completed')
})

test('a run is followed across the death of the gateway', async () => {
  const running = start(['task', 'shell', '{"command": "sleep 4; echo survived"}', '--format', 'json'], here)
  await running.shows(/shell task\.0 {2}running/)
  await run('docker', ['kill', `${name}-agentctl-gateway-1`])
  expect(done(await running.result).json()).toMatchObject({ status: 'completed', attempts: 1, result: { stdout: 'survived\n' } })
})

test('logs: prefix, tail, JSON lines, follow, and a reader that leaves', async () => {
  await eventually(async () => (await cli('logs', 'counter')).stdout.includes('counted for hi'), 'the log of the module')
  const text = done(await cli('logs', 'counter', '--tail', '1')).stdout
  expect(text).toMatch(/^counter-1 {2}\| .*\n$/)
  const lines = done(await named('logs', 'counter', '--format', 'json'))
    .stdout.trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(lines[0]).toMatchObject({ container: `${name}-counter-1`, agent: 'counter', service: null, replica: 1 })
  expect(done(await cli('logs', 'agentctl-gateway')).code).toBe(0)
  const follow = start(['logs', '-f', 'counter', '--tail', '0'], here)
  const task = done(await cli('task', 'counter', '{"text": "a b", "times": 1}', '--format', 'json')).json()
  expect(task.result).toEqual({ words: 2, text: 'a b' })
  // `--tail 0` shows only what comes after it has attached, which nothing tells: count until it is seen.
  const shown = follow.shows('counted for hi').then(() => true)
  while (!(await Promise.race([shown, cli('task', 'counter', '{"text": "a b", "times": 1}').then(() => false)])));
  follow.signal('SIGINT')
  expect((await follow.result).code).toBe(130)
  const reader = start(['logs', '-f', 'counter'], here)
  await reader.shows('counted')
  reader.child.stdout?.destroy()
  await cli('task', 'counter', '{"text": "a", "times": 1}')
  expect(await reader.result).toMatchObject({ code: 0, stderr: '' })
})

test('exec: output, stdin, exit code, one replica, JSON', async () => {
  expect(done(await cli('exec', 'shell', 'id', '-u')).stdout).toBe('10001\n')
  const cat = await agentctl(['exec', '-T', 'shell', 'cat'], { ...here, stdin: 'through\n' })
  expect(done(cat).stdout).toBe('through\n')
  const failing = await cli('exec', 'shell', 'sh', '-c', 'echo out; echo err >&2; exit 7')
  expect(failing).toMatchObject({ code: 7, stdout: 'out\n', stderr: 'err\n' })
  const json = await named(
    'exec',
    '--format',
    'json',
    '--index',
    '2',
    '-e',
    'A=b',
    '-w',
    '/tmp',
    'shell',
    'sh',
    '-c',
    'pwd; echo $A; exit 7',
  )
  expect([json.code, json.json()]).toEqual([7, { container: `${name}-shell-2`, exit_code: 7, stdout: '/tmp\nb\n', stderr: '' }])
})

test("cp: in and out again; what arrives is the agent's", async () => {
  const local = mkdtempSync(join(tmpdir(), 'cli-cp-'))
  writeFileSync(join(local, 'a.txt'), 'hello', { mode: 0o600 })
  done(await cli('cp', local, 'shell:/out/data'))
  expect(done(await cli('exec', 'shell', 'stat', '-c', '%u %a', '/out/data/a.txt')).stdout).toBe('10001 600\n')
  done(await cli('cp', join(local, 'a.txt'), `${name}-shell-1:/workspace`))
  const target = mkdtempSync(join(tmpdir(), 'cli-cp-'))
  done(await named('cp', 'shell:/out/data', `${target}/copy`))
  expect(readFileSync(join(target, 'copy/a.txt'), 'utf8')).toBe('hello')
  done(await named('cp', 'shell:/out/data/a.txt', target))
  expect(statSync(join(target, 'a.txt')).size).toBe(5)
  const missing = await cli('cp', 'shell:/nowhere', target, '--format', 'json')
  expect([missing.code, missing.json().error.code]).toEqual([1, 'AG4005'])
  expect((await cli('cp', 'a', 'b')).code).toBe(2)
})

test('scale goes up and down, by name alone', async () => {
  const up = done(await named('scale', 'shell=3', '--format', 'json')).json()
  expect(up).toMatchObject({ project: name, ok: true })
  const replicas = async (): Promise<number> =>
    (await named('ps', '--format', 'json')).json().containers.filter((it: { agent: string }) => it.agent === 'shell').length
  expect(await replicas()).toBe(3)
  done(await named('scale', 'shell=2'))
  expect(await replicas()).toBe(2)
})

test('what was stopped stays stopped until it is started', async () => {
  done(await cli('stop', 'counter'))
  const status = async (): Promise<string> =>
    (await cli('ps', '-a', '--format', 'json')).json().containers.find((it: { agent: string }) => it.agent === 'counter').status
  expect(await status()).toBe('exited')
  done(await cli('start', 'counter'))
  expect(await status()).toBe('running')
  done(await cli('restart', 'counter'))
  expect(done(await cli('task', 'counter', '{"text": "a b c", "times": 1}', '--format', 'json')).json().result.words).toBe(3)
})
