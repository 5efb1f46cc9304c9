/** `run --agent AGENT -- CMD` by the real command: the agent's posture and secrets without its token, and nothing stays behind. */
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentctl, eventually, leftovers, projectFolder, type Result, run, type Running, start } from './cli-process.ts'

const CANARY = `canary-${Math.random().toString(36).slice(2)}`
const { name, folder } = projectFolder('one-off', (project) => ({
  'agents.yaml': `name: ${project}
agents:
  shell: { handler: exec, mem_limit: 64m, pids_limit: 32, secrets: [key] }
secrets: { key: { environment: CANARY } }
`,
}))
const named = (...args: readonly string[]): Promise<Result> => agentctl(['-p', name, ...args], { cwd: tmpdir() })
const oneOff = (...command: readonly string[]): Promise<Result> => named('run', '--agent', 'shell', '--', ...command)
const oneOffs = async (): Promise<readonly string[]> =>
  (await run('docker', ['ps', '-a', '--filter', `label=agentctl.project=${name}`, '--format', '{{.Names}}']))
    .split('\n')
    .filter((it) => it.includes('-run-'))

beforeAll(async () => {
  const up = await agentctl(['up', '-d'], { cwd: folder, environment: { CANARY } })
  expect(up.code, up.stderr).toBe(0)
}, 300_000)
afterAll(async () => {
  const down = await named('down', '-v')
  expect(down.code, down.stderr).toBe(0)
  expect(await leftovers(name)).toEqual([])
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

test("streams and exit code are the command's; the container is gone afterwards", async () => {
  const { code, stdout, stderr } = await oneOff('sh', '-c', 'echo out; echo err >&2; exit 7')
  expect([code, stdout, stderr]).toEqual([7, 'out\n', 'err\n'])
  expect(await oneOffs()).toEqual([])
  // Nor do its secrets stay in the volume.
  expect(await run('docker', ['exec', `${name}-agentctl-secrets-1`, 'ls', '/secrets'])).not.toContain('-run-')
}, 60_000)

test('large output arrives whole and in order', async () => {
  const { code, stdout } = await oneOff('sh', '-c', 'seq 1 200000')
  expect(code).toBe(0)
  const lines = stdout.trimEnd().split('\n')
  expect([lines.length, lines[0], lines.at(-1)]).toEqual([200_000, '1', '200000'])
}, 60_000)

test('it has the posture of its agent, its secrets, and neither a token nor a way to the broker', async () => {
  const script = `
    grep -E '^(Uid|CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status
    touch /x 2>&1; ls /run/secrets; cat /run/secrets/key; echo
    cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -1
    env | grep -ciE 'redis|password'; node -e "require('dns').lookup('broker',e=>console.log('broker:',e?.code))"`
  const { stdout } = await oneOff('sh', '-c', script)
  expect(stdout).toMatch(/^Uid:\t10001\t10001\t10001\t10001$/m)
  expect(stdout).toMatch(/^CapBnd:\t0{16}$/m)
  expect(stdout).toMatch(/^CapEff:\t0{16}$/m)
  expect(stdout).toMatch(/^NoNewPrivs:\t1$/m)
  expect(stdout).toMatch(/^Seccomp:\t2$/m)
  expect(stdout).toMatch(/Read-only file system/)
  expect(stdout).toContain(`key\n${CANARY}\n32\n0\nbroker: E`)
  expect(stdout).not.toContain('agentctl-token')
}, 60_000)

test('it leases nothing: a task goes to the replica while a one-off runs, which scale and up leave alone', async () => {
  const running = start(['-p', name, 'run', '--agent', 'shell', '--', 'sh', '-c', 'echo begun; sleep 300'], { cwd: tmpdir() })
  await running.shows('begun')
  const task = await named('task', 'shell', '{"command":"hostname"}', '--format', 'json')
  expect(task.json()).toMatchObject({ status: 'completed', result: { exit_code: 0 } })
  expect((await named('scale', 'shell=2')).code).toBe(0)
  expect((await named('scale', 'shell=1')).code).toBe(0)
  // Scaled back to what the file says: nothing is left to do.
  const again = await agentctl(['up', '-d', '--dry-run', '--format', 'json'], { cwd: folder, environment: { CANARY } })
  expect(again.json()).toEqual({ project: name, steps: [] })
  expect(await oneOffs()).toHaveLength(1)
  running.signal('SIGINT')
  const { code } = await running.result
  expect(code).toBe(130)
  await eventually(async () => (await oneOffs()).length === 0, 'the container of the interrupted command goes')
}, 120_000)

test('with --format json: one document, the exit code as well', async () => {
  const result = await named('--format', 'json', 'run', '--agent', 'shell', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3')
  expect(result.code).toBe(3)
  expect(result.json()).toEqual({
    container: expect.stringMatching(new RegExp(`^${name}-shell-run-[0-9a-f]{6}$`)),
    exit_code: 3,
    stdout: 'out\n',
    stderr: 'err\n',
  })
}, 60_000)

test('an agent that is not there is bad input', async () => {
  const { code, stderr } = await named('run', '--agent', 'shel', '--', 'ls')
  expect(code).toBe(2)
  expect(stderr).toContain(`✘ error AG6002: project "${name}" has no agent "shel"`)
  expect(stderr).toContain('Its agents: shell.')
  expect((await agentctl(['-p', `${name}-none`, 'run', '--agent', 'shell', '--', 'ls'])).code).toBe(2)
}, 60_000)

test('five at once: four have an address, the fifth is told so', async () => {
  const results: Running[] = []
  for (let n = 0; n < 4; n++) {
    const one = start(['-p', name, 'run', '--agent', 'shell', '--', 'sh', '-c', 'echo begun; sleep 300'], { cwd: tmpdir() })
    results.push(one)
    await one.shows('begun')
  }
  const fifth = await oneOff('ls')
  expect(fifth.code).toBe(1)
  expect(fifth.stderr).toContain('agent "shell" has 4 one-off containers already')
  for (const one of results) one.signal('SIGINT')
  for (const one of results) expect((await one.result).code).toBe(130)
  expect(await oneOffs()).toEqual([])
}, 120_000)
