/**
 * A unix socket in front of the engine's that counts its API calls: every HTTP request, also the event stream and both requests of an exec.
 * What flows inside an exec stream afterwards (the lock's lines, requests to the gateway) is no call of the engine.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Counter extends Disposable {
  /** For DOCKER_HOST. */
  readonly host: string
  total(): number
  calls(method: string, path: RegExp): number
  /** "POST /containers/ID/start ×20" …, most frequent first. */
  summary(): readonly string[]
}

const HEAD = /^(GET|POST|PUT|DELETE|HEAD) (\S+) HTTP\/1\.1\r\n/

export async function countingProxy(
  engine: string = (process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock').replace('unix://', ''),
): Promise<Counter> {
  const seen: { method: string; path: string }[] = []
  const folder = mkdtempSync(join(tmpdir(), 'agentctl-count-'))
  // Named like a desktop's: such a socket is not recorded as the controller's, whose calls must not pass here.
  const socket = join(folder, '.docker', 'engine.sock')
  mkdirSync(join(folder, '.docker'))
  const clients = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = connect({ path: engine, allowHalfOpen: true })
    clients.add(client)
    client.on('close', () => clients.delete(client))
    let hijacked = false
    client.on('data', (chunk: Buffer) => {
      if (hijacked) return
      // A request's head starts a chunk: the client writes heads in one piece, and no body of ours starts like one.
      const [, method, path] = HEAD.exec(chunk.subarray(0, 4_096).toString('latin1')) ?? []
      if (method === undefined || path === undefined) return
      seen.push({ method, path: path.replace(/^\/v\d+\.\d+(?=\/)/, '').replace(/\?.*$/, '') })
      hijacked = /\/exec\/[^/]+\/start/.test(path)
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
    summary: () => {
      const counts = new Map<string, number>()
      for (const { method, path } of seen) {
        const kind = `${method} ${path.replace(/^\/(containers|networks|exec|images)\/(?!(json|create|prune)$).+?(?=\/(start|stop|connect|exec|archive|json|disconnect)$|$)/, '/$1/*')}`
        counts.set(kind, (counts.get(kind) ?? 0) + 1)
      }
      return [...counts].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind} ×${count}`)
    },
    [Symbol.dispose]() {
      for (const client of clients) client.destroy()
      server.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
