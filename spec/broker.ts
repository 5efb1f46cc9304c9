/** The `broker` and `artifacts` of the file, normalised; and what an address of a broker says. */
import { type ArtifactSettings, type BrokerSettings, DEFAULT_ARTIFACTS, DEFAULT_BROKER } from './model.ts'
import type { Context } from './context.ts'
import { child, itemsOf, type Node, textOf } from './tree.ts'
import { size, span } from './values.ts'
import { absent, integer, readOr } from './workload.ts'

export interface BrokerAddress {
  readonly tls: boolean
  /** null: the user "default". */
  readonly username: string | null
  readonly host: string
  readonly port: number
  readonly db: number
}

const PORT = 6379

/** Where the broker of a checked project is; null: the text is no such address. */
export function brokerAddress(text: string): BrokerAddress | null {
  const read = parseAddress(text)
  return 'why' in read ? null : read
}

type Unfit = { readonly why: string; readonly help: string }
const LIKE = 'write redis://[USER@]HOST[:PORT][/DB], or rediss:// for TLS'

function parseAddress(text: string): BrokerAddress | Unfit {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase()
  if (scheme === undefined || !URL.canParse(text)) return { why: 'expected the address of a Redis', help: LIKE }
  if (scheme !== 'redis' && scheme !== 'rediss')
    return { why: `a broker at ${scheme}:// is not supported: expected redis:// or rediss://`, help: LIKE }
  const url = new URL(text)
  if (url.password !== '')
    return {
      why: 'a password in the address would stand in the record of the project',
      help: 'take it out, and write password: {secret: NAME} with NAME under the top-level `secrets`',
    }
  if (url.search !== '' || url.hash !== '') return { why: 'options in the address are not supported', help: LIKE }
  const db = /^\/?(\d{1,5})?$/.exec(url.pathname)
  if (db === null) return { why: 'expected the number of a database after the "/"', help: LIKE }
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  if (host === '') return { why: 'the address has no host', help: LIKE }
  if (host === 'localhost' || host.startsWith('127.') || host === '::1')
    return {
      why: `${host} would be the egress container itself, which makes the connection`,
      help: 'write host.docker.internal for this machine, or the name that other machines use',
    }
  try {
    const username = decodeURIComponent(url.username)
    if (/[\s\p{Cc}]/u.test(username)) return { why: 'the user in the address has spaces in it', help: LIKE }
    return {
      tls: scheme === 'rediss',
      username: username === '' ? null : username,
      host,
      port: Number(url.port) || PORT,
      db: Number(db[1] ?? 0),
    }
  } catch {
    return { why: 'the user in the address is not encoded right', help: LIKE }
  }
}

/** One way to write each address, so that a record does not change for a "/" more. */
function showAddress({ tls, username, host, port, db }: BrokerAddress): string {
  const user = username === null ? '' : `${encodeURIComponent(username)}@`
  return `${tls ? 'rediss' : 'redis'}://${user}${host.includes(':') ? `[${host}]` : host}:${port}/${db}`
}

export function brokerOf(node: Node | undefined, context: Context): BrokerSettings {
  if (node?.kind !== 'map') return DEFAULT_BROKER
  const address = addressOf(child(node, 'url'), context)
  const secret = (key: string): string | null => textOf(child(child(node, key), 'secret')) || null
  const durability = textOf(child(node, 'durability'))
  const settings = {
    url: address === null ? null : showAddress(address),
    password: secret('password'),
    ca: secret('ca'),
    durability: durability === 'none' || durability === 'strict' ? durability : DEFAULT_BROKER.durability,
    concurrency: absent(child(node, 'concurrency')) ? null : integer(child(node, 'concurrency'), 1, 1, 1_000_000, context),
  } as const
  const needless = (key: 'password' | 'ca', why: string, help: string): void => {
    const place = child(node, key)
    if (settings[key] !== null && place !== undefined) context.report('AG1005', place.span, why, { help })
  }
  if (absent(child(node, 'url'))) {
    const help = 'add url, or remove the key'
    needless('password', 'the password of the broker that agentctl runs is made by agentctl', help)
    needless('ca', 'ca is for a broker of your own', help)
  } else if (address !== null && !address.tls)
    needless('ca', 'ca is for TLS, and a redis:// address has none', 'write rediss://, or remove ca')
  return settings
}

/** Its text is never shown: it may hold a password. */
function addressOf(node: Node | undefined, context: Context): BrokerAddress | null {
  if (absent(node)) return null
  const read = parseAddress(textOf(node))
  if (!('why' in read)) return read
  context.report('AG1005', node.span, read.why, { help: read.help })
  return null
}

export function artifactsOf(node: Node | undefined, context: Context): ArtifactSettings {
  const bytes = (key: 'max_size' | 'max_run' | 'max_total'): number => {
    const value = child(node, key)
    return absent(value) ? DEFAULT_ARTIFACTS[key] : readOr(size(textOf(value)), value, context, DEFAULT_ARTIFACTS[key])
  }
  const settings = { max_size: bytes('max_size'), max_run: bytes('max_run'), max_total: bytes('max_total') }
  for (const [less, more] of [
    ['max_size', 'max_run'],
    ['max_run', 'max_total'],
  ] as const) {
    const place = child(node, less) ?? child(node, more)
    if (settings[less] <= settings[more] || place === undefined) continue
    context.report('AG1005', place.span, `${less} of artifacts is above ${more} (${settings[less]} and ${settings[more]} bytes)`, {
      help: `raise ${more}, or lower ${less}`,
    })
  }
  const types = child(node, 'types')
  const retention = child(node, 'retention')
  const retention_ms = absent(retention)
    ? DEFAULT_ARTIFACTS.retention_ms
    : readOr(span(textOf(retention)), retention, context, DEFAULT_ARTIFACTS.retention_ms)
  return { ...settings, types: absent(types) ? null : itemsOf(types).map((type) => textOf(type).toLowerCase()), retention_ms }
}
