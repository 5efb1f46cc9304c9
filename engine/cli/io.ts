/** The process as the verbs see it, so that tests can run them in-process: results on stdout, everything else on stderr. */
import type { Readable, Writable } from 'node:stream'

export interface Io {
  readonly stdin: Readable & { isTTY?: boolean; setRawMode?: (raw: boolean) => unknown }
  readonly stdout: Writable & { isTTY?: boolean; columns?: number; rows?: number }
  readonly stderr: Writable & { isTTY?: boolean }
  readonly environment: { readonly [name: string]: string | undefined }
  readonly cwd: string
  /** Subscribe to SIGINT and SIGTERM; the result unsubscribes. */
  readonly onSignal: (listener: (signal: 'SIGINT' | 'SIGTERM') => void) => () => void
  /** Ends the process now. */
  readonly exit: (code: number) => void
}

export function processIo(): Io {
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    environment: process.env,
    cwd: process.cwd(),
    onSignal: (listener) => {
      process.on('SIGINT', listener)
      process.on('SIGTERM', listener)
      return () => {
        process.off('SIGINT', listener)
        process.off('SIGTERM', listener)
      }
    },
    exit: (code) => process.exit(code),
  }
}

/** Colour only for a terminal, and never against NO_COLOR (https://no-color.org: set and not empty). */
export function hasColor(io: Io, stream: { isTTY?: boolean }): boolean {
  if ((io.environment['NO_COLOR'] ?? '') !== '') return false
  return stream.isTTY === true && io.environment['TERM'] !== 'dumb'
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, blue: 34, magenta: 35, cyan: 36 } as const
export type Color = keyof typeof CODES
export type Paint = (color: Color, text: string) => string
export const plain: Paint = (_color, text) => text
export const painter = (color: boolean): Paint => (color ? (name, text) => `\u001b[${CODES[name]}m${text}\u001b[0m` : plain)

/** Waits for the reader, so that a slow pipe bounds what a stream of logs holds in memory. */
export async function write(stream: Writable, text: string | Uint8Array): Promise<void> {
  if (stream.write(text)) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      stream.off('drain', done)
      stream.off('close', done)
      resolve()
    }
    stream.on('drain', done)
    stream.on('close', done)
  })
}

/** Everything written so far has left the process. */
export const flush = (stream: Writable): Promise<void> =>
  new Promise((resolve) => {
    if (stream.destroyed || stream.writableLength === 0) resolve()
    else stream.write('', () => resolve())
  })

/** Names and messages of agents are hostile: no control characters reach a terminal through us. */
export const clean = (text: string): string => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '�')
