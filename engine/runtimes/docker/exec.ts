/** Commands inside a running container, over a hijacked connection. */
import { PassThrough, type Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentctlError } from '../../errors.ts'
import type { ExecResult, ExecStream } from '../../ports.ts'
import { CALL_TIMEOUT_MS, type Connection } from './connection.ts'
import { EngineTimeout, interrupted, toAgentctlError } from './failure.ts'
import { fields, text } from '../../fields.ts'
import { FrameReader } from './frames.ts'

export interface ExecOptions {
  readonly user?: string
  readonly tty?: boolean
  readonly env?: readonly string[]
  readonly working_dir?: string
}

/** After close() the remote command has its end of input; this long it may still say something. */
const CLOSE_GRACE_MS = 2_000
/** The output ends a moment before the engine has noted the exit code. */
const EXIT_CODE_WAIT_MS = 5_000

export async function openExec(
  connection: Connection,
  container: string,
  command: readonly string[],
  options: ExecOptions & { readonly stdin: boolean },
  signal: AbortSignal | undefined,
): Promise<ExecStream> {
  const doing = `run ${command[0] ?? 'a command'} in ${container}`
  const created = await connection.json({
    doing,
    method: 'POST',
    path: `/containers/${container}/exec`,
    body: {
      AttachStdin: options.stdin,
      AttachStdout: true,
      AttachStderr: true,
      Tty: options.tty ?? false,
      Cmd: command,
      ...(options.user === undefined ? {} : { User: options.user }),
      ...(options.env === undefined ? {} : { Env: options.env }),
      ...(options.working_dir === undefined ? {} : { WorkingDir: options.working_dir }),
    },
    signal,
  })
  const id = text(fields(created)['Id'])
  const body = { Detach: false, Tty: options.tty ?? false }
  const socket = await connection.hijack({ doing, method: 'POST', path: `/exec/${id}/start`, body, signal })
  // Errors reach us through the reader below; one after its end (EPIPE on stdin) has nobody left to tell.
  socket.on('error', () => undefined)
  const stdout = new PassThrough()
  const stderr = new PassThrough()
  const ended = options.tty ? pipeRaw(socket, stdout, stderr) : demultiplex(socket, stdout, stderr)
  let isClosed = false
  const exit = ended.then(
    // Who has closed the stream does not ask how the command ended.
    () => (isClosed ? -1 : exitCode(connection, id, doing, signal)),
    (error: unknown) => {
      throw signal?.aborted ? interrupted(doing, signal.reason) : toAgentctlError(error, doing, connection.endpoint)
    },
  )
  // Who only closes the stream need not look at its exit.
  exit.catch(() => undefined)
  return {
    stdin: socket,
    stdout,
    stderr,
    resize: async (rows, columns) => {
      await connection.json({
        doing: `resize the terminal in ${container}`,
        method: 'POST',
        path: `/exec/${id}/resize`,
        query: { h: rows, w: columns },
      })
    },
    exit,
    close: () => {
      isClosed = true
      stdout.resume()
      stderr.resume()
      socket.end()
      setTimeout(() => socket.destroy(), CLOSE_GRACE_MS).unref()
    },
  }
}

export async function runExec(
  connection: Connection,
  container: string,
  command: readonly string[],
  options: ExecOptions & { readonly stdin?: Buffer; readonly timeout_ms?: number },
  signal: AbortSignal | undefined,
): Promise<ExecResult> {
  const timeout = options.timeout_ms ?? CALL_TIMEOUT_MS
  const deadline = AbortSignal.timeout(timeout)
  const both = signal === undefined ? deadline : AbortSignal.any([signal, deadline])
  try {
    const stream = await openExec(connection, container, command, { ...options, stdin: options.stdin !== undefined }, both)
    const output = Promise.all([collect(stream.stdout), collect(stream.stderr)])
    if (options.stdin !== undefined) stream.stdin.end(options.stdin)
    const exit_code = await stream.exit
    const [stdout, stderr] = await output
    return { exit_code, stdout, stderr }
  } catch (error) {
    if (!deadline.aborted || signal?.aborted) throw error
    throw toAgentctlError(new EngineTimeout(timeout), `finish ${command[0] ?? 'a command'} in ${container}`, connection.endpoint)
  }
}

async function collect(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

async function demultiplex(socket: Duplex, stdout: PassThrough, stderr: PassThrough): Promise<void> {
  const reader = new FrameReader()
  await forward(socket, stdout, stderr, async (chunk) => {
    for (const { stream, data } of reader.read(chunk)) await write(stream === 'stdout' ? stdout : stderr, data)
  })
}

async function pipeRaw(socket: Duplex, stdout: PassThrough, stderr: PassThrough): Promise<void> {
  await forward(socket, stdout, stderr, (chunk) => write(stdout, chunk))
}

async function forward(socket: Duplex, stdout: PassThrough, stderr: PassThrough, onChunk: (chunk: Buffer) => Promise<void>): Promise<void> {
  try {
    // Leaving the loop must not destroy the socket: its other half is the command's stdin.
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) await onChunk(chunk)
  } finally {
    stdout.end()
    stderr.end()
    socket.end()
  }
}

/** Waits while the reader is slow, but not for a reader that is gone. */
async function write(target: PassThrough, data: Buffer): Promise<void> {
  if (target.destroyed || target.write(data)) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      target.off('drain', done)
      target.off('close', done)
      resolve()
    }
    target.on('drain', done)
    target.on('close', done)
  })
}

async function exitCode(connection: Connection, id: string, doing: string, signal: AbortSignal | undefined): Promise<number> {
  const end = Date.now() + EXIT_CODE_WAIT_MS
  for (let pause = 5; ; pause = Math.min(pause * 2, 200)) {
    const state = fields(await connection.json({ doing, method: 'GET', path: `/exec/${id}/json`, signal }))
    if (state['Running'] !== true && typeof state['ExitCode'] === 'number') return state['ExitCode']
    if (Date.now() > end) {
      throw new AgentctlError('AG4005', `Could not ${doing}: the connection closed while the command was running`, {
        hint: 'Was the container stopped? See `agentctl ps`.',
      })
    }
    await sleep(pause)
  }
}
