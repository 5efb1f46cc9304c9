/**
 * A proxy on loopback addresses that plays the container: agents "web" (127.0.61.0/24) and "other" (127.0.62.0/24), with names that
 * lead where the test says and "public" addresses that are ports of the test's own. Nothing leaves the machine.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { once } from 'node:events'
import { type AuditRecord, makeAudit } from '../../engine/egress/audit.ts'
import type { Net } from '../../engine/egress/net.ts'
import { type Proxy, startProxy } from '../../engine/egress/proxy.ts'
import { segmentsOf } from '../../engine/egress/segments.ts'
import { load } from '../../spec/load.ts'
import type { Project } from '../../spec/model.ts'
import { record } from './project.ts'

export const SUBNETS = {
  control: '127.0.60.0/24',
  outside: '127.0.59.0/24',
  'agent-web': '127.0.61.0/24',
  'agent-other': '127.0.62.0/24',
} as const
/** Where the proxy is for an agent, and the address of its replica. */
export const at = (agent: 'web' | 'other', replica = 1): { readonly host: string; readonly localAddress: string } => {
  const net = agent === 'web' ? '127.0.61' : '127.0.62'
  return { host: `${net}.3`, localAddress: `${net}.${8 + replica}` }
}

/** The file, of which `egress` and the agents are the test's; rules stand in agents.yaml. */
export function projectOf(text: string): Project {
  const loaded = load({ files: ['/p/agents.yaml'], environment: {}, readFile: () => text })
  if (loaded.project === null) throw new Error(loaded.diagnostics.map((each) => `${each.place?.line}: ${each.message}`).join('\n'))
  return loaded.project
}
export const recordText = (file: string): string => JSON.stringify(record(projectOf(file), { subnets: SUBNETS }))

export interface World {
  readonly proxy: Proxy
  readonly audit: AuditRecord[]
  /** Name → addresses; changed by tests as they go. */
  readonly names: Map<string, readonly string[] | Promise<readonly string[]>>
  /** What was asked of the resolver, and what was dialled. */
  readonly resolved: string[]
  readonly dialled: string[]
  /** "ADDRESS:PORT" is that local port. */
  readonly hosts: Map<string, number>
  use(file: string): void
  stop(): Promise<void>
}

export async function world(file: string): Promise<World> {
  const [names, hosts]: [World['names'], World['hosts']] = [new Map(), new Map()]
  const [resolved, dialled, audit]: [string[], string[], AuditRecord[]] = [[], [], []]
  const net: Net = {
    resolve: (host) => {
      resolved.push(host)
      const found = names.get(host)
      return found === undefined ? Promise.reject(Object.assign(new Error('no'), { code: 'ENOTFOUND' })) : Promise.resolve(found)
    },
    connect: async (address, port) => {
      dialled.push(`${address}:${port}`)
      const local = hosts.get(`${address}:${port}`)
      if (local === undefined) throw Object.assign(new Error('no'), { code: 'ECONNREFUSED' })
      const socket = connect({ host: '127.0.0.1', port: local, allowHalfOpen: true, noDelay: true })
      socket.on('error', () => {})
      await once(socket, 'connect')
      return socket
    },
  }
  const proxy = await startProxy({ port: 0, net, audit: makeAudit({ write: () => {}, span: (each) => void audit.push(each) }) })
  const use = (text: string): void => proxy.use(segmentsOf(recordText(text)))
  use(file)
  return { proxy, audit, names, resolved, dialled, hosts, use, stop: () => proxy.stop() }
}

export async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** A TCP server that keeps what it got. */
export async function sink(
  answer: (socket: Socket, chunk: Buffer) => void = () => {},
): Promise<{ port: number; got: () => string; close: () => void }> {
  let text = ''
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      answer(socket, chunk)
    })
  })
  const port = await listening(server)
  return { port, got: () => text, close: () => server.close() }
}

/** Sends text as an agent would and gives all that comes until the proxy closes, or for `ms`. */
export function raw(
  w: World,
  text: string | Buffer,
  { agent = 'web', replica = 1, ms = 1_500 }: { agent?: 'web' | 'other'; replica?: number; ms?: number } = {},
): Promise<string> {
  return new Promise((resolve) => {
    let got = ''
    const socket = connect({ ...at(agent, replica), port: w.proxy.port }, () => socket.write(text))
    const timer = setTimeout(() => socket.destroy(), ms)
    socket.on('data', (chunk) => (got += chunk.toString('latin1')))
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(got)
    })
  })
}

/** A tunnel that is open; rejects with what the proxy said instead. */
export function tunnel(w: World, to: string, who: { agent?: 'web' | 'other'; replica?: number } = {}): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...at(who.agent ?? 'web', who.replica), port: w.proxy.port }, () =>
      socket.write(`CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n\r\n`),
    )
    socket.on('error', () => {})
    let got = ''
    const onData = (chunk: Buffer): void => {
      got += chunk.toString('latin1')
      if (!got.includes('\r\n\r\n')) return
      if (got.startsWith('HTTP/1.1 200')) {
        socket.off('data', onData)
        socket.off('close', onClose)
        resolve(socket)
      }
    }
    const onClose = (): void => reject(new Error(got))
    socket.on('data', onData)
    socket.once('close', onClose)
  })
}
