/** Bad input of which nothing may come: a clear error, one JSON document, no stack trace, and nothing made on the engine. */
import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { images } from '../support/docker.ts'
import { agentctl, leftovers, type Options, projectFolder, type Result } from './cli-process.ts'

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

const STACK = /\n\s+at .+:\d+:\d+/

interface Bad {
  readonly name: string
  readonly folder: string
  readonly result: Result
}

/** `up` of a file that must come to nothing. */
async function badUp(
  yaml: string | ((name: string) => string),
  files: { readonly [path: string]: string } = {},
  options: Options & { readonly prepare?: (folder: string) => void } = {},
): Promise<Bad> {
  const { name, folder } = projectFolder('t-bad', (project) => ({
    'agents.yaml': `name: ${project}\n${typeof yaml === 'string' ? yaml : yaml(project)}`,
    ...files,
  }))
  folders.push(folder)
  options.prepare?.(folder)
  const result = await agentctl(['up', '-d', '--format', 'json'], { ...options, cwd: folder })
  expect(result.stdout + result.stderr).not.toMatch(STACK)
  expect(await leftovers(name)).toEqual([])
  return { name, folder, result }
}

interface Problem {
  readonly code: string
  readonly message: string
  readonly file: string
  readonly line: number
  readonly column: number
  readonly help: string
}

/** Problems of the file: exit 2, and each has a place. */
function problems({ result }: Bad): readonly Problem[] {
  expect(result.code, result.stdout + result.stderr).toBe(2)
  const { diagnostics } = result.json() as { diagnostics: readonly Problem[] }
  for (const { file, line, column } of diagnostics) {
    expect(file).toMatch(/agents\.yaml$/)
    expect([line > 0, column > 0]).toEqual([true, true])
  }
  return diagnostics
}

const failure = ({ result }: Bad, exit = 1): { code: string; message: string; hint: string } => {
  expect(result.code, result.stdout + result.stderr).toBe(exit)
  return result.json().error as { code: string; message: string; hint: string }
}

const FILES: readonly (readonly [what: string, code: string, line: number, yaml: string, says: RegExp])[] = [
  ['an unknown key', 'AG1004', 4, 'agents:\n  a:\n    handlr: exec\n', /handlr/],
  ['a wrong type', 'AG1005', 5, 'agents:\n  a:\n    handler: exec\n    replicas: many\n', /replicas|integer|number/],
  [
    'a key that stands twice',
    'AG1003',
    5,
    'agents:\n  a: { handler: exec }\n  b: { handler: exec }\n  a: { handler: exec }\n',
    /"a"|twice/,
  ],
  ['no YAML', 'AG1002', 4, 'agents:\n  a: { handler: exec\n', /./],
  [
    'a cycle of dependencies',
    'AG2002',
    3,
    'agents:\n  a: { handler: exec, depends_on: [b] }\n  b: { handler: exec, depends_on: [a] }\n',
    /a.*b|b.*a/,
  ],
  [
    'a cycle of jobs',
    'AG2002',
    6,
    'agents:\n  a: { handler: exec }\npipelines:\n  p:\n    jobs: { x: { agent: a, needs: [y] }, y: { agent: a, needs: [x] } }\n',
    /x.*y|y.*x/,
  ],
  ['a key of Compose that is not built yet', 'AG1006', 3, 'agents:\n  a: { handler: exec, build: . }\n', /build/],
  ['a way out of the sandbox', 'AG3001', 3, 'agents:\n  a: { handler: exec, privileged: true }\n', /privileged/],
  ['an agent that nobody declared', 'AG2001', 3, 'agents:\n  a: { handler: exec, delegates_to: [bb] }\n', /bb/],
]

test.each(FILES)('%s: %s with its place', async (_what, code, line, yaml, says) => {
  const [first] = problems(await badUp(yaml))
  expect(first).toMatchObject({ code, line })
  expect(first?.message).toMatch(says)
})

test('all problems of a file are told at once, as text with an excerpt', async () => {
  const { folder } = await badUp('agents:\n  a: { handlr: exec, replicas: many }\n  b: { handler: exec, delegates_to: [nobody] }\n')
  const { code, stdout, stderr } = await agentctl(['up', '-d'], { cwd: folder })
  expect([code, stdout]).toEqual([2, ''])
  expect(stderr).toContain('AG1004')
  expect(stderr).toContain('AG1005')
  expect(stderr).toMatch(/agents\.yaml:3:\d+/)
  expect(stderr).toMatch(/╵ +[~^]+$/m)
})

test('an image that is nowhere fails fast and by name', async () => {
  const begin = performance.now()
  // Nothing listens on port 1: as fast on a machine that reaches a registry.
  const bad = await badUp('agents:\n  a: { handler: exec }\n  b: { image: "localhost:1/nowhere:1" }\n')
  expect(failure(bad)).toMatchObject({ code: 'AG4003', message: expect.stringContaining('localhost:1/nowhere:1') })
  expect(performance.now() - begin).toBeLessThan(25_000)
})

test('what the host must have: a bind source, a secret; every problem at once, each with its place', async () => {
  const found = problems(
    await badUp(
      `agents:
  a: { handler: exec, volumes: [./nowhere:/data:ro] }
  b: { handler: exec, volumes: [./closed:/data:ro], secrets: [token] }
  c: { handler: exec, secrets: [key] }
secrets:
  token: { environment: T_BAD_UNSET }
  key: { file: ./no-key }
`,
      { closed: 'x' },
      { prepare: (folder) => chmodSync(join(folder, 'closed'), 0o600) },
    ),
  )
  const owner = process.getuid?.() ?? 0
  expect(found.map(({ code, line }) => [code, line])).toEqual(
    expect.arrayContaining([
      ['AG3002', 3],
      ['AG3002', 4],
      ['AG3003', 7],
      ['AG3003', 8],
    ]),
  )
  expect(found).toHaveLength(4)
  expect(found.find(({ line }) => line === 4)?.message).toMatch(
    new RegExp(`/closed cannot be read by uid 10001: it belongs to uid ${owner}, mode 600`),
  )
  expect(found.find(({ line }) => line === 7)?.message).toContain('T_BAD_UNSET')
})

test('no engine: AG4001 at once, and what was tried', async () => {
  const socket = join(tmpdir(), 't-bad-nowhere.sock')
  const bad = await badUp('agents:\n  a: { handler: exec }\n', {}, { environment: { DOCKER_HOST: `unix://${socket}` } })
  const { code, message, hint } = failure(bad)
  expect([code, message]).toEqual(['AG4001', expect.stringContaining(socket)])
  expect(hint).toContain('ENOENT')
  for (const verb of [['ps'], ['down'], ['task', 'a', '{}'], ['plan'], ['logs'], ['exec', 'a', 'true']]) {
    const result = await agentctl(['-p', bad.name, ...verb, '--format', 'json'], {
      cwd: bad.folder,
      environment: { DOCKER_HOST: `unix://${socket}` },
    })
    expect([verb[0], result.code, result.json().error.code]).toEqual([verb[0], 1, 'AG4001'])
  }
})

test('a socket that this user may not open: AG4002 and how to be let in', async () => {
  await using socket = await closedSocket()
  const bad = await badUp(
    'agents:\n  a: { handler: exec }\n',
    {},
    { environment: { DOCKER_HOST: `unix://${socket.path}` }, wrap: unprivileged() },
  )
  expect(failure(bad)).toMatchObject({
    code: 'AG4002',
    message: expect.stringContaining(socket.path),
    hint: expect.stringContaining('group'),
  })
  const doctor = await agentctl(['doctor', '--format', 'json'], {
    cwd: bad.folder,
    environment: { DOCKER_HOST: `unix://${socket.path}` },
    wrap: unprivileged(),
  })
  expect(doctor.code).toBe(1)
  expect(doctor.json().checks).toContainEqual(
    expect.objectContaining({ id: 'socket', status: 'fail', fix: expect.stringContaining('usermod') }),
  )
})

test('a project file that cannot be read, or is none', async () => {
  const { folder, name } = await badUp(
    'agents: {}\n',
    {},
    { prepare: (it) => chmodSync(join(it, 'agents.yaml'), 0o000), wrap: unprivileged() },
  )
  for (const [args, code] of [
    [['config'], 'AG1001'],
    [['-f', 'nowhere.yaml', 'up', '-d'], 'AG1001'],
    [['-f', '.', 'up', '-d'], 'AG1001'],
  ] as const) {
    const result = await agentctl([...args, '--format', 'json'], { cwd: folder, wrap: unprivileged() })
    const document = result.json()
    expect([args, result.code, document.error?.code ?? document.diagnostics[0].code]).toEqual([args, 2, code])
    expect(result.stderr).not.toMatch(STACK)
  }
  const empty = mkdtempSync(join(tmpdir(), 't-bad-'))
  folders.push(empty)
  const nothing = await agentctl(['up', '-d', '--format', 'json'], { cwd: empty })
  expect([nothing.code, nothing.json().error.code]).toEqual([2, 'AG1009'])
  expect(await leftovers(name)).toEqual([])
})

test('verbs on a project that does not exist: AG4012, exit 2; down has nothing to do', async () => {
  const name = `t-bad-nobody-${process.pid}`
  const verbs = [
    ['logs'],
    ['exec', 'a', 'true'],
    ['scale', 'a=2'],
    ['stop'],
    ['start'],
    ['restart'],
    ['task', 'a', '{}'],
    ['run', 'p'],
    ['runs', 'ls'],
    ['cp', 'a:/x', '.'],
  ]
  for (const verb of verbs) {
    const result = await agentctl(['-p', name, ...verb, '--format', 'json'], { cwd: tmpdir() })
    expect([verb[0], result.code, result.json().error?.code]).toEqual([verb[0], 2, 'AG4012'])
    expect(result.stderr).not.toMatch(STACK)
  }
  const ps = await agentctl(['-p', name, 'ps', '--format', 'json'], { cwd: tmpdir() })
  expect([ps.code, ps.json()]).toEqual([0, { project: name, status: 'stopped', containers: [] }])
  const down = await agentctl(['-p', name, 'down', '-v', '--format', 'json'], { cwd: tmpdir() })
  expect([down.code, down.json()]).toMatchObject([0, { ok: true, changes: 0 }])
})

test('a port of the host that somebody listens on: AG4004, nothing made', async () => {
  await using taken = await listening()
  const { agent } = await images()
  const bad = await badUp(
    `agents:\n  a: { handler: exec }\nservices:\n  web: { image: "${agent}", entrypoint: [sleep, infinity], ports: ["127.0.0.1:${taken.port}:80"] }\n`,
  )
  expect(failure(bad)).toMatchObject({ code: 'AG4004', message: expect.stringContaining(`127.0.0.1:${taken.port}`) })
})

/** A server that nobody may talk to. */
async function closedSocket(): Promise<{ readonly path: string } & AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), 't-bad-'))
  folders.push(folder)
  const path = join(folder, 'engine.sock')
  const server = createServer()
  await new Promise<void>((done) => server.listen(path, done))
  chmodSync(path, 0o000)
  chmodSync(folder, 0o755)
  return { path, [Symbol.asyncDispose]: () => closed(server) }
}

async function listening(): Promise<{ readonly port: number } & AsyncDisposable> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { port: address.port, [Symbol.asyncDispose]: () => closed(server) }
}

const closed = (server: Server): Promise<void> => new Promise((done) => void server.close(() => done()))

/**
 * Modes count for everybody but root. As root the command runs as the owner of this checkout (which others may not be able to read),
 * or, where that is root too, without the capabilities that overrule modes.
 */
function unprivileged(): readonly string[] {
  if (process.getuid?.() !== 0) return []
  const { uid, gid } = statSync(import.meta.dirname)
  if (uid !== 0) return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
  const modes = '-dac_override,-dac_read_search'
  return ['setpriv', `--bounding-set=${modes}`, `--inh-caps=${modes}`]
}
