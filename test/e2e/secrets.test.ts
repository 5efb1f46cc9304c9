/** Secrets by the real command: how they lie in containers, how they are exchanged under them, and what is refused. */
import { createHash } from 'node:crypto'
import { chmodSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { agentctl, eventually, leftovers, projectFolder, type Result, run } from './cli-process.ts'

const VERSION = (await import('../../package.json', { with: { type: 'json' } })).default.version
const random = (): string => `canary-${createHash('sha256').update(String(Math.random())).digest('base64').slice(0, 24)}`
const value = { env: random(), cmd: random(), file: random() }

const file = (name: string, agent = '[env, { source: cmd, target: tool.key, gid: 20000, mode: 0440 }]'): string => `
name: ${name}
agents:
  reader: { replicas: 2, mem_limit: 64m, secrets: ${agent} }
  fixed: { mem_limit: 64m, secrets: [{ source: file, target: /etc/app/key.json }] }
services:
  plain: { image: "agentctl/agent:${VERSION}", entrypoint: [sleep, infinity], secrets: [env, { source: cmd, target: /srv/key, uid: 10001, mode: 0400 }] }
secrets:
  env: { environment: CANARY }
  cmd: { command: [./print, "two words"], pass_env: [ELSEWHERE] }
  file: { file: ./key }
`
const { name, folder } = projectFolder('t-secrets', (project) => ({ 'agents.yaml': file(project), key: value.file }))
const print = (text: string): void => {
  writeFileSync(join(folder, 'print'), `#!/bin/sh\n[ "$1" = "two words" ] && echo '${text}'\n`)
  chmodSync(join(folder, 'print'), 0o755)
}
const cli = (...args: readonly string[]): Promise<Result> => agentctl(args, { cwd: folder, environment: { CANARY: value.env } })
async function up(): Promise<Result> {
  const result = await cli('up', '-d')
  expect(result.code, result.stderr).toBe(0)
  return result
}
const inside = async (container: string, ...command: readonly string[]): Promise<string> =>
  (await run('docker', ['exec', `${name}-${container}`, ...command])).trim()
const ids = async (): Promise<readonly string[]> =>
  (await run('docker', ['ps', '-q', '--no-trunc', '--filter', `label=agentctl.project=${name}`])).trim().split('\n').sort()

beforeAll(async () => {
  print(value.cmd)
  await up()
}, 300_000)
afterAll(async () => {
  await cli('down', '-v', '-t', '1')
  rmSync(folder, { recursive: true, force: true })
  expect(await leftovers(name)).toEqual([])
}, 120_000)

test('each file has its owner, mode and path, also outside /run/secrets and under a read-only root', async () => {
  const stat = (container: string, path: string): Promise<string> => inside(container, 'stat', '-c', '%u:%g %a', path)
  expect(await stat('reader-1', '/run/secrets/env')).toBe('10001:10001 400')
  expect(await stat('reader-2', '/run/secrets/tool.key')).toBe('10001:20000 440')
  expect(await stat('fixed-1', '/etc/app/key.json')).toBe('10001:10001 400')
  expect(await stat('plain-1', '/srv/key')).toBe('10001:0 400')
  // Its user is known to the image alone.
  expect(await stat('plain-1', '/run/secrets/env')).toBe('0:0 444')
  expect(await inside('reader-1', 'cat', '/run/secrets/env')).toBe(value.env)
  expect(await inside('reader-1', 'cat', '/run/secrets/tool.key')).toBe(value.cmd)
  expect(await inside('fixed-1', 'cat', '/etc/app/key.json')).toBe(value.file)
  expect(await inside('plain-1', 'cat', '/srv/key')).toBe(value.cmd)
  expect(await inside('reader-1', 'ls', '/run/secrets')).toBe('agentctl-token\nenv\ntool.key')
  expect(await inside('fixed-1', 'ls', '/run/secrets')).toBe('agentctl-token')
  for (const [container, path] of [
    ['reader-1', '/run/secrets/env'],
    ['fixed-1', '/etc/app/key.json'],
  ] as const)
    await expect(inside(container, 'sh', '-c', `chmod 600 ${path}; echo x >${path}`)).rejects.toThrow(/[Rr]ead-only/)
})

test('nothing has changed: nothing is done', async () => {
  expect((await cli('plan')).stdout).toBe('No changes.\n')
})

test('a changed value is exchanged while all runs: no reader finds the file missing or half, and the plan says why', async () => {
  const before = await ids()
  const [old, next] = [value.env, random().repeat(3_000)]
  const loop = `const fs=require('fs'),seen={};const end=Date.now()+8000;let n=0;while(Date.now()<end){let t;try{t=fs.readFileSync('/run/secrets/env','utf8')}catch(e){t=e.code}seen[require('crypto').createHash('sha256').update(t).digest('hex')]=1;n++}console.log(JSON.stringify({n,seen:Object.keys(seen)}))`
  const reading = inside('reader-1', 'node', '-e', loop)
  // The reader has seen the old one.
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  value.env = next
  expect((await cli('plan')).stdout).toBe(
    `#1 write-secrets volume:${name}_agentctl-secrets (for ${name}-plain-1, ${name}-reader-1, ${name}-reader-2): secret env changed; nothing is restarted\n`,
  )
  expect((await up()).stderr).toContain(`${name}: 1 step done`)
  const { n, seen } = JSON.parse(await reading) as { n: number; seen: readonly string[] }
  const hash = (text: string): string => createHash('sha256').update(text).digest('hex')
  expect([...seen].sort()).toEqual([hash(old), hash(next)].sort())
  expect(n).toBeGreaterThan(100)
  for (const container of ['reader-1', 'reader-2', 'plain-1']) expect(await inside(container, 'cat', '/run/secrets/env')).toBe(next)
  expect(await inside('reader-2', 'stat', '-c', '%u:%g %a', '/run/secrets/env')).toBe('10001:10001 400')
  expect(await ids()).toEqual(before)
  expect((await cli('plan')).stdout).toBe('No changes.\n')
  // Nothing of the exchange stays, and what tells the two values apart is of no use without the project's key.
  expect(await inside('agentctl-secrets-1', 'ls', '-A', '/secrets')).not.toContain('incoming')
  for (const path of ['/state/record.json', '/secrets/.agentctl-delivered/*']) {
    const text = await inside('agentctl-secrets-1', 'sh', '-c', `cat ${path}`)
    for (const form of ['hex', 'base64', 'base64url'] as const)
      for (const algorithm of ['sha256', 'sha1', 'md5', 'sha512'])
        expect(text).not.toContain(createHash(algorithm).update(next).digest(form).slice(0, 16))
  }
}, 120_000)

test('the exchanged value is there after a death, a restart and for a new replica', async () => {
  value.env = random()
  await up()
  await run('docker', ['kill', `${name}-reader-1`])
  await eventually(
    async () => (await inside('reader-1', 'cat', '/run/secrets/env').catch(() => '')) === value.env,
    'the controller restarts it',
  )
  expect((await cli('restart', 'reader')).code).toBe(0)
  expect(await inside('reader-2', 'cat', '/run/secrets/env')).toBe(value.env)
  expect((await cli('scale', 'reader=3')).code).toBe(0)
  expect(await inside('reader-3', 'cat', '/run/secrets/env')).toBe(value.env)
  await up()
}, 180_000)

test('a value that changes while nobody has it is there for the next replica', async () => {
  expect((await cli('scale', 'fixed=0')).code).toBe(0)
  value.file = random()
  writeFileSync(join(folder, 'key'), value.file)
  const kept = await cli('up', '-d', '--scale', 'fixed=0')
  expect(kept.stderr).toContain(`${name}: 1 step done`)
  expect((await cli('scale', 'fixed=1')).code).toBe(0)
  expect(await inside('fixed-1', 'cat', '/etc/app/key.json')).toBe(value.file)
}, 120_000)

test('what is mounted as a file of its own makes its container anew, and no other', async () => {
  const before = await ids()
  value.file = random()
  writeFileSync(join(folder, 'key'), value.file)
  const plan = (await cli('plan')).stdout
  expect(plan).toContain(
    `stop-container container:${name}-fixed-1: secret file changed, and a file outside /run/secrets cannot be exchanged`,
  )
  expect(plan).not.toMatch(/reader|plain/)
  await up()
  expect(await inside('fixed-1', 'cat', '/etc/app/key.json')).toBe(value.file)
  expect((await ids()).filter((id) => !before.includes(id))).toHaveLength(1)
}, 120_000)

test('a secret that the file no longer gives is taken away, and one that it gives is brought, without a restart', async () => {
  const before = await ids()
  writeFileSync(join(folder, 'agents.yaml'), file(name, '[{ source: cmd, target: tool.key }, file]'))
  expect((await cli('plan')).stdout).toContain(
    `(for ${name}-reader-1, ${name}-reader-2): secrets cmd, file changed, file env is given no more; nothing is restarted`,
  )
  await up()
  expect(await inside('reader-1', 'ls', '/run/secrets')).toBe('agentctl-token\nfile\ntool.key')
  expect(await inside('reader-2', 'stat', '-c', '%u:%g %a', '/run/secrets/tool.key')).toBe('10001:10001 400')
  expect(await ids()).toEqual(before)
  writeFileSync(join(folder, 'agents.yaml'), file(name))
  await up()
}, 120_000)

test('a command that fails changes nothing, and is named with its place, program and exit code', async () => {
  const before = await ids()
  writeFileSync(join(folder, 'print'), `#!/bin/sh\necho ${value.cmd}; echo ${value.cmd} >&2; exit 3\n`)
  const failed = await agentctl(['up', '-d'], { cwd: folder, environment: { CANARY: value.env, AGENTCTL_DEBUG: '1' } })
  expect([failed.code, failed.stderr]).toEqual([
    2,
    expect.stringContaining(`agents.yaml:10:3: error AG3003: the command of secret "cmd": ${folder}/print exited with 3`),
  ])
  expect(failed.stdout + failed.stderr).not.toContain(value.cmd)
  expect(await ids()).toEqual(before)
  print(value.cmd)
})

test('an image that carries a key, in its ENV or as a build argument, is refused by name and without the value', async () => {
  const tag = `${name}-image`
  const dockerfile = `FROM agentctl/agent:${VERSION}\nENV OPENAI_API_KEY=hunter2-in-the-image\nARG NPM_TOKEN=hunter2-as-argument\n`
  await run('sh', ['-c', `printf '${dockerfile.replaceAll('\n', '\\n')}' | docker build -q -t ${tag} -`])
  const other = projectFolder('t-secrets-image', (project) => ({
    'agents.yaml': `name: ${project}\nservices:\n  s:\n    image: ${tag}\n    entrypoint: [sleep, infinity]\n`,
  }))
  try {
    const refused = await agentctl(['up', '-d'], { cwd: other.folder })
    expect(refused.code).toBe(2)
    expect(refused.stderr).toContain(
      `agents.yaml:4:12: error AG3010: the image "${tag}" of service "s" has a value for OPENAI_API_KEY in its ENV: whoever has the image has it`,
    )
    expect(refused.stderr).toContain(`the image "${tag}" of service "s" was built with the argument NPM_TOKEN, which its history tells`)
    expect(refused.stderr).not.toContain('hunter2')
    expect(await leftovers(other.name)).toEqual([])
  } finally {
    rmSync(other.folder, { recursive: true, force: true })
    await run('docker', ['image', 'rm', '-f', tag])
  }
}, 120_000)

test('the value of a secret in the environment of a container is refused with its place', async () => {
  writeFileSync(join(folder, 'agents.yaml'), `${file(name).replace('  plain: {', '  plain: { environment: { AUTH: "Bearer ${CANARY}" },')}`)
  const refused = await cli('plan')
  expect(refused.code).toBe(2)
  expect(refused.stderr).toMatch(/agents\.yaml:7:\d+: error AG3010: the variable AUTH of service "plain" holds the value of secret "env"/)
  expect(refused.stderr).not.toContain(value.env)
  writeFileSync(join(folder, 'agents.yaml'), file(name))
})
