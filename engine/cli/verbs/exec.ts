import { EXIT } from '../../errors.ts'
import type { ExecStream } from '../../ports.ts'
import { usage } from '../failure.ts'
import { write } from '../io.ts'
import type { Session } from '../session.ts'
import { oneContainer } from '../target.ts'
import { type Call, type Run, value, values } from '../verb.ts'

export const exec: Run = async (session, call) => {
  const [name = '', ...rest] = call.args
  const command = rest[0] === '--' ? rest.slice(1) : rest
  if (command.length === 0) throw usage('exec expects a command after the name')
  const env = values(call, 'env')
  for (const pair of env) if (!/^[^=]+=/.test(pair)) throw usage('-e expects NAME=VALUE')
  const [user, workdir] = [value(call, 'user'), value(call, 'workdir')]
  const project = await session.project()
  const ctx = await session.verbs()
  const container = await oneContainer(ctx, project, name, value(call, 'index'), { running: true })
  const options = {
    ...(env.length === 0 ? {} : { env }),
    ...(user === null ? {} : { user }),
    ...(workdir === null ? {} : { working_dir: workdir }),
  }
  if (session.out.json) {
    const result = await ctx.runtime.exec(container.name, command, { ...options, timeout_ms: LONGEST_MS }, session.signal)
    await session.out.print(
      {
        container: container.name,
        exit_code: result.exit_code,
        stdout: result.stdout.toString('utf8'),
        stderr: result.stderr.toString('utf8'),
      },
      () => '',
    )
    return result.exit_code
  }
  const tty = wantsTerminal(session, call)
  const stream = await ctx.runtime.execStream(container.name, command, { ...options, tty }, session.signal)
  return await attach(session, stream, tty)
}

/** setTimeout's limit is 24 days; a day is as good as none. */
const LONGEST_MS = 86_400_000

const wantsTerminal = ({ io }: Session, call: Call): boolean =>
  call.options['tty'] !== false && io.stdin.isTTY === true && io.stdout.isTTY === true

async function attach({ io, signal }: Session, stream: ExecStream, tty: boolean): Promise<number> {
  const resize = (): void => void stream.resize(io.stdout.rows ?? 24, io.stdout.columns ?? 80).catch(() => undefined)
  if (tty) {
    io.stdin.setRawMode?.(true)
    resize()
    io.stdout.on('resize', resize)
  }
  const abort = (): void => stream.close()
  signal.addEventListener('abort', abort, { once: true })
  io.stdin.on('data', (chunk: Buffer) => {
    if (stream.stdin.write(chunk)) return
    io.stdin.pause()
    stream.stdin.once('drain', () => io.stdin.resume())
  })
  io.stdin.once('end', () => stream.stdin.end())
  try {
    const copies = [copy(stream.stdout, io.stdout), copy(stream.stderr, io.stderr)]
    const code = await stream.exit
    await Promise.all(copies)
    return signal.aborted ? EXIT.interrupted : code
  } finally {
    signal.removeEventListener('abort', abort)
    io.stdin.pause()
    if (tty) {
      io.stdout.off('resize', resize)
      io.stdin.setRawMode?.(false)
    }
  }
}

async function copy(from: NodeJS.ReadableStream, to: Parameters<typeof write>[0]): Promise<void> {
  for await (const chunk of from) await write(to, chunk)
}
