/** What a client is told: who denied it, where that stands, and the one line that would allow it. Never an address that a name resolved to. */
import { classOf } from '../../spec/address-classes.ts'
import { parseAddress } from '../../spec/addresses.ts'
import { showHost } from '../../spec/hosts.ts'
import type { EgressPolicy, EgressRule } from '../../spec/model.ts'
import type { Ask, Decision, Found, Vetted } from './decide.ts'

export const showRule = ({ policy, rule }: Found): string => `${rule.at} egress.${policy.name}`

const DEFAULT_PORT: { readonly [scheme: string]: number } = { https: 443, http: 80, ws: 80 }

/** The rule that would allow it, as one writes it. */
export function suggestion({ host, port, scheme }: Ask): string {
  if (host.kind === 'name' && scheme === 'https') return port === 443 ? `"${host.host}"` : `"${host.host}:${port}"`
  const target = host.kind === 'name' ? `host: ${host.host}` : `cidr: ${host.host}/${host.host.includes(':') ? 128 : 32}`
  const door = [...(port === DEFAULT_PORT[scheme] ? [] : [`port: ${port}`]), ...(scheme === 'https' ? [] : [`scheme: ${scheme}`])]
  return `{${[target, ...door].join(', ')}}`
}

const named = (policies: readonly EgressPolicy[]): string => policies.map(({ at, name }) => `${at} egress.${name}`).join(', ')

export function explainDenial(policies: readonly EgressPolicy[], ask: Ask, decision: Decision & { readonly allowed: false }): string {
  const { by, reason } = decision
  const [policy] = policies
  if (policy === undefined) return 'denied: the agent has no egress policy'
  if (by !== null && reason === 'deny_rule') return `denied by ${by.rule.at} egress.${by.policy.name}.deny (${showTarget(by.rule)})`
  if (by !== null) return `denied by ${showRule(by)}: it allows ${showInside(by.rule)} of ${showTarget(by.rule)} alone`
  const address = ask.host.kind === 'address' ? parseAddress(ask.host.host) : null
  const kind = address === null ? null : classOf(address)
  // No rule would help.
  if (kind?.reach === 'never') return `denied: "${showHost(ask.host.host)}" is ${kind.name} address, which egress never dials`
  return `denied by ${named(policies)}; add ${suggestion(ask)} to egress.${policy.name}.allow`
}

export function explainAddress(policies: readonly EgressPolicy[], ask: Ask, vetted: Vetted & { readonly ok: false }): string {
  const what = `"${showHost(ask.host.host)}" ${ask.host.kind === 'name' ? 'resolves to' : 'is'} ${vetted.kind} address`
  if (vetted.by !== null) return `denied by ${vetted.by.rule.at} egress.${vetted.by.policy.name}.deny: ${what}`
  if (vetted.reason === 'address_never') return `denied: ${what}, which egress never dials`
  const [policy] = policies
  return `denied by ${named(policies)}: ${what}; add a cidr rule for it to egress.${policy?.name ?? 'NAME'}.allow`
}

const showTarget = ({ host, cidr }: EgressRule): string => host ?? cidr ?? ''
const showInside = ({ methods, paths }: EgressRule): string =>
  [...(methods === null ? [] : [methods.join(', ')]), ...(paths === null ? [] : [paths.join(', ')])].join(' on ')
