/** An HTTP server on a unix socket, and a runtime whose only power is to "exec" into it, as socat does in the gateway's container. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import type { ContainerRuntime, ExecStream } from '../../../engine/ports.ts'

export interface FakeGateway extends AsyncDisposable {
  readonly runtime: ContainerRuntime
  /** Exec streams that were opened. */
  readonly opened: () => number
  readonly stop: () => Promise<void>
  readonly start: () => Promise<void>
}

export async function fakeGateway(listener: RequestListener): Promise<FakeGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'control-'))
  const path = join(folder, 's')
  let opened = 0
  let server = createServer(listener)
  const start = async (): Promise<void> => {
    server = createServer(listener)
    await new Promise<void>((resolve) => server.listen(path, resolve))
  }
  const stop = async (): Promise<void> => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }
  await start()
  const execStream = async (): Promise<ExecStream> => {
    opened++
    const socket = connect(path)
    const stderr = new PassThrough()
    const stdout = new PassThrough()
    const stdin = new PassThrough()
    const done = Promise.withResolvers<number>()
    stdin.pipe(socket)
    socket.pipe(stdout)
    socket.on('error', (error) => {
      stderr.write(`socat E ${error.message}\n`)
      stdout.end()
      done.resolve(1)
    })
    socket.on('close', () => {
      stdout.end()
      done.resolve(0)
    })
    return { stdin, stdout, stderr, exit: done.promise, resize: async () => undefined, close: () => socket.destroy() }
  }
  const runtime = { execStream } as unknown as ContainerRuntime
  return {
    runtime,
    opened: () => opened,
    start,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop().catch(() => undefined)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export const answer = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
