/** Handler `exec`: a command per task, in a process group of its own. */
import type { ChildProcess } from 'node:child_process'
import { statSync } from 'node:fs'
import { MAX_PAYLOAD_BYTES } from '../spec/protocol.ts'
import { type ExecInput, InputError, parseExecInput } from './exec-input.ts'
import { type Execution, failure, type Handler, type HandlerTask, type TaskServices } from './handler.ts'
import type { Outcome } from './messages.ts'
import { Lines } from './lines.ts'
import { groupAlive, signalGroup } from './process-group.ts'
import { TAIL_BYTES, Tail } from './tail.ts'

/** From SIGTERM to SIGKILL. */
const KILL_AFTER_MS = 5_000
/** A process that left the group may keep our pipes open: how long the rest of the output is waited for. */
const DRAIN_MS = 500
const GROUP_POLL_MS = 50

type Env = { readonly [name: string]: string | undefined }

/** The container's environment without what is ours. */
export function commandEnv(base: Env, own: ExecInput['env']): Record<string, string> {
  const env: Record<string, string> = {}
  for (const [name, value] of Object.entries(base)) if (value !== undefined && !name.startsWith('AGENTCTL_')) env[name] = value
  return Object.assign(env, own)
}

function checkDirectory(path: string): void {
  let isDirectory = false
  try {
    isDirectory = statSync(path).isDirectory()
  } catch {
    throw new InputError(`cwd: there is no directory "${path}" in the agent`)
  }
  if (!isDirectory) throw new InputError(`cwd: "${path}" is not a directory`)
}

/** Escapes can make 32 KiB of output longer than a result may be: then less of it is kept. */
export function commandResult(exitCode: number, stdout: Tail, stderr: Tail): string {
  for (let limit = TAIL_BYTES; ; limit = Math.floor(limit / 2)) {
    const truncated = stdout.truncated || stderr.truncated || limit < TAIL_BYTES
    const json = JSON.stringify({ exit_code: exitCode, stdout: stdout.text(limit), stderr: stderr.text(limit), truncated })
    if (Buffer.byteLength(json) <= MAX_PAYLOAD_BYTES) return json
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const lastLine = (text: string): string => text.trimEnd().split('\n').at(-1)?.slice(0, 500) ?? ''

type Log = TaskServices['log']

class Command implements Execution {
  readonly #task: HandlerTask
  readonly #input: ExecInput
  readonly #stdout = new Tail()
  readonly #stderr = new Tail()
  readonly #lines: { readonly stdout: Lines; readonly stderr: Lines }
  #child: ChildProcess | null = null
  #stopped: { readonly code: string; readonly message: string } | null = null
  #killTimer: NodeJS.Timeout | null = null
  #timeout: NodeJS.Timeout | null = null
  #ended = false

  constructor(task: HandlerTask, input: ExecInput, log: Log) {
    this.#task = task
    this.#input = input
    this.#lines = {
      stdout: new Lines((line) => log(task.n, 'stdout', line)),
      stderr: new Lines((line) => log(task.n, 'stderr', line)),
    }
  }

  async run(): Promise<void> {
    const { spawn } = await import('node:child_process')
    if (this.#stopped !== null) return this.#end(failure(this.#stopped.code, this.#stopped.message))
    const { argv, cwd, env, stdin, timeoutMs } = this.#input
    let child: ChildProcess
    try {
      child = spawn(argv[0] ?? '', argv.slice(1), {
        cwd,
        env: commandEnv(process.env, env),
        detached: true,
        stdio: [stdin === null ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      })
    } catch (error) {
      return this.#end(this.#spawnFailure(error))
    }
    this.#child = child
    child.once('error', (error) => this.#end(this.#spawnFailure(error)))
    child.stdout?.on('data', (chunk: Buffer) => {
      this.#stdout.push(chunk)
      this.#lines.stdout.push(chunk)
    })
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr.push(chunk)
      this.#lines.stderr.push(chunk)
    })
    // A command need not read its stdin (EPIPE).
    child.stdin?.on('error', () => {}).end(stdin ?? '')
    child.once('exit', (code, signal) => void this.#exited(code, signal))
    this.#timeout = setTimeout(() => this.#stop('timeout', `the command did not end within ${timeoutMs / 1_000} s`), timeoutMs)
  }

  abort(reason: string): void {
    this.#stop(reason, reason === 'timeout' ? 'the task ran past its deadline' : 'the task was stopped')
  }

  kill(): void {
    if (this.#child?.pid !== undefined && !this.#ended) signalGroup(this.#child.pid, 'SIGKILL')
  }

  #stop(code: string, message: string): void {
    if (this.#stopped !== null || this.#ended) return
    this.#stopped = { code, message }
    const pid = this.#child?.pid
    if (pid === undefined) return
    signalGroup(pid, 'SIGTERM')
    this.#killTimer = setTimeout(() => signalGroup(pid, 'SIGKILL'), KILL_AFTER_MS)
  }

  async #exited(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    const child = this.#child
    if (child?.pid === undefined) return
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
    if (this.#timeout !== null) clearTimeout(this.#timeout)
    // Stopped: the others of the group have their five seconds too. Ended by itself: what it left behind ends now.
    const pid = child.pid
    for (const until = Date.now() + KILL_AFTER_MS; this.#stopped !== null && groupAlive(pid) && Date.now() < until; )
      await pause(GROUP_POLL_MS)
    signalGroup(pid, 'SIGKILL')
    if (this.#killTimer !== null) clearTimeout(this.#killTimer)
    await Promise.race([closed, pause(DRAIN_MS)])
    child.stdout?.destroy()
    child.stderr?.destroy()
    this.#end(this.#stopped === null ? await this.#outcome(code, signal) : failure(this.#stopped.code, this.#stopped.message))
  }

  async #outcome(code: number | null, signal: NodeJS.Signals | null): Promise<Outcome> {
    const { constants } = await import('node:os')
    // As a shell says it: 128 + the number of the signal.
    const exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal])
    if (this.#input.check && exitCode !== 0) {
      const said = lastLine(this.#stderr.text()) || lastLine(this.#stdout.text())
      return failure('exit_code', `the command exited with ${exitCode}${said === '' ? '' : `: ${said}`}`)
    }
    return { ok: true, json: commandResult(exitCode, this.#stdout, this.#stderr) }
  }

  #spawnFailure(error: unknown): Outcome {
    const program = this.#input.argv[0] ?? ''
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') return failure('spawn_failed', `the program "${program}" was not found in the agent`)
    if (code === 'EACCES') return failure('spawn_failed', `the program "${program}" may not be executed by the agent's user`)
    if (code === 'E2BIG') return failure('spawn_failed', 'the command and its environment are too long for the system')
    return failure('spawn_failed', `"${program}" could not be started: ${error instanceof Error ? error.message : String(error)}`)
  }

  #end(outcome: Outcome): void {
    if (this.#ended) return
    this.#ended = true
    this.#lines.stdout.end()
    this.#lines.stderr.end()
    if (this.#timeout !== null) clearTimeout(this.#timeout)
    if (this.#killTimer !== null) clearTimeout(this.#killTimer)
    this.#task.done(outcome)
  }
}

export function execHandler(workspace: string, log: Log): Handler {
  const running = new Set<Command>()
  return {
    start(task) {
      let input: ExecInput
      try {
        input = parseExecInput(task.leased.input, workspace)
        checkDirectory(input.cwd)
      } catch (error) {
        if (!(error instanceof InputError)) throw error
        task.done(failure('bad_input', error.message))
        return { abort: () => {} }
      }
      const done = (outcome: Outcome): void => {
        running.delete(command)
        task.done(outcome)
      }
      const command = new Command({ ...task, done }, input, log)
      running.add(command)
      command.run().catch((error: unknown) => done(failure('internal', String(error))))
      return command
    },
    close() {
      for (const command of running) command.kill()
    },
  }
}
