import { PassThrough, Readable, Writable } from 'node:stream'
import type { Io } from '../../../engine/cli/io.ts'
import { runCommand } from '../../../engine/cli/main.ts'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function sink(tty: boolean): { stream: Writable & { isTTY: boolean }; text: () => string } {
  const chunks: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      chunks.push(String(chunk))
      done()
    },
  })
  return { stream: Object.assign(stream, { isTTY: tty }), text: () => chunks.join('') }
}

/** The command in this process; `signals` gets what would send it a signal. */
export async function agentctl(
  args: readonly string[],
  options: { cwd?: string; environment?: Record<string, string>; tty?: boolean; stdin?: string } = {},
): Promise<Ran> {
  const [out, err] = [sink(options.tty ?? false), sink(options.tty ?? false)]
  const io: Io = {
    stdin: options.stdin === undefined ? new PassThrough() : Readable.from([options.stdin]),
    stdout: out.stream,
    stderr: err.stream,
    environment: { DOCKER_HOST: 'unix:///nonexistent/docker.sock', ...options.environment },
    cwd: options.cwd ?? '/nonexistent-folder',
    onSignal: () => () => undefined,
    exit: (code) => {
      throw new Error(`exit ${code}`)
    },
  }
  const code = await runCommand(args, io)
  return { code, stdout: out.text(), stderr: err.text() }
}
