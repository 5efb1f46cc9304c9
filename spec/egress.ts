/** The `egress` of the file, normalised: every way of writing a rule becomes one. What would allow too much is refused here. */
import { posix } from 'node:path'
import { domainToASCII } from 'node:url'
import { classOf } from './address-classes.ts'
import { parseAddress, parseCidr } from './addresses.ts'
import type { Context } from './context.ts'
import { found } from './describe.ts'
import { parseAuthority, parseHost } from './hosts.ts'
import type { EgressPolicy, EgressRule, EgressScheme } from './model.ts'
import { placeOf, type Span } from './source.ts'
import { child, entriesOf, itemsOf, type Node, textOf } from './tree.ts'
import { absent } from './workload.ts'

/** Set in agents that have rules, so that nothing in them needs to be configured. */
export const PROXY_VARIABLES: readonly string[] = [
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'NO_PROXY',
  'NODE_USE_ENV_PROXY',
  'http_proxy',
  'https_proxy',
  'no_proxy',
]

type List = 'allow' | 'deny'

export function egressOf(node: Node | undefined, context: Context): { readonly [name: string]: EgressPolicy } {
  return Object.fromEntries(
    entriesOf(node).map(([name, { key, value }]) => {
      const rules = (list: List): readonly EgressRule[] =>
        itemsOf(child(value, list)).flatMap((item) => {
          const rule = ruleOf(item, list, context)
          return rule === null ? [] : [rule]
        })
      return [name, { name, at: placeText(key), allow: rules('allow'), deny: rules('deny') }]
    }),
  )
}

/** As denials name it: "agents.yaml:31". */
function placeText(span: Span): string {
  const { file, line } = placeOf(span)
  return `${posix.basename(file)}:${line}`
}

function ruleOf(node: Node, list: List, context: Context): EgressRule | null {
  const at = placeText(node.span)
  if (node.kind === 'scalar') {
    if (node.value === null) return null
    const target = hostOf(node, list, context)
    if (target === null) return null
    // Allowing says a port always; denying without one means all of them.
    const ports = target.port === null ? (list === 'allow' ? [443] : null) : [target.port]
    return { at, host: target.host, cidr: null, ports, scheme: list === 'allow' ? 'https' : null, methods: null, paths: null }
  }
  if (node.kind !== 'map') return null
  const scheme = schemeOf(child(node, 'scheme')) ?? (list === 'allow' ? 'https' : null)
  const [host, cidr] = [child(node, 'host'), child(node, 'cidr')]
  if (absent(host) === absent(cidr)) {
    context.report(absent(host) ? 'AG1007' : 'AG2003', node.span, 'an egress rule needs either host or cidr', {
      help: absent(host) ? 'for example host: api.example.com' : 'keep one of the two',
    })
    return null
  }
  const target = absent(host) ? null : hostOf(host, list, context)
  const range = absent(cidr) ? null : cidrOf(cidr, list, context)
  if (target === null && range === null) return null
  const ports = portsOf(node, target?.port ?? null, scheme, list, context)
  const { methods, paths } = insideOf(node, scheme, context)
  return { at, host: target?.host ?? null, cidr: range, ports, scheme, methods, paths }
}

const SCHEMES: { readonly [text: string]: EgressScheme } = { https: 'https', wss: 'https', http: 'http', ws: 'ws', tcp: 'tcp' }
const schemeOf = (node: Node | undefined): EgressScheme | null => SCHEMES[textOf(node)] ?? null

interface Target {
  readonly host: string
  readonly port: number | null
}
interface Unfit {
  readonly tooMuch?: boolean
  readonly why: string
  readonly help: string
}
const LIKE = 'write a host like "api.example.com", "*.example.com" or "api.example.com:8443"'
/** Below these, too, everybody can have a name. Not the whole public suffix list: the usual ones. */
const SECOND_LEVEL = /^(?:ac|co|com|edu|gov|net|org)\.[a-z]{2}$/

function hostOf(node: Node, list: List, context: Context): Target | null {
  const read = parseTarget(textOf(node), list)
  if (!('why' in read)) return read
  context.report(read.tooMuch === true ? 'AG3004' : 'AG1005', node.span, `${read.why}, got ${found(node)}`, { help: read.help })
  return null
}

function parseTarget(text: string, list: List): Target | Unfit {
  const wild = text.startsWith('*.')
  const rest = wild ? text.slice(2) : text
  if (/^\*?(?::\d+)?$/.test(text) || rest === '')
    return list === 'allow'
      ? { tooMuch: true, why: 'expected hosts by name: "*" would allow all of them', help: 'name the hosts that are needed' }
      : { why: 'expected a host to deny', help: 'what no rule allows is denied already: leave it out' }
  const scheme = /^([a-z][a-z0-9+.-]*):\/\/([^/]*)/i.exec(text)
  if (scheme !== null)
    return { why: 'expected a host, not an address with a scheme', help: `write {host: ${scheme[2]}, scheme: ${scheme[1]}}` }
  if (parseCidr(text) !== null) return { why: 'expected a host', help: `write {cidr: ${text}}` }
  if (rest.includes('/')) return { why: 'expected a host without a path', help: 'write {host: …, scheme: http, paths: ["/…"]}' }
  if (rest.includes('*')) return { why: 'expected a "*" only as the first label of a host', help: LIKE }
  if (/[^\0-\x7f]/.test(rest)) {
    const ascii = domainToASCII(rest)
    return { why: 'expected a host in ASCII', help: ascii === '' ? LIKE : `write "${wild ? '*.' : ''}${ascii}"` }
  }
  const target = parseAuthority(rest)
  if (target === null) return { why: 'expected a host, with or without a port', help: LIKE }
  if (target.host.kind === 'address') {
    const { host } = target.host
    return { why: 'expected a name: an address is allowed by cidr', help: `write {cidr: ${host}/${host.includes(':') ? 128 : 32}}` }
  }
  const { host } = target.host
  if (wild && list === 'allow' && (!host.includes('.') || SECOND_LEVEL.test(host)))
    return {
      tooMuch: true,
      why: `expected a domain of somebody: below "${host}" everybody can have a name`,
      help: 'name the hosts that are needed',
    }
  if (!host.includes('.')) return { why: 'expected a whole name, with a dot', help: 'a service of the project is reached with `uses`' }
  return { host: wild ? `*.${host}` : host, port: target.port }
}

/** Wider ones cover ranges of very different kinds. */
const LEAST_BITS = { 4: 8, 6: 16 } as const

function cidrOf(node: Node, list: List, context: Context): string | null {
  const text = textOf(node)
  const cidr = parseCidr(text)
  if (cidr === null) {
    const single = parseHost(text) ?? parseHost(`[${text}]`)
    const isSingle = single?.kind === 'address' && parseAddress(text) !== null
    const help = isSingle ? `write ${text}/${text.includes(':') ? 128 : 32}` : 'no bits may be set behind the prefix'
    context.report('AG1005', node.span, `expected a range of addresses like "10.1.2.0/24", got ${found(node)}`, { help })
    return null
  }
  if (list === 'deny') return text
  const kind = classOf(cidr)
  if (cidr.bits < LEAST_BITS[cidr.family])
    context.report('AG3004', node.span, `expected a range of /${LEAST_BITS[cidr.family]} or smaller, got ${found(node)}`, {
      help: 'name the networks that are needed',
    })
  else if (kind.reach === 'never')
    context.report('AG3004', node.span, `${found(node)} is ${kind.name} range, which egress never dials`, { help: 'remove the rule' })
  else return text
  return null
}

const DEFAULT_PORT = { https: 443, http: 80, ws: 80 } as const

/** null: all, which only a deny rule can say. */
function portsOf(node: Node, written: number | null, scheme: EgressScheme | null, list: List, context: Context): readonly number[] | null {
  const [one, many] = [child(node, 'port'), child(node, 'ports')]
  const given = [...(absent(one) ? [] : [one]), ...itemsOf(many)]
  if ((written === null ? 0 : 1) + (absent(one) ? 0 : 1) + (absent(many) ? 0 : 1) > 1)
    context.report('AG2003', (one ?? many ?? node).span, 'the port of an egress rule is given twice', { help: 'keep one of them' })
  if (written !== null) return [written]
  const ports = given.flatMap((item) => {
    const port = Number(textOf(item))
    if (/^\d+$/.test(textOf(item)) && port >= 1 && port <= 65_535) return [port]
    context.report('AG1005', item.span, `expected a port from 1 to 65535, got ${found(item)}`)
    return []
  })
  if (ports.length > 0) return [...new Set(ports)].sort((a, b) => a - b)
  if (list === 'deny') return null
  if (scheme !== 'tcp' && scheme !== null) return [DEFAULT_PORT[scheme]]
  if (given.length === 0)
    context.report('AG1007', node.span, 'an egress rule with scheme: tcp needs a port', { help: 'for example port: 22' })
  return []
}

function insideOf(node: Node, scheme: EgressScheme | null, context: Context): Pick<EgressRule, 'methods' | 'paths'> {
  const list = (key: 'methods' | 'paths', read: (text: string, node: Node) => string | null): readonly string[] | null => {
    const given = child(node, key)
    if (absent(given)) return null
    if (scheme !== 'http' && (scheme !== 'ws' || key === 'methods')) {
      const why = scheme === 'ws' ? 'a WebSocket is opened by GET alone' : 'what is inside TLS or tcp is not seen'
      context.report('AG1005', given.span, `${key} of an egress rule are for scheme: http: ${why}`, {
        help: `remove ${key}, or add scheme: http`,
      })
      return null
    }
    return itemsOf(given).flatMap((item) => read(textOf(item), item) ?? [])
  }
  return {
    methods: list('methods', (text, item) => {
      if (/^[A-Za-z-]{1,32}$/.test(text) && text.toUpperCase() !== 'CONNECT') return text.toUpperCase()
      context.report('AG1005', item.span, `expected a method like "GET", got ${found(item)}`)
      return null
    }),
    paths: list('paths', (text, item) => pathOf(text, item, context)),
  }
}

/** Compared with the path of a request in its one form, so it has to be in that form. */
function pathOf(text: string, node: Node, context: Context): string | null {
  const path = text.replace(/\*$/, '')
  const canonical = path.startsWith('/') && URL.canParse(`http://h${path}`) ? new URL(`http://h${path}`).pathname : null
  if (canonical === path && !/[*%]|\/\//.test(path)) return text
  context.report('AG1005', node.span, `expected a path like "/v1/models" or "/v1/*", got ${found(node)}`, {
    help: 'a "*" at the end stands for any rest; "%", "//" and ".." are refused',
  })
  return null
}
