import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { shellEnv } from '../support/tarball.ts'

// The real bin.js with a command behind it that says what reached it.
const MAIN = `
export async function main(argv) {
  process.on('SIGINT', () => console.log('got SIGINT'))
  process.on('SIGTERM', () => { console.log('got SIGTERM'); process.exit(9) })
  if (argv[0] === 'die') process.kill(process.pid, 'SIGKILL')
  console.log(JSON.stringify({ argv, pid: process.pid, node: process.versions.node, isBuilt: import.meta.url.includes('/dist/') }))
  if (argv[0] === 'wait') await new Promise((resolve) => setTimeout(resolve, 20_000))
  return 3
}
`
const dirs: string[] = []
afterAll(() => dirs.forEach((dir) => rmSync(dir, { recursive: true, force: true })))

function installation(
  parts: { readonly hasNode?: boolean; readonly below?: string; readonly hasSource?: boolean; readonly hasDist?: boolean } = {},
): string {
  const top = mkdtempSync(join(tmpdir(), 'agentctl-bin-'))
  dirs.push(top)
  const dir = join(top, parts.below ?? 'checkout')
  mkdirSync(join(dir, 'engine/cli'), { recursive: true })
  cpSync('engine/cli/bin.js', join(dir, 'engine/cli/bin.js'))
  writeFileSync(join(dir, 'package.json'), '{ "type": "module" }')
  if (parts.hasSource !== false) writeFileSync(join(dir, 'engine/cli/main.ts'), MAIN)
  if (parts.hasDist === true) {
    mkdirSync(join(dir, 'dist/engine/cli'), { recursive: true })
    writeFileSync(join(dir, 'dist/engine/cli/main.js'), MAIN)
  }
  if (parts.hasNode !== false) {
    mkdirSync(join(dir, 'node_modules'))
    const name = `node-${process.platform}-${process.arch}`
    symlinkSync(join(process.cwd(), 'node_modules', name), join(dir, 'node_modules', name))
  }
  return join(dir, 'engine/cli/bin.js')
}

interface Run {
  readonly child: ChildProcess
  readonly said: () => string
  readonly until: (text: string) => Promise<void>
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

function run(bin: string, args: readonly string[], node: string): Run {
  // A session of its own: no terminal that would send the signal to the child as well.
  const child = spawn(node, [bin, ...args], { env: shellEnv(), stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let text = ''
  child.stdout.on('data', (chunk) => (text += String(chunk)))
  child.stderr.on('data', (chunk) => (text += String(chunk)))
  const until = async (wanted: string): Promise<void> => {
    while (!text.includes(wanted)) {
      if (child.exitCode !== null) throw new Error(`ended without "${wanted}": ${text}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  const ended = once(child, 'close').then(([code, signal]: unknown[]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }))
  return { child, said: () => text, until, ended }
}

const systemNode = execFileSync('/bin/sh', ['-c', 'command -v node'], { env: shellEnv(), encoding: 'utf8' }).trim()
const systemVersion = execFileSync(systemNode, ['--version'], { encoding: 'utf8' }).trim()
const isOld = /^v(1\d|20|21)\./.test(systemVersion)
const oldNode = (name: string, body: () => Promise<void>): void =>
  test(name, async (context) => {
    if (!isOld) context.skip(`the node on PATH is ${systemVersion}, which needs no other`)
    await body()
  })

test('a checkout runs its source although an older build lies beside it', async () => {
  const process_ = run(installation({ hasDist: true }), ['a', 'b c'], process.execPath)
  expect(await process_.ended).toMatchObject({ code: 3 })
  expect(JSON.parse(process_.said())).toMatchObject({ argv: ['a', 'b c'], isBuilt: false })
})

test('an installed package runs its build', async () => {
  const process_ = run(installation({ hasDist: true, below: 'node_modules/@agentctl/cli' }), [], process.execPath)
  expect(await process_.ended).toMatchObject({ code: 3 })
  expect(JSON.parse(process_.said())).toMatchObject({ isBuilt: true })
})

test('an installation without its build says so', async () => {
  const process_ = run(installation({ hasSource: false }), [], process.execPath)
  expect(await process_.ended).toMatchObject({ code: 1 })
  expect(process_.said()).toContain('this installation is incomplete')
})

oldNode(`a Node that is too old (${systemVersion} here) gives way to the one of the package; arguments and exit code pass`, async () => {
  const process_ = run(installation(), ['a', 'b c'], systemNode)
  expect(await process_.ended).toMatchObject({ code: 3 })
  expect(JSON.parse(process_.said())).toMatchObject({ argv: ['a', 'b c'], node: process.versions.node })
})

oldNode('signals reach the command, and its death by a signal is the death of the whole', async () => {
  const waiting = run(installation(), ['wait'], systemNode)
  await waiting.until('"pid"')
  waiting.child.kill('SIGINT')
  await waiting.until('got SIGINT')
  waiting.child.kill('SIGTERM')
  expect(await waiting.ended).toMatchObject({ code: 9 })
  const dying = run(installation(), ['die'], systemNode)
  expect(await dying.ended).toMatchObject({ signal: 'SIGKILL' })
})

oldNode('nobody is left behind when the outer process is killed with -9', async () => {
  const process_ = run(installation(), ['wait'], systemNode)
  await process_.until('"pid"')
  const { pid } = JSON.parse(process_.said()) as { pid: number }
  process_.child.kill('SIGKILL')
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false)
})

oldNode('without a Node in the package the message says which one is needed', async () => {
  const process_ = run(installation({ hasNode: false }), [], systemNode)
  expect(await process_.ended).toMatchObject({ code: 1 })
  expect(process_.said()).toMatch(/Node 20\.\S+ is too old: it needs Node 22\.18 or newer/)
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
