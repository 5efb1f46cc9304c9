/**
 * The way to a broker of the user's own. The gateway has no route out; this hands its bytes on to exactly the host and port of the
 * record and nowhere else. It reads none of them: with rediss:// they are encrypted from the gateway to the broker.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { type BrokerAddress, brokerAddress } from '../../spec/broker.ts'
import { RECORD_VERSION } from '../record.ts'
import { watchRecord } from './watch-record.ts'

/** The gateway keeps one connection; a restarting one has two for a moment. */
const MAX_CONNECTIONS = 16
const CONNECT_MS = 5_000

export interface RelayOptions {
  readonly record: string
  /** The control network's address of this container, where no agent has a route. */
  readonly host: string
  readonly port: number
  /** Who may use it: the addresses of the gateways. Others are hung up on. */
  readonly allowed: string | readonly string[]
  readonly note: (message: string) => void
}

export interface Relay {
  readonly port: number
  stop(): Promise<void>
}

export async function startRelay(options: RelayOptions): Promise<Relay> {
  const open = new Set<Socket>()
  const allowed = [options.allowed].flat()
  let target: BrokerAddress | null = null
  let failing = false
  const note = (problem: string | null, where: string): void => {
    // Once per outage: the gateway tries twice a second.
    if (problem !== null && !failing) options.note(`the broker ${where} cannot be reached: ${problem}`)
    if (problem === null && failing) options.note(`the broker ${where} is reached again`)
    failing = problem !== null
  }
  const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 5_000 }, (near) => {
    near.on('error', () => {})
    if (target === null || !allowed.includes(near.remoteAddress?.replace(/^::ffff:/, '') ?? '')) return void near.destroy()
    join(near, target, open, note)
  })
  server.maxConnections = MAX_CONNECTIONS
  const stopWatch = await watchRecord(options.record, (text) => {
    const next = text === null ? null : targetOf(text)
    if (next?.host === target?.host && next?.port === target?.port) return
    options.note(next === null ? 'no broker to relay to' : `relaying to the broker ${next.host}:${next.port}`)
    target = next
    failing = false
    // What leads to the old one ends with it.
    for (const socket of open) socket.destroy()
  })
  await listen(server, options.host, options.port)
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      stopWatch()
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of open) socket.destroy()
      await closed
    },
  }
}

/** Two sockets become one: bytes, back-pressure and ends pass both ways. */
function join(near: Socket, { host, port }: BrokerAddress, open: Set<Socket>, note: (problem: string | null, where: string) => void): void {
  const far = connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 5_000 })
  const where = `${host}:${port}`
  let reached = false
  const timer = setTimeout(() => far.destroy(new Error(`no connection within ${CONNECT_MS / 1000} s`)), CONNECT_MS)
  for (const socket of [near, far]) {
    open.add(socket)
    socket.once('close', () => {
      clearTimeout(timer)
      open.delete(socket)
      near.destroy()
      far.destroy()
    })
  }
  far.on('error', (error: NodeJS.ErrnoException) => {
    if (!reached) note(error.code ?? error.message, where)
  })
  far.once('connect', () => {
    reached = true
    clearTimeout(timer)
    note(null, where)
    near.pipe(far)
    far.pipe(near)
  })
}

/** Pure: the text of a record → where to. A record that we cannot trust leads nowhere. */
export function targetOf(text: string): BrokerAddress | null {
  const record = JSON.parse(text) as { version?: unknown; project?: { broker?: { url?: unknown } } }
  const url = record.project?.broker?.url
  if (typeof record.version !== 'number' || record.version > RECORD_VERSION || typeof url !== 'string') return null
  return brokerAddress(url)
}

const listen = (server: Server, host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
