/** Secrets on an engine that is not on this machine, which is a second one behind a TCP port, and through its restart. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type SecondEngine, secondEngine } from '../chaos/engine.ts'
import { agentctl, eventually, projectFolder, type Result, run } from './cli-process.ts'

const { name, folder } = projectFolder('t-remote', (project) => ({
  'agents.yaml': `name: ${project}
agents:
  reader: { mem_limit: 64m, secrets: [env, { source: file, target: /etc/app/key }] }
  other: { mem_limit: 64m }
secrets:
  env: { environment: CANARY }
  file: { file: ./key }
`,
  key: 'of a file here',
}))
let engine: SecondEngine | null = null
let skipped: string | null = null
const value = { env: 'canary-of-the-environment' }

const cli = (...args: readonly string[]): Promise<Result> =>
  agentctl(args, { cwd: folder, environment: { CANARY: value.env, DOCKER_HOST: engine?.host ?? '' } })
const docker = (...args: readonly string[]): Promise<string> => run('docker', ['-H', engine?.host ?? '', ...args])
const inside = async (container: string, ...command: readonly string[]): Promise<string> =>
  (await docker('exec', `${name}-${container}`, ...command)).trim()
async function up(): Promise<void> {
  const result = await cli('up', '-d')
  expect(result.code, result.stderr).toBe(0)
}

beforeAll(async () => {
  if (process.getuid?.() !== 0) {
    skipped = 'a second engine needs root'
    return
  }
  engine = await secondEngine({ tcp: true })
  await up()
}, 400_000)
afterAll(async () => {
  if (engine !== null) await cli('down', '-v', '-t', '1')
  await engine?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

test('files of this machine and its environment are delivered to the other, and exchanged there', async (context) => {
  if (skipped !== null) return context.skip(skipped)
  expect(engine?.host).toMatch(/^tcp:\/\/127\.0\.0\.1:\d+$/)
  expect(await inside('reader-1', 'cat', '/run/secrets/env')).toBe(value.env)
  expect(await inside('reader-1', 'stat', '-c', '%u:%g %a', '/run/secrets/env')).toBe('10001:10001 400')
  expect(await inside('reader-1', 'cat', '/etc/app/key')).toBe('of a file here')
  const before = await docker('ps', '-q', '--no-trunc')
  value.env = 'canary-exchanged'
  await up()
  expect(await inside('reader-1', 'cat', '/run/secrets/env')).toBe(value.env)
  expect(await docker('ps', '-q', '--no-trunc')).toBe(before)
  expect((await cli('plan')).stdout).toBe('No changes.\n')
}, 120_000)

test('a restart of the engine empties its memory: all comes back but who needs a secret, and the next up gives it again', async (context) => {
  if (skipped !== null) return context.skip(skipped)
  await engine?.restart()
  const status = async (container: string): Promise<string> =>
    (await docker('inspect', '-f', '{{.State.Status}}', `${name}-${container}`).catch(() => 'none')).trim()
  await eventually(async () => (await status('other-1')) === 'running', 'an agent without secrets runs again', 60_000)
  await eventually(
    async () => (await docker('logs', `${name}-agentctl-controller-1`)).includes('has no value any more'),
    'the controller says which secret it has no value for',
    30_000,
  )
  expect(await status('reader-1')).toBe('exited')
  // Nothing of it is on the disk of that machine.
  const files = await run('sh', [
    '-c',
    `grep -r -l -F ${value.env} "$1" 2>/dev/null || true`,
    'sh',
    await docker('info', '-f', '{{.DockerRootDir}}').then((it) => it.trim()),
  ])
  expect(files).toBe('')
  writeFileSync(join(folder, 'key'), 'given again')
  await up()
  expect(await inside('reader-1', 'cat', '/run/secrets/env')).toBe(value.env)
  expect(await inside('reader-1', 'cat', '/etc/app/key')).toBe('given again')
  expect((await cli('plan')).stdout).toBe('No changes.\n')
}, 200_000)
