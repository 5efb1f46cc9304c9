import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const TOOLS = ['sh', 'dirname', 'cat', 'rm', 'mkdir', 'sleep', 'cut', 'tail', 'setsid', 'env']

/** An engine that answers the two questions that set-up asks, until its parent's time is over. */
const ENGINE = `#!${process.execPath}
const images = process.env.FAKE_IMAGES || '[]'
require('http').createServer((request, response) => response.end(request.url === '/_ping' ? 'OK' : images))
  .listen(process.env.AGENTCTL_SETUP_ROOT + '/var/run/docker.sock')
setTimeout(() => process.exit(0), 20000)
`

export interface SetupResult {
  readonly code: number
  readonly output: string
  /** What the stubs were called with, in order. */
  readonly calls: readonly string[]
}

/** A folder that stands in for / and a PATH with nothing but stubs and a few tools: what set-up sees of a machine. */
export class FakeMachine implements Disposable {
  readonly dir: string = mkdtempSync(join(tmpdir(), 'agentctl-machine-'))
  readonly bin: string = join(this.dir, 'bin')
  readonly checkout: string = join(this.dir, 'checkout')

  constructor(facts: { readonly uid?: number; readonly system?: string } = {}) {
    for (const folder of ['bin', 'var/run', 'var/log', 'home', 'checkout/.ci']) mkdirSync(join(this.dir, folder), { recursive: true })
    for (const tool of TOOLS)
      symlinkSync(execFileSync('/bin/sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), join(this.bin, tool))
    symlinkSync(process.execPath, join(this.bin, 'node'))
    symlinkSync('/proc', join(this.dir, 'proc'))
    for (const file of ['setup', 'engine.cjs', 'modules-current.cjs']) cpSync(join(root, '.ci', file), join(this.checkout, '.ci', file))
    this.stub('id', `echo ${facts.uid ?? 0}`)
    this.stub('uname', `echo ${facts.system ?? 'Linux'}`)
    this.stub('npm', 'mkdir -p node_modules && cat package-lock.json >node_modules/.package-lock.json')
    this.write('checkout/.ci/node', '#!/bin/sh\necho v24\n', 0o755)
    this.write('checkout/package-lock.json', JSON.stringify({ packages: {} }))
    this.write('checkout/node_modules/.package-lock.json', JSON.stringify({ packages: {} }))
  }

  /** A command that notes how it was called, then runs `body`. */
  stub(name: string, body = ''): this {
    const isQuestion = ['id', 'uname', 'dpkg-query'].includes(name)
    const note = isQuestion ? '' : `echo "${name} $*" >>"${this.dir}/calls"\n`
    return this.write(`bin/${name}`, `#!/bin/sh\n${note}${body}\n`, 0o755)
  }

  /** `dockerd` as a program that answers; `apt` installs it. */
  engine(where = 'bin'): this {
    return this.write(`${where}/dockerd`, ENGINE, 0o755)
  }

  apt(): this {
    this.engine('packages')
    this.stub('dpkg-query', 'exit 1')
    return this.stub(
      'apt-get',
      `case "$*" in *docker.io*) cat "${this.dir}/packages/dockerd" >"${this.bin}/dockerd"; "${this.chmod()}" 755 "${this.bin}/dockerd";; esac`,
    )
  }

  write(path: string, text: string, mode = 0o644): this {
    const file = join(this.dir, path)
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, text)
    chmodSync(file, mode)
    return this
  }

  has(path: string): boolean {
    return existsSync(join(this.dir, path))
  }

  /** Starts the fake engine before set-up runs: the machine of someone who has one. */
  async running(images: readonly string[] = ['debian:bookworm-slim']): Promise<this> {
    this.engine('elsewhere')
    const env = { AGENTCTL_SETUP_ROOT: this.dir, FAKE_IMAGES: JSON.stringify([{ RepoTags: images }]) }
    spawn(join(this.dir, 'elsewhere/dockerd'), { env, stdio: 'ignore', detached: true }).unref()
    while (!this.has('var/run/docker.sock')) await new Promise((resolve) => setTimeout(resolve, 10))
    return this
  }

  /** `typed`: what a person at the terminal types; without it there is no terminal. */
  async setup(
    args: readonly string[] = [],
    options: { readonly typed?: string; readonly env?: NodeJS.ProcessEnv } = {},
  ): Promise<SetupResult> {
    const env = { PATH: this.bin, HOME: join(this.dir, 'home'), AGENTCTL_SETUP_ROOT: this.dir, ...options.env }
    const script = join(this.checkout, '.ci/setup')
    const child =
      options.typed === undefined
        ? spawn('/bin/sh', [script, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
        : spawn('/usr/bin/script', ['-qec', ['/bin/sh', script, ...args].join(' '), '/dev/null'], { env: { ...env, SHELL: '/bin/sh' } })
    if (options.typed !== undefined) child.stdin?.end(options.typed)
    let output = ''
    child.stdout?.on('data', (chunk) => (output += String(chunk)))
    child.stderr?.on('data', (chunk) => (output += String(chunk)))
    const code = await new Promise<number>((resolve) => child.on('close', (status) => resolve(status ?? -1)))
    const calls = this.has('calls') ? readFileSync(join(this.dir, 'calls'), 'utf8').trim().split('\n') : []
    return { code, output: output.replaceAll('\r', '').replaceAll(this.dir, ''), calls }
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true })
  }

  private chmod(): string {
    return execFileSync('/bin/sh', ['-c', 'command -v chmod'], { encoding: 'utf8' }).trim()
  }
}
