/** Idle sessions for bench/idle.ts: `FROM COUNT` replicas, each with one request open, as the runtime of an agent that has nothing to do. */
import net from 'node:net'
import { MAX_IDLE_WAIT_MS, SESSION_HEADER } from '../spec/protocol.ts'
import { replicaToken } from '../engine/tokens.ts'

const { KEY = '', PROJECT = '', PORT = '', ADDRESS = '127.0.0.1', FROM = '1', COUNT = '1' } = process.env
const BODY = JSON.stringify({ want: 1, wait_ms: MAX_IDLE_WAIT_MS, beat: [] })
let connected = 0

function session(replica: number): Promise<void> {
  const token = replicaToken(KEY, PROJECT, { agent: 'a', replica })
  const request = `POST /v1/lease HTTP/1.1\r\nhost: gateway:7070\r\ncontent-type: application/json\r\nauthorization: Bearer ${token}\r\n${SESSION_HEADER}: idle-session-${replica}\r\ncontent-length: ${BODY.length}\r\n\r\n${BODY}`
  return new Promise((resolve, reject) => {
    // An address of its own for each process: the gateway bounds connections by it.
    const socket = net.connect({ host: '127.0.0.1', port: Number(PORT), localAddress: ADDRESS, noDelay: true, keepAlive: true })
    let text = ''
    socket.once('connect', () => {
      socket.write(request)
      connected += 1
      resolve()
    })
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      const head = text.indexOf('\r\n\r\n')
      if (head < 0) return
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (text.length < head + 4 + length) return
      if (!text.startsWith('HTTP/1.1 200')) process.stdout.write(`refused ${text.slice(0, 200)}\n`)
      text = ''
      socket.write(request)
    })
    socket.on('error', reject)
    socket.on('close', () => process.stdout.write(`closed ${replica}\n`))
  })
}

for (let at = 0; at < Number(COUNT); at++) await session(Number(FROM) + at)
process.stdout.write(`connected ${connected}\n`)
process.stdin.resume()
process.stdin.on('close', () => process.exit(0))
