/** Through the egress proxy against straight to the target, in turns: small requests, 100 MB bodies, the set-up of a tunnel. No containers: the proxy, the target and the client are a process each. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, type ClientRequest, type IncomingMessage, request, type RequestOptions } from 'node:http'
import { Agent as SecureAgent, request as secureRequest } from 'node:https'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { makeCertificates } from '../test/support/certificates.ts'
import { at, recordText } from '../test/support/egress.ts'
import { median, remark, report, ROOT } from './support.ts'

const HOST = 'bench.test'
const FILE = `agents:
  web: { egress: [bench] }
  other: {}
egress:
  bench:
    allow: [${HOST}, { host: ${HOST}, scheme: http }, { host: ${HOST}, port: 22, scheme: tcp }]
`
const AT_ONCE = 16
const SMALL = 6_000
/** Each process compiles what it does often. */
const WARM_UP = 10_000
const BIG = 100_000_000
const TUNNELS = 300

interface World extends Disposable {
  readonly http: number
  readonly https: number
  readonly tcp: number
  readonly proxy: number
  readonly ca: string
}

async function start(): Promise<World> {
  const folder = mkdtempSync(join(tmpdir(), 'agentctl-bench-egress-'))
  const { ca, cert, key } = makeCertificates([`DNS:${HOST}`])
  writeFileSync(join(folder, 'cert.pem'), cert)
  writeFileSync(join(folder, 'key.pem'), key)
  writeFileSync(join(folder, 'record.json'), recordText(FILE))
  const children: ChildProcess[] = []
  const part = async (...args: readonly string[]): Promise<readonly number[]> => {
    const child = spawn(process.execPath, [join(ROOT, 'bench/egress-parts.ts'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    return JSON.parse(line.toString()) as readonly number[]
  }
  const [http = 0, https = 0, tcp = 0] = await part('target', folder)
  const [proxy = 0] = await part('proxy', join(folder, 'record.json'), JSON.stringify({ 80: http, 443: https, 22: tcp }))
  return {
    ...{ http, https, tcp, proxy, ca },
    [Symbol.dispose]: () => {
      for (const child of children) child.kill('SIGKILL')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A tunnel through the proxy, open. */
function tunnel(w: World, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const to = `${HOST}:${port}`
    const socket = connect({ ...at('web'), port: w.proxy, noDelay: true }, () =>
      socket.write(`CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n\r\n`),
    )
    socket.once('error', reject)
    socket.once('data', (chunk: Buffer) =>
      chunk.toString().startsWith('HTTP/1.1 200') ? resolve(socket) : reject(new Error(chunk.toString())),
    )
  })
}

/** One way to the target: sends a request for a path. */
type Way = (path: string) => ClientRequest

function ways(w: World): { readonly [name: string]: { readonly direct: Way; readonly proxied: Way } } {
  const kept = { keepAlive: true, maxSockets: AT_ONCE }
  const [http, byProxy] = [new Agent(kept), new Agent(kept)]
  const https = new SecureAgent({ ...kept, ca: w.ca, servername: HOST })
  const tunnelled = Object.assign(new SecureAgent(kept), {
    createConnection: (_: RequestOptions, done: (error: Error | null, socket?: Socket) => void) => {
      tunnel(w, 443).then((socket) => done(null, connectTls({ socket, ca: w.ca, servername: HOST })), done)
    },
  }) as unknown as SecureAgent
  return {
    'https by CONNECT': {
      direct: (path) => secureRequest({ agent: https, host: '127.0.0.1', port: w.https, path, headers: { host: HOST } }),
      proxied: (path) => secureRequest({ agent: tunnelled, host: HOST, port: 443, path }),
    },
    'plain http': {
      direct: (path) => request({ agent: http, host: '127.0.0.1', port: w.http, path }),
      proxied: (path) => request({ agent: byProxy, ...at('web'), port: w.proxy, path: `http://${HOST}${path}`, headers: { host: HOST } }),
    },
  }
}

async function got(way: Way, path: string): Promise<number> {
  const outgoing = way(path)
  outgoing.end()
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage]
  if (answer.statusCode !== 200) throw new Error(`${path} was answered ${answer.statusCode}`)
  let size = 0
  answer.on('data', (chunk: Buffer) => (size += chunk.length))
  await once(answer, 'end')
  return size
}

/** Requests a second. */
async function small(way: Way, count: number): Promise<number> {
  const begin = performance.now()
  let left = count
  const worker = async (): Promise<void> => {
    while (left-- > 0) await got(way, '/')
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return count / ((performance.now() - begin) / 1_000)
}

/** MB a second. */
async function big(way: Way): Promise<number> {
  const begin = performance.now()
  if ((await got(way, `/big/${BIG}`)) !== BIG) throw new Error('not all of the body came')
  return BIG / 1e6 / ((performance.now() - begin) / 1_000)
}

/** ms until a connection is there, one after the other. */
async function setUp(open: () => Promise<Socket>): Promise<number> {
  const times: number[] = []
  for (let count = 0; count < TUNNELS; count++) {
    const begin = performance.now()
    const socket = await open()
    times.push(performance.now() - begin)
    socket.destroy()
  }
  return median(times)
}

async function direct(w: World): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: w.tcp, noDelay: true })
  await once(socket, 'connect')
  return socket
}

export async function benchEgress(rounds: number): Promise<void> {
  process.stdout.write(`egress: through the proxy against direct, ${rounds} rounds in turns, median of ratios\n`)
  using w = await start()
  for (const [name, way] of Object.entries(ways(w))) {
    for (const [what, target, measure] of [
      ['small requests', 0.5, (it: Way) => small(it, SMALL)],
      ['100 MB bodies', 0.8, big],
    ] as const) {
      await small(way.direct, WARM_UP)
      await small(way.proxied, WARM_UP)
      const pairs: { readonly straight: number; readonly through: number }[] = []
      for (let round = 0; round < rounds; round++) {
        // Who goes first changes, so that neither always meets a warmer machine.
        const order = round % 2 === 0 ? (['direct', 'proxied'] as const) : (['proxied', 'direct'] as const)
        const result = { direct: 0, proxied: 0 }
        for (const each of order) result[each] = await measure(way[each])
        pairs.push({ straight: result.direct, through: result.proxied })
      }
      const ratio = median(pairs.map(({ straight, through }) => through / straight))
      report(`egress, ${name}: ${what}`, ratio.toFixed(2), `≥ ${target} of direct`, ratio >= target)
      const unit = what === 'small requests' ? 'requests/s' : 'MB/s'
      remark(
        `proxied ${median(pairs.map((it) => it.through)).toFixed(0)}, direct ${median(pairs.map((it) => it.straight)).toFixed(0)} ${unit}; ratios ${pairs.map((it) => (it.through / it.straight).toFixed(2)).join(' ')}`,
      )
    }
  }
  await setUp(() => tunnel(w, 22))
  const added: number[] = []
  for (let round = 0; round < rounds; round++) added.push((await setUp(() => tunnel(w, 22))) - (await setUp(() => direct(w))))
  const ms = median(added)
  report('egress: added to the set-up of a connection by CONNECT', `${ms.toFixed(2)} ms`, '≤ 2 ms', ms <= 2)
}
