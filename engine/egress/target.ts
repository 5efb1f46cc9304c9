/** What a request is for, from its first line: an absolute address on the proxy itself, a path inside a tunnel. Pure; throws Refused. */
import { type Host, parseAuthority, showHost } from '../../spec/hosts.ts'
import { Refused } from './refused.ts'

export interface Target {
  readonly host: Host
  readonly port: number
  /** The path in its one form, without the query: what rules are compared with. */
  readonly path: string
  /** What is sent on: that path with its query. */
  readonly url: string
}

const malformed = (why: string): Refused => new Refused(400, 'malformed', `refused: ${why}`)

/** Of CONNECT: HOST:PORT and nothing else. */
export function connectTarget(text: string): Pick<Target, 'host' | 'port'> {
  const authority = parseAuthority(text)
  if (authority === null || authority.port === null) throw malformed('expected CONNECT HOST:PORT with a plain host')
  return { host: authority.host, port: authority.port }
}

export function absoluteTarget(text: string): Target {
  if (text.startsWith('/')) throw malformed('this is a proxy: expected an address like http://HOST/PATH')
  const [, scheme = '', name = '', rest = ''] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(text) ?? []
  if (scheme.toLowerCase() !== 'http' && scheme.toLowerCase() !== 'ws')
    throw malformed('expected an http:// address; https goes by CONNECT')
  const authority = parseAuthority(name)
  if (authority === null) throw malformed('expected a plain host in the address')
  return { host: authority.host, port: authority.port ?? 80, ...pathOf(rest) }
}

/** Inside a tunnel the host is the one that the tunnel was opened to. */
export function originTarget(text: string, to: Pick<Target, 'host' | 'port'>): Target {
  if (!text.startsWith('/') && text !== '*') throw malformed('expected a path inside of the tunnel')
  return { ...to, ...pathOf(text === '*' ? '/' : text) }
}

/** Dot segments and escapes of them are gone from what is compared and from what is sent alike. */
function pathOf(rest: string): Pick<Target, 'path' | 'url'> {
  const text = rest.startsWith('/') ? rest : `/${rest}`
  const url = /^[\x21-\x7e]*$/.test(text) ? URL.parse(`http://host${text}`) : null
  if (url === null) throw malformed('expected a path in ASCII')
  return { path: url.pathname, url: `${url.pathname}${url.search}` }
}

/** The Host header that goes with it. */
export const hostHeader = ({ host, port }: Pick<Target, 'host' | 'port'>): string =>
  port === 80 ? showHost(host.host) : `${showHost(host.host)}:${port}`
