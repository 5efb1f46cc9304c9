/** The agent under test as a process: the environment of docs/protocol.md, a token in a file, a process group to end. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AGENT_ENV } from '../../spec/protocol.ts'

/** Of what it wrote, the end is kept for the report. */
const OUTPUT_CHARS = 4_000
const KILL_MS = 5_000

export type Target =
  | { readonly command: readonly string[]; readonly env?: { readonly [name: string]: string } }
  /** Runs by the docker client, on this machine's network, locked down as `agentctl up` does it. */
  | { readonly image: string; readonly command: readonly string[] }

export class AgentUnderTest {
  readonly token: string = `kit-${randomBytes(12).toString('hex')}`
  readonly #child: ChildProcess
  readonly #folder: string
  readonly #container: string | null
  readonly exited: Promise<void>
  hasExited = false
  output = ''

  constructor(target: Target, port: number, concurrency: number) {
    // Not the default mode: in a container the agent is another user.
    this.#folder = mkdtempSync(join(tmpdir(), 'agentctl-conformance-'))
    chmodSync(this.#folder, 0o755)
    const tokenFile = join(this.#folder, 'token')
    writeFileSync(tokenFile, `${this.token}\n`, { mode: 0o444 })
    const own: { readonly [name: string]: string } = {
      [AGENT_ENV.gateway]: `http://127.0.0.1:${port}`,
      [AGENT_ENV.agent]: 'kit',
      [AGENT_ENV.replica]: '1',
      [AGENT_ENV.concurrency]: String(concurrency),
    }
    this.#container = 'image' in target ? `t-conformance-${randomBytes(6).toString('hex')}` : null
    const [program = '', ...args] = 'image' in target ? dockerRun(target, this.#container ?? '', own, tokenFile) : target.command
    const local = { AGENTCTL_TOKEN_FILE: tokenFile, AGENTCTL_READY_FILE: join(this.#folder, 'ready'), AGENTCTL_WORKSPACE: this.#folder }
    const given = 'image' in target ? {} : { ...own, ...local, ...target.env }
    this.#child = spawn(program, args, { env: { ...process.env, ...given }, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (chunk: Buffer) => (this.output = (this.output + chunk.toString()).slice(-OUTPUT_CHARS)))
    // Whoever plays is gone: the agent must not stay.
    process.once('exit', this.#kill)
    this.exited = new Promise((resolve) => {
      const end = (): void => {
        this.hasExited = true
        resolve()
      }
      this.#child.once('exit', end)
      this.#child.once('error', (error) => {
        this.output += String(error)
        end()
      })
    })
  }

  readonly #kill = (): void => {
    const { pid } = this.#child
    try {
      if (pid !== undefined) process.kill(-pid, 'SIGKILL')
    } catch {
      // Nobody is left.
    }
  }

  /** To the process itself: what a container's stop does. */
  terminate(): void {
    this.#child.kill('SIGTERM')
  }

  async end(): Promise<void> {
    if (this.#container !== null) await removed(this.#container)
    this.#kill()
    process.off('exit', this.#kill)
    await Promise.race([this.exited, new Promise((resolve) => setTimeout(resolve, KILL_MS))])
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** What an image of a user's own must live with in a project, too. */
const USER = '10001'
const POSTURE: readonly string[] = [
  ...['--user', `${USER}:${USER}`, '--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges'],
  ...['--memory', '512m', '--pids-limit', '256', '--tmpfs', '/tmp:size=64m,mode=1777'],
  ...['--tmpfs', `/workspace:exec,size=256m,mode=0755,uid=${USER},gid=${USER}`],
]

const dockerRun = (
  { image, command }: Extract<Target, { readonly image: string }>,
  name: string,
  env: { readonly [name: string]: string },
  tokenFile: string,
): readonly string[] => [
  ...['docker', 'run', '--rm', '--init', '--name', name, '--network', 'host', '-v', `${tokenFile}:${AGENT_ENV.tokenFile}:ro`],
  ...POSTURE,
  ...Object.entries(env).flatMap(([key, value]) => ['-e', `${key}=${value}`]),
  image,
  ...command,
]

const removed = (name: string): Promise<void> =>
  new Promise((resolve) => {
    const remover = spawn('docker', ['rm', '-f', name], { stdio: 'ignore', timeout: 4 * KILL_MS })
    remover.once('exit', () => resolve()).once('error', () => resolve())
  })
