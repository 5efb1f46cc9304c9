/** Starts the runtime as the process that a container would run, with its paths in a folder of the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ENTRY = join(import.meta.dirname, '../../../agents/main.ts')

export interface AgentOptions {
  readonly port: number
  readonly handler?: string
  readonly agent?: string
  readonly replica?: number
  readonly concurrency?: number
  readonly token?: string
  readonly env?: { readonly [name: string]: string }
  readonly flags?: readonly string[]
  readonly entry?: string
  /** An agent of another kind: not our runtime. */
  readonly program?: readonly string[]
}

export class AgentProcess {
  readonly child: ChildProcess
  readonly folder: string
  readonly readyFile: string
  output = ''
  readonly exited: Promise<number | null>

  constructor(options: AgentOptions) {
    this.folder = mkdtempSync(join(tmpdir(), 'agentctl-agent-'))
    this.readyFile = join(this.folder, 'ready')
    writeFileSync(join(this.folder, 'token'), `${options.token ?? 'a-token'}\n`)
    const [program = '', ...args] = options.program ?? [process.execPath, ...(options.flags ?? []), options.entry ?? ENTRY]
    this.child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env['PATH'],
        AGENTCTL_GATEWAY: `http://127.0.0.1:${options.port}`,
        AGENTCTL_AGENT: options.agent ?? 'worker',
        AGENTCTL_REPLICA: String(options.replica ?? 1),
        AGENTCTL_CONCURRENCY: String(options.concurrency ?? 1),
        AGENTCTL_HANDLER: options.handler ?? 'exec',
        AGENTCTL_TOKEN_FILE: join(this.folder, 'token'),
        AGENTCTL_READY_FILE: this.readyFile,
        AGENTCTL_WORKSPACE: this.folder,
        ...options.env,
      },
    })
    for (const stream of [this.child.stdout, this.child.stderr]) stream?.on('data', (chunk) => (this.output += String(chunk)))
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)))
  }

  get isReady(): boolean {
    try {
      readFileSync(this.readyFile)
      return true
    } catch {
      return false
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    this.child.kill(signal)
    const code = await this.exited
    rmSync(this.folder, { recursive: true, force: true })
    return code
  }
}

export async function eventually(check: () => boolean | Promise<boolean>, what: string, timeoutMs = 10_000): Promise<void> {
  for (const until = Date.now() + timeoutMs; Date.now() < until; await new Promise((resolve) => setTimeout(resolve, 5)))
    if (await check()) return
  throw new Error(`not within ${timeoutMs} ms: ${what}`)
}
