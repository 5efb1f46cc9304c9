/** The answer's side of HTTP/1.1: status line, headers, and a body by content-length, in chunks, or up to the end of the connection. */

export interface Reply {
  readonly status: number
  readonly body: string
  readonly keepAlive: boolean
}

const MAX_HEAD_BYTES = 65_536
const MAX_REPLY_BYTES = 268_435_456
const HEAD_END = Buffer.from('\r\n\r\n')
const EMPTY: Buffer = Buffer.alloc(0)

interface Head {
  readonly status: number
  readonly length: number | 'chunked' | 'close'
  readonly keepAlive: boolean
}

function parseHead(text: string): Head {
  const [statusLine = '', ...lines] = text.split('\r\n')
  const match = /^HTTP\/1\.[01] (\d{3})/.exec(statusLine)
  if (match === null) throw new Error(`expected an HTTP/1.1 answer, got "${statusLine.slice(0, 80)}"`)
  const headers = new Map(
    lines.map(
      (line) =>
        [
          line.slice(0, line.indexOf(':')).toLowerCase(),
          line
            .slice(line.indexOf(':') + 1)
            .trim()
            .toLowerCase(),
        ] as const,
    ),
  )
  const status = Number(match[1])
  const length = headers.get('content-length')
  const chunked = headers.get('transfer-encoding')?.endsWith('chunked') === true
  const bodiless = status < 200 || status === 204 || status === 304
  return {
    status,
    length: bodiless ? 0 : chunked ? 'chunked' : length === undefined ? 'close' : Number(length),
    keepAlive: headers.get('connection') !== 'close' && (bodiless || chunked || length !== undefined),
  }
}

export class ReplyParser {
  #head: Head | null = null
  /** Bytes that are not understood yet: of the head, or of a chunk. */
  #rest: Buffer = EMPTY
  #body: Buffer[] = []
  #size = 0
  /** Bytes still to come of the current chunk; -1: a size line comes next. */
  #chunk = -1

  /** The reply, when `bytes` complete it. */
  push(bytes: Buffer): Reply | null {
    if (this.#head !== null) return this.#take(bytes)
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const end = this.#rest.indexOf(HEAD_END)
    if (end < 0) {
      if (this.#rest.length > MAX_HEAD_BYTES) throw new Error('the head of the answer is too long')
      return null
    }
    const head = parseHead(this.#rest.toString('latin1', 0, end))
    const after = this.#rest.subarray(end + HEAD_END.length)
    this.#rest = EMPTY
    if (head.status < 200) return this.push(after)
    this.#head = head
    return this.#take(after)
  }

  /** The peer closed: the reply, when that is how it ends. */
  end(): Reply | null {
    return this.#head?.length === 'close' ? this.#reply(this.#head) : null
  }

  #take(bytes: Buffer): Reply | null {
    const head = this.#head
    if (head === null) return null
    if (head.length === 'chunked') return this.#chunks(bytes) ? this.#reply(head) : null
    this.#add(bytes)
    return head.length !== 'close' && this.#size >= head.length ? this.#reply(head) : null
  }

  #add(bytes: Buffer): void {
    this.#size += bytes.length
    if (this.#size > MAX_REPLY_BYTES) throw new Error('the answer is too long')
    if (bytes.length > 0) this.#body.push(bytes)
  }

  #chunks(bytes: Buffer): boolean {
    let data = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    this.#rest = EMPTY
    while (data.length > 0) {
      if (this.#chunk > 0) {
        const part = data.subarray(0, this.#chunk)
        this.#add(part)
        this.#chunk -= part.length
        data = data.subarray(part.length)
        continue
      }
      // The CRLF that ends a chunk's data, the size line, or (after the last chunk) trailers up to an empty line.
      const eol = data.indexOf('\r\n')
      if (eol < 0) break
      const line = data.toString('latin1', 0, eol)
      data = data.subarray(eol + 2)
      if (this.#chunk === 0 || this.#chunk === -2) {
        if (this.#chunk === -2 && line === '') return true
        if (this.#chunk === 0) this.#chunk = -1
        continue
      }
      const size = Number.parseInt(line, 16)
      if (Number.isNaN(size)) throw new Error(`malformed chunk size "${line.slice(0, 20)}"`)
      this.#chunk = size === 0 ? -2 : size
    }
    this.#rest = data
    return false
  }

  #reply(head: Head): Reply {
    const body = this.#body.length === 1 ? (this.#body[0] ?? EMPTY) : Buffer.concat(this.#body)
    return { status: head.status, body: body.toString('utf8'), keepAlive: head.keepAlive }
  }
}
