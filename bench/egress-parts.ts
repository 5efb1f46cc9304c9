/** `node bench/egress-parts.ts proxy|target …`: the two other processes of bench/egress.ts, on loopback addresses. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createSecure } from 'node:https'
import { type AddressInfo, connect, createServer as createPlain } from 'node:net'
import { makeAudit } from '../engine/egress/audit.ts'
import { startProxy } from '../engine/egress/proxy.ts'
import { segmentsOf } from '../engine/egress/segments.ts'

const [part, ...args] = process.argv.slice(2)
const BODY = Buffer.alloc(65_536, 1)

/** 100 MB for /big, which is taken as well; else a few bytes. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const size = Number(/^\/big\/(\d+)/.exec(request.url ?? '')?.[1] ?? 0)
  if (size === 0) return void response.end('{"ok":true}')
  response.writeHead(200, { 'content-length': size })
  let left = size
  const more = (): void => {
    while (left > 0) {
      const piece = BODY.subarray(0, Math.min(left, BODY.length))
      left -= piece.length
      if (!response.write(piece)) return void response.once('drain', more)
    }
    response.end()
  }
  more()
}

async function target(folder: string): Promise<readonly number[]> {
  const tls = { key: readFileSync(`${folder}/key.pem`), cert: readFileSync(`${folder}/cert.pem`) }
  const servers = [
    createServer({ keepAliveTimeout: 60_000 }, answer),
    createSecure({ ...tls, keepAliveTimeout: 60_000 }, answer),
    createPlain((socket) => void socket.on('error', () => {}).resume()),
  ]
  for (const server of servers) {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  }
  return servers.map((server) => (server.address() as AddressInfo).port)
}

/** The proxy of the egress container; what stands in for the outside is one address of the target's. */
async function proxy(record: string, ports: Readonly<Record<string, number>>): Promise<readonly number[]> {
  const started = await startProxy({
    port: 0,
    audit: makeAudit({ write: () => {} }),
    net: {
      resolve: () => Promise.resolve(['11.22.33.1']),
      connect: async (_address, port) => {
        const socket = connect({ host: '127.0.0.1', port: ports[String(port)] ?? 0, noDelay: true, allowHalfOpen: true })
        await once(socket, 'connect')
        return socket.on('error', () => {})
      },
    },
  })
  started.use(segmentsOf(readFileSync(record, 'utf8')))
  return [started.port]
}

const ports =
  part === 'target' ? await target(args[0] ?? '') : await proxy(args[0] ?? '', JSON.parse(args[1] ?? '{}') as Record<string, number>)
process.stdout.write(`${JSON.stringify(ports)}\n`)
