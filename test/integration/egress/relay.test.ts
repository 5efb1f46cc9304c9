import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { type Relay, startRelay } from '../../../engine/egress/relay.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** A server that sends back what it gets, preceded by its name; `seen`: connections that it had. */
async function echo(name: string): Promise<{ readonly port: number; readonly seen: Set<Socket> }> {
  const seen = new Set<Socket>()
  const server: Server = createServer((socket) => {
    seen.add(socket)
    socket.on('error', () => {})
    socket.write(`${name}\n`)
    socket.pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    for (const socket of seen) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, seen }
}

interface World {
  readonly relay: Relay
  readonly notes: string[]
  tell(text: string): void
}
async function world(url: string | null, allowed = '127.0.0.1'): Promise<World> {
  const folder = mkdtempSync(join(tmpdir(), 't-relay-'))
  const record = join(folder, 'record.json')
  const tell = (text: string): void => writeFileSync(record, text)
  tell(recordOf(url))
  const notes: string[] = []
  const relay = await startRelay({ record, host: '127.0.0.1', port: 0, allowed, note: (message) => notes.push(message) })
  cleanups.push(async () => {
    await relay.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  return { relay, notes, tell }
}
const recordOf = (url: string | null): string => JSON.stringify({ version: 1, project: { broker: { url } } })
const at = (port: number): string => `redis://0.0.0.0:${port}/0`

interface Caller {
  readonly socket: Socket
  text(): string
  readonly closed: Promise<void>
}
function call(port: number): Caller {
  const socket = connect({ host: '127.0.0.1', port })
  const chunks: Buffer[] = []
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  cleanups.push(() => socket.destroy())
  return {
    socket,
    text: () => Buffer.concat(chunks).toString('latin1'),
    closed: new Promise((resolve) => socket.once('close', () => resolve())),
  }
}

const eventually = async (what: string, done: () => boolean): Promise<void> => {
  for (const end = Date.now() + 20_000; !done(); await sleep(20)) if (Date.now() > end) throw new Error(`not within 20 s: ${what}`)
}

test('bytes pass whole, both ways, and the end of one side is the end of the other', async () => {
  const server = await echo('broker')
  const { relay } = await world(at(server.port))
  const caller = call(relay.port)
  const sent = Buffer.alloc(8 * 2 ** 20, 'abcdefghij')
  caller.socket.write(sent)
  await eventually('the echo', () => caller.text().length === sent.length + 'broker\n'.length)
  expect(caller.text()).toBe(`broker\n${sent.toString('latin1')}`)
  for (const socket of server.seen) socket.destroy()
  await caller.closed
})

test('who is not the gateway is hung up on, and nothing reaches the broker', async () => {
  const server = await echo('broker')
  const { relay } = await world(at(server.port), '127.0.0.9')
  const callers = Array.from({ length: 5 }, () => call(relay.port))
  for (const caller of callers) caller.socket.write('PING\r\n')
  await Promise.all(callers.map((caller) => caller.closed))
  expect(callers.map((caller) => caller.text())).toEqual(['', '', '', '', ''])
  expect(server.seen.size).toBe(0)
})

test('what is asked for does not matter: it goes to the host and port of the record and nowhere else', async () => {
  const [broker, other] = [await echo('broker'), await echo('other')]
  const { relay } = await world(at(broker.port))
  for (const words of [
    `CONNECT 127.0.0.1:${other.port} HTTP/1.1\r\nHost: 127.0.0.1:${other.port}\r\n\r\n`,
    `GET http://127.0.0.1:${other.port}/ HTTP/1.1\r\n\r\n`,
    // SOCKS 5, no authentication; then 127.0.0.1 and the port.
    `\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01${String.fromCharCode(other.port >> 8, other.port & 255)}`,
    `PROXY TCP4 127.0.0.1 127.0.0.1 1 ${other.port}\r\n`,
  ]) {
    const caller = call(relay.port)
    caller.socket.write(words, 'latin1')
    await eventually('the echo', () => caller.text() === `broker\n${words}`)
  }
  expect(other.seen.size).toBe(0)
})

test('another broker in the record: connections to the old one are cut, new ones go to the new one', async () => {
  const [first, second] = [await echo('first'), await echo('second')]
  const { relay, tell, notes } = await world(at(first.port))
  const before = call(relay.port)
  await eventually('the first', () => before.text() === 'first\n')
  tell(recordOf(at(second.port)))
  await before.closed
  const after = call(relay.port)
  await eventually('the second', () => after.text() === 'second\n')
  // A record of a newer version, and one without a broker: nowhere.
  for (const text of [JSON.stringify({ version: 99, project: { broker: { url: at(second.port) } } }), recordOf(null)]) {
    tell(recordOf(at(second.port)))
    await eventually('the way there', () => notes.at(-1)?.startsWith('relaying') === true)
    tell(text)
    await eventually('the end', () => notes.at(-1) === 'no broker to relay to')
    const nowhere = call(relay.port)
    await nowhere.closed
    expect(nowhere.text()).toBe('')
  }
})

test('connections are bounded', async () => {
  const server = await echo('broker')
  const { relay } = await world(at(server.port))
  const callers = Array.from({ length: 40 }, () => call(relay.port))
  const ended = new Set<Caller>()
  for (const caller of callers) void caller.closed.then(() => ended.add(caller))
  await eventually('an answer or a refusal for each', () => callers.every((caller) => ended.has(caller) || caller.text() !== ''))
  expect(callers.filter((caller) => caller.text() === 'broker\n')).toHaveLength(16)
})

test('a broker that is away is told once, and again when it is back', async () => {
  const gone = await echo('gone')
  const { relay, notes, tell } = await world('redis://0.0.0.0:1/0')
  for (let i = 0; i < 3; i++) await call(relay.port).closed
  expect(notes.filter((note) => note.includes('cannot be reached'))).toEqual(['the broker 0.0.0.0:1 cannot be reached: ECONNREFUSED'])
  tell(recordOf(at(gone.port)))
  await eventually('the new one', () => notes.at(-1)?.includes(String(gone.port)) === true)
  const caller = call(relay.port)
  await eventually('an answer', () => caller.text() === 'gone\n')
})
