/** Heads that pass through: what belongs to one hop stays on it, and the host is ours to write. One pass: it is done for every request. */
import { Refused } from './refused.ts'

const HOP = new Set(['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect', 'http2-settings'])
/** A client of ours has no proxies before it: what it says about some is invented. */
const INVENTED = new Set(['forwarded', 'via', 'x-real-ip'])
/** A message's own length and host must not be taken away by naming them in `Connection`. */
const KEPT = new Set(['content-length', 'host'])

/** As Node gives them: name, value, name, value … */
type Raw = readonly string[]

/** Headers that `Connection` names belong to the hop, too. null: none but the usual. */
function namedByConnection(value: string, before: Set<string> | null): Set<string> | null {
  if (value === 'keep-alive' || value === 'close') return before
  const named = before ?? new Set<string>()
  for (const token of value.split(',')) named.add(token.trim().toLowerCase())
  return named
}

const isHop = (name: string): boolean => HOP.has(name) || name.startsWith('proxy-')

/** Without those that `named` says. */
const without = (raw: string[], named: ReadonlySet<string> | null): string[] =>
  named === null
    ? raw
    : raw.filter((_, index) => {
        const name = (raw[index - (index % 2)] ?? '').toLowerCase()
        return !named.has(name) || KEPT.has(name)
      })

export interface RequestHead {
  readonly headers: string[]
  readonly hasBody: boolean
}

const malformed = (why: string): Refused => new Refused(400, 'malformed', `refused: ${why}`)

/** Throws Refused where two servers could see two messages. `host`: what the client must have asked for, with its port. */
export function requestHead(raw: Raw, host: string): RequestHead {
  const headers = ['host', host]
  let [hosts, length, encoding, named]: [number, string | null, string | null, Set<string> | null] = [0, null, null, null]
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const value = raw[index + 1] ?? ''
    const low = name.toLowerCase()
    if (/[\r\n\0]/.test(value)) throw malformed('a folded header')
    if (low === 'host') {
      hosts += 1
      continue
    }
    if (low === 'content-length') {
      if (length !== null) throw malformed('more than one Content-Length')
      length = value
    }
    if (low === 'transfer-encoding') {
      if (encoding !== null || value !== 'chunked') throw malformed('Transfer-Encoding is not "chunked"')
      encoding = value
    }
    if (low === 'connection') named = namedByConnection(value, named)
    if (!isHop(low) && !INVENTED.has(low) && !low.startsWith('x-forwarded-')) headers.push(name, value)
  }
  if (hosts > 1) throw malformed('more than one Host')
  if (encoding !== null && length !== null) throw malformed('Content-Length beside Transfer-Encoding')
  const kept = without(headers, named)
  if (encoding !== null) kept.push('transfer-encoding', 'chunked')
  return { headers: kept, hasBody: encoding !== null || (length !== null && length !== '0') }
}

export function responseHeaders(raw: Raw): string[] {
  const headers: string[] = []
  let named: Set<string> | null = null
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const value = raw[index + 1] ?? ''
    const low = name.toLowerCase()
    if (low === 'connection') named = namedByConnection(value, named)
    if (!isHop(low)) headers.push(name, value)
  }
  return without(headers, named)
}
