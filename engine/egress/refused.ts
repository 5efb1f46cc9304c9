/** Why a client does not get what it asked for: told to it, written to the audit, and thrown from wherever it is found out. */
import type { ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

export type Reason =
  | 'allowed'
  | 'no_rule'
  | 'deny_rule'
  | 'address_never'
  | 'address_private'
  | 'malformed'
  | 'unresolved'
  | 'unreachable'
  | 'name_mismatch'
  | 'not_tls'
  | 'timeout'
  | 'limit'
  | 'narrowed'

export class Refused extends Error {
  readonly status: number
  readonly reason: Reason
  /** "agents.yaml:31 egress.web". */
  readonly rule: string | null

  constructor(status: number, reason: Reason, message: string, rule: string | null = null) {
    super(message)
    this.status = status
    this.reason = reason
    this.rule = rule
  }
}

/** Of a head no client reads more; and it must stay one line of ASCII, whatever the file is called. */
const MAX_LINE = 480
const line = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, MAX_LINE)
const body = (text: string): string => `${text}\n`

/** In the status text too: for CONNECT most clients show nothing else. */
export function refuseSocket(socket: Duplex, { status, message }: Refused): void {
  const text = body(message)
  socket.end(
    `HTTP/1.1 ${status} ${line(message)}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
  )
}

export function refuseResponse(response: ServerResponse, { status, message }: Refused): void {
  if (response.headersSent) return void response.destroy()
  const text = body(message)
  response.writeHead(status, line(message), {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    // What is left of its body is not read.
    connection: 'close',
  })
  response.end(text)
}
