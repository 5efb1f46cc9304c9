/** Reads the name that a TLS client asks for, from its first bytes. They come from an agent: every length is checked against what is there. */

export type Peeked =
  | { readonly kind: 'more' }
  /** Something else than TLS. */
  | { readonly kind: 'other' }
  | { readonly kind: 'malformed' }
  /** null: it names no host. */
  | { readonly kind: 'hello'; readonly name: string | null }

const HANDSHAKE = 22
const CLIENT_HELLO = 1
const MAX_RECORD = 16_384
const SERVER_NAME = 0
const HOST_NAME = 0

/** Clients cut a hello into a few records at most; thousands of one byte each would cost us more than them. */
const MAX_RECORDS = 32

/** `bytes`: all that has come so far. */
export function peekClientHello(bytes: Buffer): Peeked {
  if (bytes.length === 0) return { kind: 'more' }
  if (bytes[0] !== HANDSHAKE || (bytes.length > 1 && bytes[1] !== 3)) return { kind: 'other' }
  const parts = fragments(bytes)
  if (parts === null) return { kind: 'malformed' }
  const message = Buffer.concat(parts)
  if (message.length < 4) return { kind: 'more' }
  if (message[0] !== CLIENT_HELLO) return { kind: 'malformed' }
  const length = message.readUIntBE(1, 3)
  if (length > MAX_RECORD) return { kind: 'malformed' }
  if (message.length < 4 + length) return parts.length < MAX_RECORDS ? { kind: 'more' } : { kind: 'malformed' }
  const name = serverName(new Reader(message.subarray(4, 4 + length)))
  return name === undefined ? { kind: 'malformed' } : { kind: 'hello', name }
}

/** A hello may be cut into records at any byte: they are put together as far as they have come. null: a record that is none of a handshake. */
function fragments(bytes: Buffer): readonly Buffer[] | null {
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length && parts.length < MAX_RECORDS; ) {
    // What follows a whole hello may be any record; a cut one goes on with its own kind.
    if (bytes[at] !== HANDSHAKE) return parts.length > 0 && isWhole(parts) ? parts : null
    if (bytes.length < at + 5) break
    const length = bytes.readUInt16BE(at + 3)
    if (bytes[at + 1] !== 3 || length === 0 || length > MAX_RECORD) return null
    parts.push(bytes.subarray(at + 5, at + 5 + length))
    at += 5 + length
  }
  return parts
}

function isWhole(parts: readonly Buffer[]): boolean {
  const all = Buffer.concat(parts)
  return all.length >= 4 && all.length >= 4 + all.readUIntBE(1, 3)
}

class Reader {
  readonly #bytes: Buffer
  #at = 0
  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }
  get left(): number {
    return this.#bytes.length - this.#at
  }
  /** null: there are not so many. */
  take(count: number): Buffer | null {
    if (this.left < count) return null
    this.#at += count
    return this.#bytes.subarray(this.#at - count, this.#at)
  }
  number(bytes: 1 | 2): number | null {
    return this.take(bytes)?.readUIntBE(0, bytes) ?? null
  }
  /** A vector with its length before it. */
  vector(bytes: 1 | 2): Buffer | null {
    const length = this.number(bytes)
    return length === null ? null : this.take(length)
  }
}

/** undefined: malformed. */
function serverName(hello: Reader): string | null | undefined {
  const fixed = hello.take(2 + 32)
  const [session, ciphers, compression] = [hello.vector(1), hello.vector(2), hello.vector(1)]
  if (fixed === null || session === null || ciphers === null || compression === null) return undefined
  if (hello.left === 0) return null
  const block = hello.vector(2)
  if (block === null || hello.left > 0) return undefined
  const extensions = new Reader(block)
  let name: string | null = null
  while (extensions.left > 0) {
    const [type, data] = [extensions.number(2), extensions.vector(2)]
    if (type === null || data === null) return undefined
    if (type !== SERVER_NAME) continue
    const one = nameIn(data)
    // Twice: whoever reads the other one sees another host.
    if (one === undefined || name !== null) return undefined
    name = one
  }
  return name
}

function nameIn(data: Buffer): string | undefined {
  const outer = new Reader(data)
  const list = outer.vector(2)
  if (list === null || outer.left > 0) return undefined
  const names = new Reader(list)
  const [type, name] = [names.number(1), names.vector(2)]
  if (type !== HOST_NAME || name === null || name.length === 0 || names.left > 0) return undefined
  return name.every((byte) => byte > 32 && byte < 127) ? name.toString('latin1') : undefined
}

/** What a client that asks for the wrong name is told: fatal, unrecognized_name. */
export const UNRECOGNIZED_NAME: Buffer = Buffer.from([21, 3, 1, 0, 2, 2, 112])
