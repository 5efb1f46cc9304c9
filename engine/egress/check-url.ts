/** What the proxy would say to an address, without asking anybody: `agentctl egress check`. Pure. */
import { type Authority, parseAuthority } from '../../spec/hosts.ts'
import type { EgressPolicy, EgressScheme } from '../../spec/model.ts'
import { type Ask, decide, vet } from './decide.ts'
import { explainAddress, explainDenial, showRule } from './denial.ts'
import type { Reason } from './refused.ts'

export interface UrlVerdict {
  readonly host: string
  readonly port: number
  readonly scheme: EgressScheme
  readonly verdict: 'allow' | 'deny'
  readonly reason: Reason
  /** "agents.yaml:31 egress.web" */
  readonly rule: string | null
  readonly message: string
}

const SCHEMES: { readonly [text: string]: readonly [EgressScheme, number | null] } = {
  https: ['https', 443],
  wss: ['https', 443],
  http: ['http', 80],
  ws: ['ws', 80],
  tcp: ['tcp', null],
  ssh: ['tcp', 22],
}
export const URL_SCHEMES: readonly string[] = Object.keys(SCHEMES)

/** null: no address of these schemes, or a host that the proxy would not read. */
export function askOfUrl(text: string, method: string): Ask | null {
  const [, scheme = 'https', name = '', rest = ''] = /^(?:([a-z]+):\/\/)?([^/?#]*)(.*)$/is.exec(text) ?? []
  const known = SCHEMES[scheme.toLowerCase()]
  const authority: Authority | null = parseAuthority(name)
  const port = authority?.port ?? known?.[1] ?? null
  if (known === undefined || authority === null || port === null) return null
  if (known[0] === 'https' || known[0] === 'tcp') return { host: authority.host, port, scheme: known[0] }
  const path = rest.startsWith('/') ? rest : `/${rest}`
  if (!URL.canParse(`http://host${path}`)) return null
  return { host: authority.host, port, scheme: known[0], method, path: new URL(`http://host${path}`).pathname }
}

export function checkAsk(policies: readonly EgressPolicy[], asked: Ask): UrlVerdict {
  // A tunnel that may carry anything may carry TLS.
  const raw = decide(policies, { ...asked, scheme: 'tcp' })
  const ask: Ask = asked.scheme === 'https' && raw.allowed ? { ...asked, scheme: 'tcp' } : asked
  const decision = decide(policies, ask)
  const common = { host: ask.host.host, port: ask.port, scheme: ask.scheme }
  if (!decision.allowed) {
    const { by, reason } = decision
    const message = explainDenial(policies, ask, decision)
    return { ...common, verdict: 'deny', reason, rule: by === null ? null : showRule(by), message }
  }
  const rule = showRule(decision)
  if (ask.host.kind === 'address') {
    const vetted = vet(ask.host.host, { policies, ask, isOwn: () => false })
    if (!vetted.ok) return { ...common, verdict: 'deny', reason: vetted.reason, rule, message: explainAddress(policies, ask, vetted) }
  }
  return { ...common, verdict: 'allow', reason: 'allowed', rule, message: `allowed by ${rule}` }
}
