/** An exec stream as a socket that node:http accepts. */
import { Duplex } from 'node:stream'
import type { ExecStream } from './ports.ts'

/** Enough of the command's stderr to say why it could not connect. */
const STDERR_LIMIT = 2_048

export function execSocket(stream: ExecStream): Duplex {
  let complaint = ''
  let answered = false
  let over = false
  const socket = new Duplex({
    allowHalfOpen: false,
    read() {
      stream.stdout.resume()
    },
    write(chunk: Buffer, _encoding, done) {
      if (stream.stdin.write(chunk)) done()
      else stream.stdin.once('drain', () => done())
    },
    final(done) {
      stream.stdin.end()
      done()
    },
    destroy(error, done) {
      stream.close()
      done(error)
    },
  })
  // Without an answer the command's own words say more than "socket hang up".
  const ended = (): void => {
    if (over) return
    over = true
    if (!answered && complaint.trim() !== '') socket.destroy(new Error(lastLine(complaint)))
    else socket.push(null)
  }
  stream.stdout.on('data', (chunk: Buffer) => {
    answered = true
    if (!socket.push(chunk)) stream.stdout.pause()
  })
  stream.stderr.on('data', (chunk: Buffer) => {
    if (complaint.length < STDERR_LIMIT) complaint += chunk.toString('utf8')
  })
  stream.stdout.on('end', ended)
  stream.stdout.on('close', ended)
  for (const part of [stream.stdin, stream.stdout, stream.stderr]) part.on('error', (error: Error) => socket.destroy(error))
  stream.exit.catch(() => undefined)
  // node:http calls these on every socket it keeps.
  const itself = (): Duplex => socket
  return Object.assign(socket, { setKeepAlive: itself, setNoDelay: itself, setTimeout: itself, ref: itself, unref: itself })
}

const lastLine = (text: string): string => text.trimEnd().split('\n').at(-1) ?? text
