/** Compose's ways of writing values: sizes, durations, words, ports, mounts. Each gives a value or says why not. */
import type { PortMapping } from './model.ts'

/** `why` never repeats the input, which may be the value of a variable. `later`: understood, not supported yet. */
interface Refused {
  readonly ok: false
  readonly why: string
  readonly later: boolean
}
export type Read<T> = { readonly ok: true; readonly value: T } | Refused
const ok = <T>(value: T): Read<T> => ({ ok: true, value })
const no = (why: string): Refused => ({ ok: false, why, later: false })
const later = (why: string): Refused => ({ ok: false, why, later: true })

const UNITS: { readonly [unit: string]: number } = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 }

/** "512m", "1.5g", "64kb", bytes: powers of 1024, as Docker reads them. */
export function size(text: string): Read<number> {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text)
  if (match === null) return no('expected a size like "512m" or "1g"')
  const bytes = Math.floor(Number(match[1]) * (UNITS[(match[2] ?? '').toLowerCase()] ?? 1))
  return Number.isSafeInteger(bytes) ? ok(bytes) : no('the size is too large')
}

const MS: { readonly [unit: string]: number } = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** "1m30s" as Go writes it, in milliseconds. */
export function duration(text: string): Read<number> {
  if (text === '0') return ok(0)
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return no('expected a duration like "30s" or "1m30s"')
  let total = 0
  for (const part of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) total += Number(part[1]) * (MS[part[2] ?? ''] ?? 0)
  const ms = Math.round(total)
  if (ms > 2_147_483_647) return no('expected a duration below 24 days')
  // The engine refuses less than a millisecond.
  return ms === 0 && total > 0 ? no('expected a duration of at least 1ms') : ok(ms)
}

/** "100k", "1.5m", 5000: of things, so powers of 1000. */
export function count(text: string): Read<number> {
  const match = /^(\d{1,15}(?:\.\d+)?)([km]?)$/i.exec(text)
  const number = Number(match?.[1]) * ({ k: 1_000, m: 1_000_000 }[(match?.[2] ?? '').toLowerCase()] ?? 1)
  return match !== null && Number.isInteger(number) ? ok(number) : no('expected a number like 5000 or "100k"')
}

/** "10/1m", "10/s". */
export function rate(text: string): Read<{ readonly max: number; readonly per_ms: number }> {
  const match = /^(\d{1,7}) ?\/ ?(.+)$/.exec(text)
  if (match === null) return no('expected a limit like "10/1m"')
  const max = Number(match[1])
  const per = duration(/^\d/.test(match[2] ?? '') ? (match[2] ?? '') : `1${match[2] ?? ''}`)
  if (!per.ok) return no('expected a limit like "10/1m"')
  return max >= 1 && max <= 1_000_000 && per.value >= 1
    ? ok({ max, per_ms: per.value })
    : no('expected a limit of 1 to 1000000 in at least 1ms')
}

const LONG: { readonly [unit: string]: number } = { ...MS, d: 86_400_000, w: 604_800_000 }
/** Ten years. */
const LONGEST_MS = 315_360_000_000

/** Longer than a timer: "12h", "30d", "2w". */
export function span(text: string): Read<number> {
  if (text === '0') return ok(0)
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d|w))+$/.test(text)) return no('expected a time like "12h" or "30d"')
  let total = 0
  for (const part of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d|w)/g)) total += Number(part[1]) * (LONG[part[2] ?? ''] ?? 0)
  return total > LONGEST_MS ? no('expected a time of at most ten years') : ok(Math.round(total))
}

export function showDuration(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`
}

/** A string command into words, as Compose does: quotes and backslashes, no shell. */
export function words(text: string): Read<readonly string[]> {
  const found: string[] = []
  let word: string | null = null
  let quote: string | null = null
  for (let at = 0; at < text.length; at++) {
    const letter = text[at] ?? ''
    if (letter === '\\' && quote !== "'") {
      at += 1
      if (at >= text.length) return no('the command ends with a backslash')
      word = (word ?? '') + (text[at] ?? '')
    } else if (quote !== null) {
      if (letter === quote) quote = null
      else word = (word ?? '') + letter
    } else if (letter === '"' || letter === "'") {
      quote = letter
      word ??= ''
    } else if (/\s/.test(letter)) {
      if (word !== null) found.push(word)
      word = null
    } else if (';&|<>'.includes(letter)) {
      return no(`"${letter}" means nothing here: no shell runs this; write ["sh", "-c", "…"]`)
    } else word = (word ?? '') + letter
  }
  if (quote !== null) return no(`the quote ${quote} is not closed`)
  if (word !== null) found.push(word)
  return ok(found)
}

const portNumber = (text: string, least: number): number | null =>
  /^\d{1,5}$/.test(text) && Number(text) >= least && Number(text) <= 65535 ? Number(text) : null

/** An address of this machine: IPv4, or IPv6 in brackets or not. */
export const isAddress = (text: string): boolean =>
  /^\d{1,3}(\.\d{1,3}){3}$/.test(text) ? text.split('.').every((part) => Number(part) <= 255) : /^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$/.test(text)

/** "8000", "8000:8000", "127.0.0.1:8000:8000/udp", "[::1]:80:80". */
export function port(text: string): Read<PortMapping> {
  const expected = 'expected [HOST_IP:][HOST_PORT:]PORT[/udp], like "127.0.0.1:8000:8000"'
  const match = /^(?:(?:(\[[^\]]*\]|[^:[\]]*):)?([^:[\]]*):)?([^:[\]/]+)(?:\/([a-z]+))?$/i.exec(text)
  if (match === null) return no(expected)
  const [, address = '', published = '', target = '', protocol = 'tcp'] = match
  if (target.includes('-') || published.includes('-')) return later('ranges of ports are not supported yet: write one entry per port')
  const inside = portNumber(target, 1)
  const outside = published === '' ? 0 : portNumber(published, 0)
  const ip = address.replace(/^\[|\]$/g, '')
  const kind = protocol.toLowerCase()
  if (inside === null || outside === null) return no(`${expected}; a port is a number from 1 to 65535`)
  if (kind !== 'tcp' && kind !== 'udp') return no('expected tcp or udp after the "/"')
  if (ip !== '' && !isAddress(ip)) return no('expected an IP address before the ports')
  return ok({ host_ip: ip === '' ? '127.0.0.1' : ip, host_port: outside, container_port: inside, protocol: kind })
}

export interface ShortMount {
  readonly source: string
  readonly target: string
  readonly read_only: boolean
}

/** SOURCE:TARGET[:ro]. Options that change nothing on Linux are accepted. */
export function shortMount(text: string): Read<ShortMount> {
  const parts = text.split(':')
  const [source = '', target, options = '', ...rest] = parts
  if (target === undefined)
    return later('a volume without a source is not supported yet: write NAME:TARGET and declare NAME under `volumes`')
  if (/^[A-Za-z]$/.test(source) && (target.startsWith('\\') || options.startsWith('/')))
    return no('a Windows path is not supported: expected SOURCE:TARGET[:ro]')
  if (rest.length > 0 || source === '') return no('expected SOURCE:TARGET[:ro]')
  let readOnly = false
  for (const option of options.split(',').filter((each) => each !== '')) {
    if (option === 'ro') readOnly = true
    else if (!['rw', 'cached', 'delegated', 'consistent'].includes(option)) return no('expected ro or rw as the option')
  }
  if (!target.startsWith('/')) return no('expected an absolute path as the target')
  return ok({ source, target, read_only: readOnly })
}

/** TARGET[:size=SIZE]. */
export function tmpfs(text: string): Read<{ readonly target: string; readonly size: number | null }> {
  const [target = '', options = '', ...rest] = text.split(':')
  if (rest.length > 0) return no('expected TARGET[:size=SIZE]')
  let bytes: number | null = null
  for (const option of options.split(',').filter((each) => each !== '')) {
    const [name, value = ''] = option.split('=')
    if (name !== 'size') return later('options other than size=SIZE are not supported yet')
    const read = size(value)
    if (!read.ok) return read
    bytes = read.value
  }
  return ok({ target, size: bytes })
}
