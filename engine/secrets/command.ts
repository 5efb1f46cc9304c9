/** A secret from a program: `op read`, `vault kv get`, `sops -d`, `age -d`, `pass`. No shell, a small environment, bounds of time and size. */
import { spawn } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import type { Secret } from '../../spec/model.ts'

type CommandSecret = Extract<Secret, { kind: 'command' }>
type Environment = { readonly [name: string]: string | undefined }

/** Where programs are, and what password managers find the user's own files by. */
const ALWAYS = ['PATH', 'HOME', 'USER'] as const
/** To end in good order, after a SIGTERM. */
const GRACE_MS = 500

export interface CommandOptions {
  readonly environment: Environment
  readonly signal: AbortSignal
  readonly note: (message: string) => void
}

interface Problem {
  readonly message: string
  readonly help: string
}

/** The value, or why there is none. What the program printed is in neither: an error may quote the secret. */
export async function runCommand(secret: CommandSecret, { environment, signal, note }: CommandOptions): Promise<Buffer | Problem> {
  const [name = ''] = secret.argv
  const program = isAbsolute(name) ? executable(name) : onPath(name, environment['PATH'] ?? '')
  const who = `the command of secret "${secret.name}"`
  if (program === null) {
    return isAbsolute(name)
      ? { message: `${who}: ${name} is no program that you may run`, help: 'Correct the path.' }
      : { message: `${who}: there is no program "${name}" on PATH`, help: 'Install it, or write its whole path.' }
  }
  if (!isAbsolute(name)) note(`secret ${secret.name} comes from ${program}`)
  const ended = await run(secret, program, environment, signal)
  const shown = isAbsolute(name) ? program : `${name} (${program})`
  const missing = secret.pass_env.filter((variable) => environment[variable] === undefined)
  const help = `Run it by hand in ${secret.working_dir} to see what it says.${missing.length === 0 ? '' : ` Not set: ${missing.join(', ')}.`}`
  switch (ended.kind) {
    case 'failed':
      return { message: `${who}: ${shown} ${ended.why}`, help }
    case 'large':
      return {
        message: `${who}: ${shown} printed more than ${secret.max_size} bytes`,
        help: 'Let it print the value alone, or raise max_size.',
      }
    case 'done':
      return ended.value.length > 0 ? ended.value : { message: `${who}: ${shown} printed nothing`, help }
  }
}

type Ended =
  | { readonly kind: 'done'; readonly value: Buffer }
  | { readonly kind: 'large' }
  | { readonly kind: 'failed'; readonly why: string }

function run(secret: CommandSecret, program: string, environment: Environment, signal: AbortSignal): Promise<Ended> {
  const names = [...ALWAYS, ...secret.pass_env]
  const env = Object.fromEntries(names.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])))
  return new Promise((resolve) => {
    // A process group of its own: what it has started ends with it.
    const child = spawn(program, secret.argv.slice(1), {
      argv0: secret.argv[0],
      cwd: secret.working_dir,
      env,
      shell: false,
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const chunks: Buffer[] = []
    let size = 0
    let early: Ended | null = null
    const kill = (how: NodeJS.Signals): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, how)
      } catch {
        // It has ended.
      }
    }
    const end = (why: Ended): void => {
      early ??= why
      kill('SIGTERM')
      setTimeout(() => {
        kill('SIGKILL')
        // Whoever else holds the pipe's end does not keep us waiting.
        child.stdout.destroy()
      }, GRACE_MS).unref()
    }
    const timer = setTimeout(() => end({ kind: 'failed', why: `has not ended within ${secret.timeout_ms / 1000} s` }), secret.timeout_ms)
    const abort = (): void => end({ kind: 'failed', why: 'was interrupted' })
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    const settle = (ended: Ended): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      resolve(early ?? ended)
    }
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length
      // One more for the line break that is taken off.
      if (size > secret.max_size + 2) end({ kind: 'large' })
      else chunks.push(chunk)
    })
    child.on('error', (error) =>
      settle({ kind: 'failed', why: `could not be started (${(error as { code?: string }).code ?? error.name})` }),
    )
    child.on('close', (code, killed) => {
      kill('SIGKILL')
      if (code !== 0) return settle({ kind: 'failed', why: code === null ? `was ended by ${killed ?? 'a signal'}` : `exited with ${code}` })
      const value = withoutBreak(Buffer.concat(chunks))
      settle(value.length > secret.max_size ? { kind: 'large' } : { kind: 'done', value })
    })
  })
}

/** As a shell's $(…), but only one: a value may end in line breaks of its own. */
function withoutBreak(value: Buffer): Buffer {
  if (value.at(-1) !== 0x0a) return value
  return value.subarray(0, value.at(-2) === 0x0d ? -2 : -1)
}

/** The first in absolute folders of PATH: an empty or relative entry would be the folder that one happens to be in. */
function onPath(name: string, path: string): string | null {
  for (const folder of path.split(':')) {
    const found = isAbsolute(folder) ? executable(join(folder, name)) : null
    if (found !== null) return found
  }
  return null
}

function executable(path: string): string | null {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile() ? path : null
  } catch {
    return null
  }
}
