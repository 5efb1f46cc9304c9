/** Heads that pass through: what belongs to one hop stays on it, and the host is ours to write. */
import { Refused } from './refused.ts'

const HOP = new Set(['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect', 'http2-settings'])
/** A client of ours has no proxies before it: what it says about some is invented. */
const INVENTED = new Set(['forwarded', 'via', 'x-real-ip'])

type Raw = readonly string[]

function* pairs(raw: Raw): Generator<readonly [name: string, value: string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) yield [raw[index] ?? '', raw[index + 1] ?? '']
}

/** Headers that `Connection` names belong to the hop, too. */
function namedByConnection(raw: Raw): ReadonlySet<string> {
  const named = new Set<string>()
  for (const [name, value] of pairs(raw))
    if (name.toLowerCase() === 'connection') for (const token of value.split(',')) named.add(token.trim().toLowerCase())
  return named
}

function endToEnd(raw: Raw): string[] {
  const named = namedByConnection(raw)
  const kept: string[] = []
  for (const [name, value] of pairs(raw)) {
    const low = name.toLowerCase()
    // A message's own length must not be taken away by naming it there.
    if (HOP.has(low) || low.startsWith('proxy-') || (named.has(low) && low !== 'content-length' && low !== 'host')) continue
    kept.push(name, value)
  }
  return kept
}

export interface RequestHead {
  readonly headers: string[]
  readonly hasBody: boolean
}

/** Throws Refused where two servers could see two messages. `host`: what the client must have asked for, with its port. */
export function requestHead(raw: Raw, host: string): RequestHead {
  const count = (wanted: string): number => [...pairs(raw)].filter(([name]) => name.toLowerCase() === wanted).length
  const malformed = (why: string): Refused => new Refused(400, 'malformed', `refused: ${why}`)
  if (count('host') > 1) throw malformed('more than one Host')
  if (count('content-length') > 1) throw malformed('more than one Content-Length')
  const encodings = [...pairs(raw)].flatMap(([name, value]) => (name.toLowerCase() === 'transfer-encoding' ? [value] : []))
  if (encodings.length > 1 || (encodings[0] !== undefined && encodings[0] !== 'chunked'))
    throw malformed('Transfer-Encoding is not "chunked"')
  const isChunked = encodings.length === 1
  if (isChunked && count('content-length') > 0) throw malformed('Content-Length beside Transfer-Encoding')
  for (const [, value] of pairs(raw)) if (/[\r\n\0]/.test(value)) throw malformed('a folded header')
  const headers = ['host', host]
  const kept = endToEnd(raw)
  for (const [name, value] of pairs(kept)) {
    const low = name.toLowerCase()
    if (low !== 'host' && !INVENTED.has(low) && !low.startsWith('x-forwarded-')) headers.push(name, value)
  }
  if (isChunked) headers.push('transfer-encoding', 'chunked')
  const [length] = [...pairs(raw)].flatMap(([name, value]) => (name.toLowerCase() === 'content-length' ? [value] : []))
  return { headers, hasBody: isChunked || (length !== undefined && length !== '0') }
}

export const responseHeaders = (raw: Raw): string[] => endToEnd(raw)
