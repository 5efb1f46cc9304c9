/**
 * Names of hosts, read strictly and in one way: what the file allows, what an agent asks for and what is dialled are compared in
 * this form and in no other. Anything that two programs could read as two hosts is refused, not repaired.
 */
import { isIP } from 'node:net'

export type Host =
  /** Lower case, without a trailing dot. */
  | { readonly kind: 'name'; readonly host: string }
  /** As the URL standard writes it: IPv6 without brackets. */
  | { readonly kind: 'address'; readonly host: string }

const MAX_NAME = 253
/** "_" stands in names of real services; a "-" at either end does not. */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/

/** null: no host, or one that could be read in two ways. */
export function parseHost(text: string): Host | null {
  if (text.startsWith('[')) return bracketed(text)
  if (text.length > MAX_NAME + 1 || !/^[A-Za-z0-9._-]+$/.test(text)) return null
  const host = text.toLowerCase().replace(/\.$/, '')
  if (host.length > MAX_NAME || !host.split('.').every((label) => LABEL.test(label))) return null
  // "127.1", "0x7f.1" and "2130706433" are addresses to whoever follows the URL standard, and to getaddrinfo.
  if (/^(?:0x[0-9a-f]*|\d+)$/.test(host.slice(host.lastIndexOf('.') + 1))) return asAddress(host)
  return { kind: 'name', host }
}

function bracketed(text: string): Host | null {
  // No zone: "fe80::1%eth0" names an interface of ours.
  if (text.length > 47 || !/^\[[0-9A-Fa-f:.]+\]$/.test(text)) return null
  return isIP(text.slice(1, -1)) === 6 ? asAddress(text) : null
}

function asAddress(text: string): Host | null {
  if (!URL.canParse(`http://${text}/`)) return null
  const host = new URL(`http://${text}/`).hostname.replace(/^\[|\]$/g, '')
  return isIP(host) === 0 ? null : { kind: 'address', host }
}

/** Of an address with its port. */
export const showHost = (host: string): string => (host.includes(':') ? `[${host}]` : host)

export interface Authority {
  readonly host: Host
  /** null: not given. */
  readonly port: number | null
}

/** HOST[:PORT] and nothing else: no user, no path, no "%", no space. */
export function parseAuthority(text: string): Authority | null {
  const [, name, digits] = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d{1,5}))?$/.exec(text) ?? []
  if (name === undefined) return null
  const host = parseHost(name)
  const port = digits === undefined ? null : Number(digits)
  if (host === null || (port !== null && (port < 1 || port > 65_535))) return null
  return { host, port }
}

/** "*.example.com" is every name below it, at any depth, and not example.com itself. */
export const matchesHost = (pattern: string, host: string): boolean =>
  pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) && host.length > pattern.length - 1 : host === pattern
