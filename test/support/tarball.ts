import { execFile } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const COMMAND_MS = 180_000

export interface Output {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** The environment of somebody's shell: without npm's variables and without the Node and the tools of this checkout. */
export function shellEnv(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|INIT_CWD$|NODE_|VITEST|VITE_|TEST$|DEV$|PROD$|MODE$|BASE_URL$|SSR$)/.test(name),
  )
  const path = (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => !folder.includes('node_modules') && !folder.includes('node-gyp-bin'))
  return { ...Object.fromEntries(own), PATH: path.join(delimiter), ...extra }
}

/** Runs to its end whatever the exit code; only a command that cannot be started throws. */
export async function sh(
  command: string,
  args: readonly string[],
  options: { readonly cwd: string; readonly env?: NodeJS.ProcessEnv },
): Promise<Output> {
  return await new Promise((resolve, reject) => {
    const env = options.env ?? shellEnv()
    execFile(command, args, { cwd: options.cwd, env, timeout: COMMAND_MS, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr })
      else reject(new Error(`${command} ${args.join(' ')}: ${error.message}\n${stderr}`))
    })
  })
}

async function must(command: string, args: readonly string[], cwd: string, env?: NodeJS.ProcessEnv): Promise<string> {
  const { code, stdout, stderr } = await sh(command, args, env === undefined ? { cwd } : { cwd, env })
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}\n${stdout}${stderr}`)
  return stdout
}

const npms = new Map<number, Promise<readonly [string, ...string[]]>>()

/** An npm of a given major version as a command line: the machine's own, or one from the registry, run by our Node. */
export async function npmOf(major: 11 | 12): Promise<readonly [string, ...string[]]> {
  const known = npms.get(major) ?? findNpm(major)
  npms.set(major, known)
  return await known
}

async function findNpm(major: number): Promise<readonly [string, ...string[]]> {
  const own = await must('npm', ['--version'], ROOT)
  if (own.startsWith(`${major}.`)) return ['npm']
  const folder = scratchFolder(`agentctl-npm-${major}-`)
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  await must('npm', ['install', '--no-save', '--prefer-offline', '--loglevel=error', `npm@${major}`], folder)
  return [process.execPath, join(folder, 'node_modules/npm/bin/npm-cli.js')]
}

const scratch: string[] = []
afterAll(() => {
  for (const folder of scratch) rmSync(folder, { recursive: true, force: true })
})

function scratchFolder(prefix: string): string {
  const folder = mkdtempSync(join(tmpdir(), prefix))
  scratch.push(folder)
  return folder
}

let packed: Promise<string> | undefined

/** Builds and packs this checkout, once for each test file; returns the tarball's path. */
export async function packTarball(): Promise<string> {
  packed ??= (async () => {
    const folder = scratchFolder('agentctl-pack-')
    await must('npm', ['pack', '--pack-destination', folder, '--loglevel=error'], ROOT)
    const [name] = globSync('*.tgz', { cwd: folder })
    if (name === undefined) throw new Error('npm pack made no tarball')
    return join(folder, name)
  })()
  return await packed
}

export interface Installed extends Disposable {
  /** The folder that was empty; with `isGlobal` the prefix. */
  readonly dir: string
  /** The command as the shell finds it. */
  readonly bin: string
  readonly npm: readonly [string, ...string[]]
  readonly packageDir: string
  /** Runs the command with this machine's own Node first on PATH, in `dir`. */
  run(...args: string[]): Promise<Output>
}

/** Installs the packed checkout into an empty folder, as a user would. */
export async function installTarball(options: { readonly npm?: 11 | 12; readonly isGlobal?: boolean } = {}): Promise<Installed> {
  const tarball = await packTarball()
  const scratch = mkdtempSync(join(tmpdir(), 'agentctl-install-'))
  try {
    const npm = options.npm === undefined ? (['npm'] as const) : await npmOf(options.npm)
    const dir = join(scratch, 'empty')
    mkdirSync(dir)
    if (options.isGlobal !== true) writeFileSync(join(dir, 'package.json'), '{ "private": true }\n')
    const where = options.isGlobal === true ? ['--global', '--prefix', dir] : []
    const [command, ...first] = npm
    await must(command, [...first, 'install', ...where, '--prefer-offline', '--loglevel=error', tarball], dir)
    const packageDir = join(dir, options.isGlobal === true ? 'lib' : '', 'node_modules/@agentctl/cli')
    const bin = join(dir, options.isGlobal === true ? 'bin/agentctl' : 'node_modules/.bin/agentctl')
    if (!existsSync(bin)) throw new Error(`the installation has no ${bin}`)
    return {
      dir,
      bin,
      npm,
      packageDir,
      run: async (...args) => await sh(bin, args, { cwd: dir }),
      [Symbol.dispose]: () => rmSync(scratch, { recursive: true, force: true }),
    }
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true })
    throw error
  }
}
