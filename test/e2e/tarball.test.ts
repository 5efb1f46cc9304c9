/** The packed tarball, installed into an empty folder: a project comes up from what the package holds, works, and goes. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type Installed, installTarball, type Output, sh, shellEnv } from '../support/tarball.ts'
import { leftovers, run } from './cli-process.ts'

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** One agent on the packaged runtime, with a handler of its own. */
function projectIn(parent: string): { readonly name: string; readonly folder: string } {
  const name = `t-tarball-${Math.random().toString(36).slice(2, 8)}`
  const folder = mkdtempSync(join(parent, 'project-'))
  folders.push(folder)
  mkdirSync(join(folder, 'app'))
  writeFileSync(
    join(folder, 'agents.yaml'),
    `name: ${name}\nagents:\n  counter: { handler: { module: ./app/count.ts }, mem_limit: 128m }\n`,
  )
  writeFileSync(
    join(folder, 'app/count.ts'),
    "import type { Context } from '@agentctl/cli/agent'\nexport default async (input: { text: string }, _ctx: Context) => ({ words: input.text.split(' ').length })\n",
  )
  return { name, folder }
}

const must = ({ code, stdout, stderr }: Output): string => {
  expect(code, stdout + stderr).toBe(0)
  return stdout
}

/** Up, one task, down; `call` is the command as this kind of user types it. */
async function worksIn(
  { name, folder }: { readonly name: string; readonly folder: string },
  call: (...args: readonly string[]) => Promise<Output>,
): Promise<readonly string[]> {
  try {
    const up = JSON.parse(must(await call('up', '-d', '--format', 'json')))
    expect(up).toMatchObject({ project: name, ok: true, status: 'running' })
    const task = JSON.parse(must(await call('task', 'counter', '{"text": "from a tarball"}', '--format', 'json')))
    expect(task).toMatchObject({ agent: 'counter', status: 'completed', result: { words: 3 } })
    expect(JSON.parse(must(await call('plan', '--format', 'json')))).toEqual({ project: name, steps: [] })
    return [...new Set((up.containers as { image: string }[]).map(({ image }) => image))].sort()
  } finally {
    must(await call('down', '-v'))
    expect(await leftovers(name), folder).toEqual([])
  }
}

async function withInstalled<T>(isGlobal: boolean, act: (installed: Installed) => Promise<T>): Promise<T> {
  using installed = await installTarball({ isGlobal })
  // Nothing there could bundle sources, and there are none: the images come from the prebuilt programs.
  expect(existsSync(join(installed.packageDir, '..', '..', 'esbuild'))).toBe(false)
  expect(existsSync(join(installed.packageDir, 'node_modules', 'esbuild'))).toBe(false)
  expect(existsSync(join(installed.packageDir, 'engine', 'gateway'))).toBe(false)
  return await act(installed)
}

test('installed in a project: npx agentctl brings it up with images built from the package', async () => {
  await withInstalled(false, async (installed) => {
    const project = projectIn(installed.dir)
    const [command, ...first] = installed.npm
    const npx = (...args: readonly string[]): Promise<Output> =>
      sh(command, [...first, 'exec', '--', 'agentctl', ...args], { cwd: project.folder, env: shellEnv() })
    const images = await worksIn(project, npx)
    expect(images).toEqual([
      expect.stringMatching(/^agentctl\/agent:[0-9a-f]{12}$/),
      expect.stringMatching(/^agentctl\/engine:[0-9a-f]{12}$/),
    ])
    const doctor = JSON.parse(must(await npx('doctor', '--format', 'json'))) as { checks: { id: string; status: string; found: string }[] }
    expect(
      doctor.checks
        .filter(({ id }) => id.startsWith('image-'))
        .map(({ status, found }) => `${status} ${found}`)
        .sort(),
    ).toEqual(images.map((image) => `ok ${image}`))
    // No test leaves images of its own behind.
    await run('docker', ['rmi', ...images]).catch(() => undefined)
  })
})

test('installed with -g, from any folder, found through PATH', async () => {
  await withInstalled(true, async (installed) => {
    const project = projectIn(mkdtempSync(join(tmpdir(), 't-tarball-')))
    const env = shellEnv()
    const path = `${join(installed.dir, 'bin')}:${env['PATH'] ?? ''}`
    await worksIn(project, (...args) => sh('agentctl', args, { cwd: project.folder, env: { ...env, PATH: path } }))
  })
})
