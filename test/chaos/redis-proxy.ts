/**
 * A TCP proxy between a gateway and Redis that knows where one command ends and the next begins, counts them, and at one of them cuts
 * everything: before Redis has it, or after Redis has executed it and before its sender can know.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Cut {
  /** The n-th command since `open`, from 1. */
  readonly command: number
  readonly side: 'before' | 'after'
}

export interface RedisProxy {
  readonly port: number
  /** Commands since `open`. */
  readonly commands: readonly string[]
  /** Let a new gateway through. `cut` null: never cut. Resolves `cutDone` when Redis has closed all connections of the one that was cut. */
  open(cut: Cut | null, onCut: () => void): void
  /** Nothing passes any more; what Redis already has is executed. */
  shut(): Promise<void>
  close(): Promise<void>
}

/** End of the first whole command in `data` and its name; null: not all of it is there. Clients send arrays of bulk strings. */
export function firstCommand(data: Buffer): { readonly end: number; readonly name: string } | null {
  if (data.length === 0) return null
  if (data[0] !== 0x2a) throw new Error(`expected a RESP array, got ${JSON.stringify(data.subarray(0, 20).toString('latin1'))}`)
  const line = (from: number): { readonly value: number; readonly end: number } | null => {
    const end = data.indexOf('\r\n', from)
    return end < 0 ? null : { value: Number(data.toString('latin1', from + 1, end)), end: end + 2 }
  }
  const head = line(0)
  if (head === null) return null
  let at = head.end
  let name = ''
  for (let index = 0; index < head.value; index++) {
    const length = line(at)
    if (length === null || data.length < length.end + length.value + 2) return null
    if (index === 0) name = data.toString('latin1', length.end, length.end + length.value).toLowerCase()
    at = length.end + length.value + 2
  }
  return { end: at, name }
}

export async function redisProxy(target: { readonly host: string; readonly port: number }): Promise<RedisProxy> {
  let commands: string[] = []
  let cut: Cut | null = null
  let onCut = (): void => {}
  let isOpen = false
  const pairs = new Set<{ readonly client: Socket; readonly upstream: Socket; readonly closed: Promise<void> }>()

  const shut = async (): Promise<void> => {
    isOpen = false
    // `end`, not `destroy`: what was passed on is executed before Redis sees the end.
    const all = [...pairs]
    for (const { client, upstream } of all) {
      client.destroy()
      upstream.end()
    }
    await Promise.all(all.map((pair) => pair.closed))
  }
  const server = createServer({ noDelay: true }, (client) => {
    if (!isOpen) {
      client.destroy()
      return
    }
    const upstream = connect({ ...target, noDelay: true })
    const pair = { client, upstream, closed: new Promise<void>((resolve) => upstream.once('close', () => resolve())) }
    pairs.add(pair)
    upstream.on('error', () => upstream.destroy())
    upstream.once('close', () => {
      pairs.delete(pair)
      client.destroy()
    })
    client.on('error', () => client.destroy())
    client.once('close', () => upstream.end())
    upstream.on('data', (chunk) => {
      if (!client.destroyed) client.write(chunk)
    })
    let pending: Buffer = Buffer.alloc(0)
    client.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      for (let found = firstCommand(pending); found !== null && isOpen; found = firstCommand(pending)) {
        const command = pending.subarray(0, found.end)
        pending = pending.subarray(found.end)
        commands.push(found.name)
        const isHere = cut !== null && commands.length === cut.command
        if (!isHere || cut?.side === 'after') upstream.write(command)
        if (!isHere) continue
        void shut()
        onCut()
      }
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    get commands() {
      return commands
    },
    open(next, told) {
      commands = []
      cut = next
      onCut = told
      isOpen = true
    },
    shut,
    async close() {
      await shut()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
