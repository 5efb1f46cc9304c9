/** The Debian that the images start from: the engine's, the registry's, or one made here. */
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { existsSync } from 'node:fs'
import { AgentctlError } from '../errors.ts'
import type { ContainerRuntime } from '../ports.ts'

export const PUBLISHED = 'debian:bookworm-slim'
const OWN = 'agentctl/debian:bookworm'
const SUITE = 'bookworm'
const DEBOOTSTRAP_TIMEOUT_MS = 600_000
const PULL_TIMEOUT_MS = 300_000
const TAIL_LINES = 20
/** What docker-slim images leave out too. */
const LEFT_OUT = [
  './var/cache/apt/*',
  './var/lib/apt/lists/*',
  './usr/share/doc/*',
  './usr/share/man/*',
  './usr/share/info/*',
  './usr/share/locale/*',
  './dev/*',
]

export interface DebianOptions {
  readonly emit: (message: string) => void
  readonly signal: AbortSignal
}

export async function ensureDebian(runtime: ContainerRuntime, options: DebianOptions): Promise<string> {
  const { emit, signal } = options
  for (const reference of [PUBLISHED, OWN]) if ((await runtime.image(reference, signal)) !== null) return reference
  emit(`Pulling ${PUBLISHED}`)
  const pulled = await pull(runtime, signal)
  if (pulled === null) return PUBLISHED
  emit(`No registry answers; making Debian ${SUITE} with debootstrap (about 30 s)`)
  await bootstrap(runtime, options, pulled)
  return OWN
}

/** null: it is there; else why not. */
async function pull(runtime: ContainerRuntime, signal: AbortSignal): Promise<AgentctlError | null> {
  try {
    await runtime.pullImage(PUBLISHED, AbortSignal.any([signal, AbortSignal.timeout(PULL_TIMEOUT_MS)]))
    return null
  } catch (error) {
    if (signal.aborted || !(error instanceof AgentctlError) || error.code === 'AG4001') throw error
    return error
  }
}

async function bootstrap(runtime: ContainerRuntime, { emit, signal }: DebianOptions, pulled: AgentctlError): Promise<void> {
  const hasProgram = ['/usr/sbin', ...(process.env['PATH'] ?? '').split(delimiter)].some((folder) =>
    existsSync(join(folder, 'debootstrap')),
  )
  const command = `sudo debootstrap --variant=minbase ${SUITE} /tmp/rootfs && sudo tar -C /tmp/rootfs -c . | docker import - ${OWN}`
  if (!hasProgram || process.getuid?.() !== 0) {
    const missing = hasProgram ? 'making one here needs root' : 'debootstrap is not installed'
    throw new AgentctlError('AG4013', `No base image: ${pulled.message}; ${missing}`, {
      hint: `Let the engine reach a registry, or run once: ${hasProgram ? '' : 'sudo apt-get install -y debootstrap && '}${command}`,
      cause: pulled,
    })
  }
  const folder = await mkdtemp(join(tmpdir(), 'agentctl-debian-'))
  try {
    await run('debootstrap', ['--variant=minbase', SUITE, folder], AbortSignal.any([signal, AbortSignal.timeout(DEBOOTSTRAP_TIMEOUT_MS)]))
    emit(`Importing ${OWN}`)
    const tar = spawn('tar', ['-C', folder, ...LEFT_OUT.map((path) => `--exclude=${path}`), '-c', '.'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      signal,
    })
    const failed = new Promise<never>((_, reject) => {
      tar.once('error', reject)
      tar.once(
        'exit',
        (code) => code !== 0 && reject(new AgentctlError('AG4013', `tar of ${folder} ended with ${code}`, { hint: 'Is the disk full?' })),
      )
    })
    failed.catch(() => undefined)
    await Promise.race([runtime.importImage(tar.stdout, OWN, signal), failed])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function run(program: string, args: readonly string[], signal: AbortSignal): Promise<void> {
  const lines: string[] = []
  const environment = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment, signal })
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      lines.push(...text.split('\n').filter((line) => line !== ''))
      lines.splice(0, Math.max(0, lines.length - TAIL_LINES))
    })
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code === 0) return
  throw new AgentctlError('AG4013', [`${program} ${args.join(' ')} ended with ${code}`, ...lines.map((line) => `  ${line}`)].join('\n'), {
    hint: 'Can this machine reach deb.debian.org? HTTP_PROXY is honoured.',
  })
}
