/** Policies × what is asked → allowed or denied, by which rule. Pure: nothing is resolved for it, and `agentctl egress check` asks the same. */
import { classOf } from '../../spec/address-classes.ts'
import { type Address, contains, parseAddress, parseCidr } from '../../spec/addresses.ts'
import { type Host, matchesHost } from '../../spec/hosts.ts'
import type { EgressPolicy, EgressRule, EgressScheme } from '../../spec/model.ts'

export interface Ask {
  readonly host: Host
  readonly port: number
  readonly scheme: EgressScheme
  /** Of a request that is seen; absent: not seen yet, or never. */
  readonly method?: string
  /** In its one form, without the query. */
  readonly path?: string
}

export interface Found {
  readonly policy: EgressPolicy
  readonly rule: EgressRule
}

export type Decision =
  | ({ readonly allowed: true } & Found)
  /** `no_rule`: with a rule, that one allows the host, but not this method or path. */
  | { readonly allowed: false; readonly reason: 'no_rule' | 'deny_rule'; readonly by: Found | null }

export function decide(policies: readonly EgressPolicy[], ask: Ask): Decision {
  const denied = first(policies, 'deny', (rule) => matches(rule, ask) && denies(rule, ask))
  if (denied !== null) return { allowed: false, reason: 'deny_rule', by: denied }
  const allowed = first(policies, 'allow', (rule) => matches(rule, ask) && allowsInside(rule, ask))
  if (allowed !== null) return { allowed: true, ...allowed }
  return { allowed: false, reason: 'no_rule', by: first(policies, 'allow', (rule) => matches(rule, ask)) }
}

function first(policies: readonly EgressPolicy[], list: 'allow' | 'deny', fits: (rule: EgressRule) => boolean): Found | null {
  for (const policy of policies) {
    const rule = policy[list].find(fits)
    if (rule !== undefined) return { policy, rule }
  }
  return null
}

const matches = (rule: EgressRule, ask: Ask): boolean => matchesTarget(rule, ask.host) && matchesDoor(rule, ask)

function matchesTarget({ host, cidr }: EgressRule, asked: Host): boolean {
  if (asked.kind === 'name') return host !== null && matchesHost(host, asked.host)
  const address = parseAddress(asked.host)
  return address !== null && cidr !== null && inRange(cidr, address)
}

function inRange(cidr: string, address: Address): boolean {
  const range = parseCidr(cidr)
  return range !== null && contains(range, address)
}

const matchesDoor = ({ ports, scheme }: EgressRule, ask: Ask): boolean =>
  (ports === null || ports.includes(ask.port)) && (scheme === null || scheme === ask.scheme || (scheme === 'http' && ask.scheme === 'ws'))

/** What is not seen yet is asked again when it is. */
const allowsInside = ({ methods, paths }: EgressRule, { method, path }: Ask): boolean =>
  (method === undefined || methods === null || methods.includes(method)) && (path === undefined || paths === null || inPaths(paths, path))

/** A rule that denies a method or a path denies nothing that it does not see. */
const denies = ({ methods, paths }: EgressRule, { method, path }: Ask): boolean =>
  (methods === null || (method !== undefined && methods.includes(method))) &&
  (paths === null || (path !== undefined && (isAmbiguous(path) || inPaths(paths, path))))

/** Servers differ in whether "%2f" or "//" ends a folder: where paths are restricted, nobody may choose the reading. */
const isAmbiguous = (path: string): boolean => /%2f|%5c|%00|\\|\/\/|;/i.test(path) || decoded(path) === null

function inPaths(paths: readonly string[], path: string): boolean {
  const plain = isAmbiguous(path) ? null : decoded(path)
  return plain !== null && paths.some((each) => (each.endsWith('*') ? plain.startsWith(each.slice(0, -1)) : plain === each))
}

/** "/%761" is "/v1" to the server. */
function decoded(path: string): string | null {
  try {
    const plain = decodeURIComponent(path)
    return /%|\/\.{1,2}(?:\/|$)/.test(plain) ? null : plain
  } catch {
    return null
  }
}

/** An address that a name resolved to, or that was asked for itself; after `decide` has allowed it. */
export type Vetted =
  | { readonly ok: true; readonly family: 4 | 6 }
  | {
      readonly ok: false
      readonly reason: 'address_never' | 'address_private' | 'deny_rule'
      readonly kind: string
      readonly by: Found | null
    }

export interface VetOptions {
  readonly policies: readonly EgressPolicy[]
  readonly ask: Ask
  /** Of this project's own networks: the broker, other roles, egress itself. */
  readonly isOwn: (address: Address) => boolean
}

export function vet(text: string, { policies, ask, isOwn }: VetOptions): Vetted {
  const address = parseAddress(text)
  if (address === null) return { ok: false, reason: 'address_never', kind: 'no', by: null }
  const { reach, name } = classOf(address)
  if (reach === 'never') return { ok: false, reason: 'address_never', kind: name, by: null }
  if (isOwn(address)) return { ok: false, reason: 'address_never', kind: "one of the project's own networks'", by: null }
  const door = (rule: EgressRule): boolean => rule.cidr !== null && matchesDoor(rule, ask) && inRange(rule.cidr, address)
  const denied = first(policies, 'deny', (rule) => door(rule) && denies(rule, ask))
  if (denied !== null) return { ok: false, reason: 'deny_rule', kind: 'a denied', by: denied }
  if (reach === 'explicit' && first(policies, 'allow', door) === null) return { ok: false, reason: 'address_private', kind: name, by: null }
  return { ok: true, family: address.family }
}
