/** A project that is up, and what goes wrong with it: each is told with its code, nothing is half applied, and the way back works. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { images } from '../support/docker.ts'
import { agentctl, leftovers, projectFolder, type Result, run, start } from './cli-process.ts'

const STACK = /\n\s+at .+:\d+:\d+/
const file = (name: string, more = ''): string => `name: ${name}
agents:
  shell: { handler: exec, mem_limit: 64m }
  big: { handler: { module: ./app/big.ts }, mem_limit: 128m }
${more}`

const { name, folder } = projectFolder('t-moment', (project) => ({ 'agents.yaml': file(project) }))
mkdirSync(join(folder, 'app'))
writeFileSync(join(folder, 'app/big.ts'), "export default async (input: { bytes: number }) => 'x'.repeat(input.bytes)\n")
const write = (more = ''): void => writeFileSync(join(folder, 'agents.yaml'), file(name, more))

/** Every answer is one document, and never a stack trace. */
async function cli(...args: readonly string[]): Promise<Result> {
  const result = await agentctl([...args, '--format', 'json'], { cwd: folder })
  expect(result.stdout + result.stderr).not.toMatch(STACK)
  expect(() => result.json() as unknown, `${args.join(' ')}: ${result.stdout}${result.stderr}`).not.toThrow()
  return result
}
const refusal = ({ code, json }: Result): readonly [number | null, string | undefined] => [code, json().error?.code]
const done = (result: Result): Result => {
  expect(result.code, result.stdout + result.stderr).toBe(0)
  return result
}
interface Container {
  readonly name: string
  readonly status: string
  readonly ready: boolean | null
}
const ps = async (...args: readonly string[]): Promise<readonly Container[]> => (await cli('ps', ...args)).json().containers
const ids = async (): Promise<string> => await run('docker', ['ps', '-aq', '--no-trunc', '--filter', `label=agentctl.project=${name}`])

beforeAll(async () => {
  done(await cli('up', '-d'))
}, 300_000)

afterAll(async () => {
  const down = await cli('down', '-v')
  expect([down.code, down.json().ok]).toEqual([0, true])
  const again = await cli('down', '-v')
  expect([again.code, again.json()]).toMatchObject([0, { ok: true, changes: 0 }])
  expect(await leftovers(name)).toEqual([])
  rmSync(folder, { recursive: true, force: true })
}, 120_000)

test('an input over 64 KiB is not queued; a result over it fails its task by name', async () => {
  expect(refusal(await cli('task', 'big', JSON.stringify({ bytes: 1, pad: 'x'.repeat(66_000) })))).toEqual([2, 'AG6005'])
  const failed = await cli('task', 'big', '{"bytes": 70000}')
  expect([failed.code, failed.json()]).toMatchObject([1, { status: 'failed', attempts: 1, error: { code: 'payload_too_large' } }])
  expect(done(await cli('task', 'big', '{"bytes": 60000}')).json().result).toHaveLength(60_000)
})

test('what cannot be had changes nothing of what runs: an image, a bind source, a secret', async () => {
  const before = await ids()
  for (const [more, exit, code] of [
    ['  other: { image: "localhost:1/nowhere:1" }\n', 1, 'AG4003'],
    ['  other: { handler: exec, volumes: [./nowhere:/x:ro] }\n', 2, 'AG3002'],
    ['  other: { handler: exec, secrets: [key] }\nsecrets: { key: { file: ./no-key } }\n', 2, 'AG3003'],
    ['  shell: { handler: exec }\n', 2, 'AG1003'],
  ] as const) {
    write(more)
    const result = await cli('up', '-d')
    const document = result.json()
    expect([result.code, document.error?.code ?? document.diagnostics[0].code]).toEqual([exit, code])
    expect(await ids()).toBe(before)
  }
  write()
  expect(done(await cli('plan')).json().steps).toEqual([])
})

test('a port that another container holds: nothing is changed, and a free one works', async () => {
  const { agent } = await images()
  const service = (port: number | string): string => `services:
  web: { image: "${agent}", entrypoint: [sleep, infinity], ports: ["127.0.0.1:${port}:80"] }
`
  const other = `${name}-x-port`
  await run('docker', ['run', '-d', '--name', other, '-p', '127.0.0.1::80', '--entrypoint', 'sleep', agent, '600'])
  try {
    const port = (await run('docker', ['port', other, '80/tcp'])).trim().split(':').at(-1) ?? ''
    const before = await ids()
    write(service(port))
    const taken = await cli('up', '-d')
    expect(refusal(taken)).toEqual([1, 'AG4004'])
    expect(taken.json().error.message).toContain(`127.0.0.1:${port}`)
    expect(await ids()).toBe(before)
    await run('docker', ['rm', '-f', other])
    expect(done(await cli('up', '-d')).json()).toMatchObject({ ok: true, failures: [] })
    // It is the project's own now: renamed, it moves from one container to the other.
    write(service(port).replace('web:', 'site:'))
    expect(done(await cli('up', '-d', '--remove-orphans')).json()).toMatchObject({ ok: true, failures: [] })
    expect((await ps()).map((it) => it.name)).toContain(`${name}-site-1`)
  } finally {
    await run('docker', ['rm', '-f', other]).catch(() => undefined)
    write()
  }
  done(await cli('up', '-d', '--remove-orphans'))
})

test('a name that is taken by a container that is not ours: AG4014; it stays as it is, and ps is true', async () => {
  const { agent } = await images()
  const foreign = `${name}-extra-1`
  await run('docker', ['run', '-d', '--name', foreign, '--entrypoint', 'sleep', agent, '600'])
  try {
    write('  extra: { handler: exec, mem_limit: 64m }\n')
    const up = await cli('up', '-d')
    expect(refusal(up)).toEqual([3, 'AG4014'])
    expect(up.json().error.message).toContain(foreign)
    expect((await ps('-a')).map((it) => it.name)).not.toContain(foreign)
    write()
    done(await cli('up', '-d'))
    expect((await run('docker', ['inspect', '-f', '{{.State.Status}}', foreign])).trim()).toBe('running')
  } finally {
    await run('docker', ['rm', '-f', foreign])
    write()
  }
})

test('an image that does not speak the protocol: AG6007 within ready_timeout, exit 3; ps says that it is not ready', async () => {
  const { agent } = await images()
  write(`  mute: { image: "${agent}", entrypoint: [sleep, infinity], ready_timeout: 2s, mem_limit: 64m }\n`)
  const begin = performance.now()
  const up = await cli('up', '-d')
  expect(refusal(up)).toEqual([3, 'AG6007'])
  expect(up.json().error.message).toContain(`${name}-mute-1`)
  expect(performance.now() - begin).toBeLessThan(15_000)
  expect(await ps()).toContainEqual(expect.objectContaining({ name: `${name}-mute-1`, status: 'running', ready: false }))
  write()
  done(await cli('up', '-d', '--remove-orphans'))
  expect((await ps('-a')).map((it) => it.name)).not.toContain(`${name}-mute-1`)
})

test('Redis stopped on purpose: AG5002 within its bound; started, the work goes on', async () => {
  done(await cli('stop', 'agentctl-broker'))
  expect(await ps('-a')).toContainEqual(expect.objectContaining({ name: `${name}-agentctl-broker-1`, status: 'exited' }))
  const begin = performance.now()
  expect(refusal(await cli('task', 'shell', '{"command": "true"}'))).toEqual([1, 'AG5002'])
  expect(performance.now() - begin).toBeLessThan(30_000)
  expect(refusal(await cli('stop', 'agentctl-secrets'))).toEqual([2, 'AG7001'])
  done(await cli('start', 'agentctl-broker'))
  expect(done(await cli('task', 'shell', '{"command": "echo back"}')).json().result.stdout).toBe('back\n')
})

test('two ups at once: one waits for the other, or is told so; both mean the same project', async () => {
  write('  late: { handler: exec, replicas: 2, mem_limit: 64m }\n')
  const both = await Promise.all([cli('up', '-d'), cli('up', '-d')])
  for (const result of both) expect([result.code, result.json().error?.code]).toEqual(result.code === 0 ? [0, undefined] : [1, 'AG4011'])
  expect(both.some((it) => it.code === 0)).toBe(true)
  expect((await ps()).filter((it) => it.name.startsWith(`${name}-late-`))).toMatchObject([{ ready: true }, { ready: true }])
  expect((await cli('plan')).json().steps).toEqual([])
  write()
  done(await cli('up', '-d', '--remove-orphans'))
})

test('two first ups at once: one makes the project, the other waits for it', async () => {
  const twice = projectFolder('t-twice', (project) => ({
    'agents.yaml': `name: ${project}\nagents:\n  shell: { handler: exec, mem_limit: 64m }\n`,
  }))
  const up = (): Promise<Result> => agentctl(['up', '-d', '--format', 'json'], { cwd: twice.folder })
  try {
    const both = await Promise.all([up(), up(), up()])
    expect(both.map((it) => [it.code, it.json().error ?? null])).toEqual([
      [0, null],
      [0, null],
      [0, null],
    ])
    expect((await agentctl(['plan', '--format', 'json'], { cwd: twice.folder })).json().steps).toEqual([])
  } finally {
    done(await agentctl(['-p', twice.name, 'down', '-v']))
    expect(await leftovers(twice.name)).toEqual([])
    rmSync(twice.folder, { recursive: true, force: true })
  }
})

test('a project that a newer agentctl made is refused by name by every verb, and none changes it', async () => {
  const holder = `${name}-agentctl-secrets-1`
  const edit = (expression: string): Promise<string> => run('docker', ['exec', holder, 'sed', '-i', '-E', expression, '/state/record.json'])
  await edit('s/^( "version": )1,/\\199,/; s/^( "written_by": )"/\\1"9.9.9+/')
  try {
    const before = await ids()
    const verbs = [
      ['up', '-d'],
      ['up', '--dry-run'],
      ['plan'],
      ['ps'],
      ['logs'],
      ['exec', 'shell', 'true'],
      ['cp', 'shell:/etc/hostname', tmpdir()],
      ['scale', 'shell=2'],
      ['stop'],
      ['start'],
      ['restart', 'shell'],
      ['task', 'shell', '{"command": "true"}'],
      ['run', 'nothing'],
      ['runs', 'ls'],
      ['down', '-v'],
    ]
    for (const verb of verbs) {
      const result = await cli(...verb)
      expect([verb.join(' '), ...refusal(result)]).toEqual([verb.join(' '), 2, 'AG4010'])
      expect(result.json().error.message).toContain('9.9.9')
    }
    expect(await ids()).toBe(before)
  } finally {
    await edit('s/^( "version": )99,/\\11,/; s/^( "written_by": )"9.9.9\\+/\\1"/')
  }
  expect((await cli('plan')).json().steps).toEqual([])
})

test('Ctrl-C in the middle of up: ps shows what there is, down takes all of it', async () => {
  const cut = projectFolder('t-cut', (project) => ({
    'agents.yaml': `name: ${project}\nagents:\n  shell: { handler: exec, replicas: 3, mem_limit: 64m }\n`,
  }))
  try {
    const up = start(['up', '-d'], { cwd: cut.folder })
    await up.shows(/container .*-shell-\d {2}created/, 170_000)
    up.signal('SIGINT')
    expect((await up.result).code).toBe(130)
    const shown = (await agentctl(['-p', cut.name, 'ps', '-a', '--format', 'json'])).json().containers as readonly Container[]
    const real = await run('docker', ['ps', '-a', '--filter', `label=agentctl.project=${cut.name}`, '--format', '{{.Names}}'])
    expect(shown.map((it) => it.name).sort()).toEqual(real.trim().split('\n').sort())
  } finally {
    const down = await agentctl(['-p', cut.name, 'down', '-v', '--format', 'json'])
    expect([down.code, down.json().ok]).toEqual([0, true])
    expect(await leftovers(cut.name)).toEqual([])
    rmSync(cut.folder, { recursive: true, force: true })
  }
})
