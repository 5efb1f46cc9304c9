/**
 * Random secrets from each source, then all that a project does: tasks that work, fail and are cancelled, errors, plans, traces, deaths. Then
 * they are looked for in everything that was written anywhere, in each way of writing them. They may be in their own files, and nowhere else.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDocker } from '../../engine/runtimes/docker/connect.ts'
import { readStore } from '../../engine/secrets/store.ts'
import { OtlpReceiver } from '../support/otlp.ts'
import { agentctl, eventually, leftovers, projectFolder, type Result, run } from './cli-process.ts'

const VERSION = (await import('../../package.json', { with: { type: 'json' } })).default.version
/** With what JSON and URLs write in another way. */
const random = (): string => `cn/${randomBytes(15).toString('base64')}+"ary?`
const canary = { env: random(), file: random(), command: random(), rotated: random() }
/** Found on purpose: in a label, in the one form; that the search finds it is what the other findings are worth. */
const control = random()

/** Written apart from the product's own, which is under test. */
function forms(value: string): readonly string[] {
  const bytes = Buffer.from(value)
  const amid = [0, 1, 2].map((before) => {
    const text = Buffer.concat([Buffer.alloc(before, 'x'), bytes, Buffer.from('xxx')]).toString('base64')
    return text.slice(Math.ceil((before * 4) / 3), Math.floor(((before + bytes.length) * 4) / 3) - 1)
  })
  const base64 = [bytes.toString('base64'), ...amid]
  const url = encodeURIComponent(value)
  return [
    value,
    JSON.stringify(value).slice(1, -1),
    ...base64,
    ...base64.map((text) => text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')),
    bytes.toString('hex'),
    bytes.toString('hex').toUpperCase(),
    url,
    url.toLowerCase(),
  ]
}

let receiver: OtlpReceiver
const { name, folder } = projectFolder('t-canary', () => ({ 'agents.yaml': '' }))
const work = mkdtempSync(join(tmpdir(), 't-canary-sweep-'))
const output: string[] = []
/** As they happen: the engine remembers the last 256 of all projects. */
let listener: ChildProcess
let events = ''

const file = (port: number): string => `name: ${name}
agents:
  user: { handler: { module: ./user.ts }, delegates_to: [shell], secrets: [env, file, { source: command, target: /etc/app/key }] }
  shell: { handler: exec, mem_limit: 64m, replicas: 2, secrets: [env] }
services:
  plain: { image: "agentctl/agent:${VERSION}", entrypoint: [sleep, infinity], secrets: [file], labels: { control: "${Buffer.from(control).toString('base64')}" } }
secrets:
  env: { environment: CANARY }
  file: { file: ./key }
  command: { command: [./print], pass_env: [CANARY_OF_COMMAND] }
telemetry: { endpoint: "http://host.docker.internal:${port}" }
pipelines:
  both:
    jobs:
      use: { agent: user, with: { mode: work } }
      then: { agent: shell, needs: [use], with: { command: "wc -c </run/secrets/env" } }
`
const USER = `import { readFileSync } from 'node:fs'
import type { Context } from '@agentctl/cli/agent'
export default async (input: { mode: string }, ctx: Context) => {
  const lengths = ['/run/secrets/env', '/run/secrets/file', '/etc/app/key'].map((path) => readFileSync(path, 'utf8').length)
  ctx.log('read ' + lengths.join(' '))
  await ctx.step('measure', async () => lengths)
  if (input.mode === 'fail') throw new Error('it does not work')
  return await ctx.delegate('shell', { command: 'wc -c </run/secrets/env' })
}
`

async function cli(args: readonly string[], environment: { readonly [name: string]: string } = {}): Promise<Result> {
  const result = await agentctl(args, {
    cwd: folder,
    environment: { AGENTCTL_DEBUG: '1', CANARY: canary.env, CANARY_OF_COMMAND: canary.command, ...environment },
  })
  output.push(`$ ${args.join(' ')}\n${result.stdout}${result.stderr}`)
  return result
}
const print = (body: string): void => {
  writeFileSync(join(folder, 'print'), `#!/bin/sh\n${body}\n`)
  chmodSync(join(folder, 'print'), 0o755)
}

/** The engine's own answer, as the CLI of Docker would show parts of it. */
const engine = (path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const call = request({ socketPath: '/var/run/docker.sock', path }, (response) => {
      let text = ''
      response.on('data', (chunk) => (text += String(chunk)))
      response.on('end', () => resolve(text))
    })
    call.on('error', reject)
    call.end()
  })
const sh = (script: string, ...args: readonly string[]): Promise<string> => run('sh', ['-c', script, 'sh', ...args])
const lines = (text: string): readonly string[] => text.split('\n').filter((line) => line !== '')

/** Pieces of what was written, each with the patterns that it holds. */
class Sweep {
  readonly #patterns: string
  readonly #kinds: ReadonlyMap<string, string>
  readonly found = new Set<string>()
  readonly looked = new Set<string>()
  constructor(secrets: { readonly [kind: string]: string }, file = 'patterns') {
    const kinds = Object.entries(secrets).flatMap(([kind, value]) => forms(value).map((form) => [form, kind] as const))
    this.#kinds = new Map(kinds)
    this.#patterns = join(work, file)
    writeFileSync(this.#patterns, `${[...this.#kinds.keys()].join('\n')}\n`, { mode: 0o600 })
  }
  text(where: string, text: string): void {
    expect(text.length, `nothing to look at: ${where}`).toBeGreaterThan(0)
    this.looked.add(where)
    for (const [form, kind] of this.#kinds) if (text.includes(form)) this.found.add(`${where}: ${kind}`)
  }
  /** A stream of bytes, as a command writes it. */
  async stream(where: string, script: string, ...args: readonly string[]): Promise<void> {
    this.looked.add(where)
    const hits = await sh(`{ ${script}; } | grep -a -o -F -f "${this.#patterns}" | sort -u`, ...args)
    for (const form of lines(hits)) this.found.add(`${where}: ${this.#kinds.get(form)}`)
  }
  /** Files of a folder of this machine, compressed ones too; those that hit. */
  async files(root: string): Promise<readonly string[]> {
    const plain = await sh('grep -r -a -l -F -f "$1" "$2" 2>/dev/null || true', this.#patterns, root)
    const packed = await sh(
      'find "$2" -type f -name "*.gz*" | while read -r file; do zcat -f "$file" 2>/dev/null | grep -a -q -F -f "$1" && echo "$file"; done; true',
      this.#patterns,
      root,
    )
    return [...new Set([...lines(plain), ...lines(packed)])].map((path) => path.slice(root.length + 1)).sort()
  }
}

beforeAll(async () => {
  receiver = await OtlpReceiver.start()
  writeFileSync(join(folder, 'agents.yaml'), file(receiver.port))
  writeFileSync(join(folder, 'user.ts'), USER)
  writeFileSync(join(folder, 'key'), canary.file)
  print('printf "%s\\n" "$CANARY_OF_COMMAND"')
  listener = spawn('docker', ['events', '--filter', `label=agentctl.project=${name}`, '--format', '{{json .}}'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  listener.stdout?.on('data', (chunk) => (events += String(chunk)))
}, 60_000)
afterAll(async () => {
  await agentctl(['down', '-v', '-t', '1', '-p', name])
  listener?.kill()
  await receiver?.stop()
  for (const path of [folder, work]) rmSync(path, { recursive: true, force: true })
  expect(await leftovers(name)).toEqual([])
}, 120_000)

test('a project does all that it can do', async () => {
  const codes: (number | null)[] = []
  const does = async (...args: readonly string[]): Promise<void> => void codes.push((await cli(args)).code)
  await does('config')
  await does('plan', '--format', 'json')
  await does('up', '-d')
  await does('run', 'both')
  await does('run', 'both', '--format', 'json')
  await does('task', 'user', '{"mode":"fail"}', '--format', 'json')
  await does('task', 'shell', '{"command":"ls -la /run/secrets; exit 3","check":true}')
  await does('runs', 'ls')
  await does('dlq', 'ls', '--format', 'json')
  await does('ps', '-a', '--format', 'json')
  await does('exec', 'shell', 'ls', '/run/secrets')
  await does('run', '--agent', 'shell', '--', 'sh', '-c', 'wc -c </run/secrets/env')
  await does('doctor', '--format', 'json')
  expect(codes.slice(0, 5)).toEqual([0, 0, 0, 0, 0])
  expect(codes.slice(5, 7)).toEqual([1, 1])

  const detached = (await cli(['task', 'shell', '{"command":"sleep 60"}', '--detach', '--format', 'json'])).json() as {
    id?: string
    run?: string
  }
  await does('runs', 'cancel', (detached.run ?? detached.id ?? '').split('.')[0] ?? '')
  // Values that change, a death, a restart, a new replica.
  const before = canary.env
  canary.env = canary.rotated
  canary.rotated = before
  await does('plan')
  await does('up', '-d')
  await run('docker', ['kill', `${name}-shell-1`])
  await does('restart', 'user')
  await does('scale', 'shell=3')
  await does('run', 'both')
  expect(codes.slice(-5)).toEqual([0, 0, 0, 0, 0])

  // Errors of each source, of the file, of the engine.
  print('echo "$CANARY_OF_COMMAND"; echo "$CANARY_OF_COMMAND" >&2; exit 9')
  await does('up', '-d')
  print('printf "%s\\n" "$CANARY_OF_COMMAND"')
  const text = readFileSync(join(folder, 'agents.yaml'), 'utf8')
  for (const wrong of [
    text.replace('mem_limit: 64m', 'mem_limit: "${CANARY}"'),
    text.replace('secrets: [env] }', 'secrets: ["${CANARY}"] }'),
    text.replace('mem_limit: 64m,', 'mem_limit: 64m, environment: { KEY: "x${CANARY}" },'),
    text.replace('labels: {', `labels: { "x": "${Buffer.from(canary.file).toString('hex')}",`),
    text.replace(`image: "agentctl/agent:${VERSION}"`, 'image: "t-there-is-none:1"'),
  ]) {
    writeFileSync(join(folder, 'agents.yaml'), wrong)
    await does('up', '-d')
    expect(codes.at(-1)).not.toBe(0)
  }
  writeFileSync(join(folder, 'agents.yaml'), text)
  await does('up', '-d')
  expect(codes.at(-1)).toBe(0)
  await does('logs')
  await does('logs', 'agentctl-controller', 'agentctl-gateway', 'agentctl-egress')
  await receiver.waitFor((spans) => spans.length > 20)
}, 400_000)

test('the secrets are in their own files, and nowhere else', async (context) => {
  const runtime = await connectDocker({ environment: process.env })
  const store = await readStore(runtime, name, AbortSignal.timeout(20_000))
  if (store === null) throw new Error('no store')
  const tokens = Object.fromEntries(
    await Promise.all(
      ['user-1', 'shell-1', 'shell-2'].map(
        async (replica) =>
          [
            `token of ${replica}`,
            (await run('docker', ['exec', `${name}-${replica}`, 'cat', '/run/secrets/agentctl-token'])).trim(),
          ] as const,
      ),
    ),
  )
  const secrets = { ...canary, 'project key': store.project_key, 'broker password': store.broker_password, ...tokens }
  const sweep = new Sweep({ ...secrets, control })
  const containers = await runtime.containers(name)
  const names = containers.map((it) => it.name).sort()
  expect(names.length).toBeGreaterThanOrEqual(9)

  // What the engine tells.
  for (const container of containers) sweep.text(`inspect of ${container.name}`, await engine(`/containers/${container.id}/json`))
  for (const image of new Set(containers.map((it) => it.image))) {
    sweep.text('inspect of images', await engine(`/images/${image}/json`))
    sweep.text('history of images', await engine(`/images/${image}/history`))
  }
  for (const network of await runtime.networks(name)) sweep.text('inspect of networks', await engine(`/networks/${network.id}`))
  const volumes = await runtime.volumes(name)
  for (const volume of volumes) sweep.text('inspect of volumes', await engine(`/volumes/${volume.name}`))
  for (const container of names) await sweep.stream(`logs of ${container}`, 'docker logs "$1" 2>&1', container)
  expect(events.length).toBeGreaterThan(0)
  sweep.text('events', events)
  const execs = [...new Set([...events.matchAll(/"execID":"([0-9a-f]{64})"/g)].map(([, id]) => id ?? ''))]
  const inspected = await Promise.all(execs.map((id) => engine(`/exec/${id}/json`)))
  expect(inspected.filter((text) => text.includes('ProcessConfig')).length).toBeGreaterThan(0)
  sweep.text('inspect of execs', inspected.join('\n'))
  sweep.text('list of processes', (await Promise.all(containers.map((it) => engine(`/containers/${it.id}/top?ps_args=axeww`)))).join('\n'))

  // What containers have written, and what `export` (and so `commit`) would take along.
  for (const container of ['shell-2', 'user-1', 'plain-1', 'agentctl-gateway-1'].map((it) => `${name}-${it}`)) {
    await sweep.stream(`changes of ${container}`, 'docker diff "$1"; echo .', container)
    await sweep.stream(`export of ${container}`, 'docker export "$1"', container)
  }
  // Processes of the whole machine, those in containers among them.
  await sweep.stream('environments', 'cat /proc/[0-9]*/environ 2>/dev/null || true')
  await sweep.stream('command lines', 'cat /proc/[0-9]*/cmdline 2>/dev/null || true')

  // All that Redis has, as it is and as a dump.
  const every = `local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do local kind, value = redis.call('TYPE', key).ok, ''
    if kind == 'string' then value = redis.call('GET', key) elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1) elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') elseif kind == 'stream' then value = redis.call('XRANGE', key, '-', '+') end
    out[#out + 1] = {key, kind, value, redis.call('DUMP', key)} end return out`
  writeFileSync(join(work, 'every.lua'), every.replaceAll('\n', ' '))
  await sweep.stream(
    'keys of Redis',
    `docker exec -i "$1" sh -c 'REDISCLI_AUTH=$(sed -n "s/^requirepass //p" /run/secrets/redis.conf) redis-cli --raw EVAL "$(cat)" 0' <"$2"`,
    `${name}-agentctl-broker-1`,
    join(work, 'every.lua'),
  )
  const size = await sh(
    `docker exec "$1" sh -c 'REDISCLI_AUTH=$(sed -n "s/^requirepass //p" /run/secrets/redis.conf) redis-cli DBSIZE'`,
    `${name}-agentctl-broker-1`,
  )
  expect(Number(size)).toBeGreaterThan(5)

  // What left the machine, and what the command has printed.
  sweep.text('OTLP', receiver.text())
  for (const { headers } of receiver.requests.slice(0, 1)) sweep.text('OTLP headers', JSON.stringify(headers))
  for (const piece of output) sweep.text(`output of ${/^\$ (.*)/.exec(piece)?.[1] ?? ''}`, piece)

  // A label is told by each of these, so they were searched.
  expect([...sweep.found].sort()).toEqual(['events: control', `inspect of ${name}-plain-1: control`, 'output of config: control'])
  expect(sweep.looked.size).toBeGreaterThan(50)

  // Files on the engine's disk: the record, archive, artifacts and witness; Redis' log; the layers that containers write to.
  const mount = (short: string): string => volumes.find((it) => it.name === `${name}_${short}`)?.mountpoint ?? ''
  if (!existsSync(mount('agentctl-state')))
    return context.skip("the engine's disk is not this machine's, or not readable: its volumes were not searched")
  const upper = (await run('docker', ['inspect', '-f', '{{.GraphDriver.Data.UpperDir}}', ...names])).trim().split('\n')
  expect(await sweep.files(mount('agentctl-state')), 'the label').toEqual(['record.json'])
  const disk = new Sweep(secrets, 'patterns-of-secrets')
  for (const root of [mount('agentctl-state'), mount('agentctl-broker'), ...upper]) expect(await disk.files(root), root).toEqual([])
  // Where they are. Folders of replicas that are gone would be told here, too.
  const replicas = [1, 2, 3].map((replica) => `${name}-shell-${replica}`)
  expect(await disk.files(mount('agentctl-secrets'))).toEqual(
    [
      '.agentctl-store',
      `${name}-agentctl-broker-1/redis.conf`,
      `${name}-agentctl-gateway-1/broker-password`,
      `${name}-agentctl-gateway-1/project-key`,
      `${name}-plain-1/file`,
      `${name}-user-1/agentctl-token`,
      `${name}-user-1/env`,
      `${name}-user-1/file`,
      expect.stringMatching(new RegExp(`^${name}-user-1~/`)),
      ...replicas.flatMap((replica) => (replica.endsWith('3') ? [`${replica}/env`] : [`${replica}/agentctl-token`, `${replica}/env`])),
    ].sort(byText),
  )
}, 300_000)

test('what a container prints of its secrets as it dies is not repeated by the command or the controller', async () => {
  // Its own log has it: it is its own doing.
  const text = readFileSync(join(folder, 'agents.yaml'), 'utf8')
  writeFileSync(
    join(folder, 'agents.yaml'),
    text.replace(
      'services:\n',
      `services:\n  tells:\n    image: "agentctl/agent:${VERSION}"\n    entrypoint: ["sh", "-c", "cat /run/secrets/file; base64 -w0 /run/secrets/file; exit 4"]\n    secrets: [file]\n    healthcheck: { test: ["CMD", "true"] }\n`,
    ),
  )
  const { code, stderr } = await cli(['up', '-d'])
  expect([code, stderr]).toEqual([3, expect.stringContaining('AG4009')])
  expect(stderr).toContain('[secret file]')
  for (const form of forms(canary.file)) expect(stderr).not.toContain(form)
  await eventually(async () => (await run('docker', ['logs', `${name}-tells-1`])).includes(canary.file), 'it has printed it')
  const controller = await sh('docker logs "$1" 2>&1', `${name}-agentctl-controller-1`)
  for (const form of forms(canary.file)) expect(controller).not.toContain(form)
}, 120_000)

const byText = (a: unknown, b: unknown): number => (shown(a) < shown(b) ? -1 : 1)
/** A matcher stands where what it matches would. */
const shown = (value: unknown): string => (typeof value === 'string' ? value : `${name}-user-1~/`)
