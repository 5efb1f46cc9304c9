/** A unix socket in front of the engine's that counts requests. */
import { mkdtempSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Counter {
  readonly host: string
  total(): number
  calls(method: string, path: RegExp): number
  close(): void
}

export async function countingProxy(
  engine: string = (process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock').replace('unix://', ''),
): Promise<Counter> {
  const seen: { method: string; path: string }[] = []
  const socket = join(mkdtempSync(join(tmpdir(), 'agentctl-count-')), 'engine.sock')
  const server = createServer((client) => {
    const upstream = connect(engine)
    client.on('data', (chunk: Buffer) => {
      // A request's head starts a chunk: the client writes heads in one piece and bodies hold no such line at their start.
      const head = /^(GET|POST|PUT|DELETE|HEAD) (\S+) HTTP\/1\.1\r\n/.exec(chunk.subarray(0, 512).toString('latin1'))
      if (head !== null) seen.push({ method: head[1] ?? '', path: head[2] ?? '' })
    })
    client.pipe(upstream).pipe(client)
    client.on('error', () => upstream.destroy())
    upstream.on('error', () => client.destroy())
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  return {
    host: `unix://${socket}`,
    total: () => seen.length,
    calls: (method, path) => seen.filter((call) => call.method === method && path.test(call.path)).length,
    close: () => void server.close(),
  }
}
