import { describe, expect, test } from 'vitest'
import { askOfUrl, checkAsk } from '../../../../engine/egress/check-url.ts'
import { type Ask, decide, vet } from '../../../../engine/egress/decide.ts'
import { contains, type parseAddress, parseCidr } from '../../../../spec/addresses.ts'
import { parseAuthority } from '../../../../spec/hosts.ts'
import { type EgressScheme, egressPolicies } from '../../../../spec/model.ts'
import { projectOf } from '../../../support/egress.ts'

const policiesOf = (rules: string) => {
  const project = projectOf(`agents:\n  a: { egress: [web, more] }\negress:\n  web:\n${rules}\n  more: { allow: [more.test] }\n`)
  return egressPolicies(project, project.agents['a'] ?? {})
}
const RULES = `    allow:
      - api.test
      - "*.wild.test"
      - { host: http.test, scheme: http }
      - { host: limited.test, scheme: http, methods: [get, HEAD], paths: ["/v1/*", /only] }
      - { host: ws.test, scheme: ws }
      - { host: ssh.test, port: 22, scheme: tcp }
      - { host: many.test, ports: [8443, 443] }
      - { cidr: 10.1.2.0/24, ports: [443, 5432] }
      - { cidr: 11.22.0.0/16, scheme: http }
    deny:
      - no.wild.test
      - "*.no.wild.test"
      - { host: http.test, scheme: http, paths: ["/admin*"] }
      - { cidr: 10.1.2.128/25 }
      - "*.other.test:8443"`
const policies = policiesOf(RULES)
const ask = (target: string, scheme: EgressScheme = 'https', inside: { method?: string; path?: string } = {}): Ask => {
  const authority = parseAuthority(target)
  if (authority === null) throw new Error(target)
  return { host: authority.host, port: authority.port ?? (scheme === 'https' ? 443 : 80), scheme, ...inside }
}
const verdict = (...args: Parameters<typeof ask>): string => {
  const decision = decide(policies, ask(...args))
  return decision.allowed ? `${decision.rule.at} ${decision.policy.name}` : decision.reason
}

describe('decisions', () => {
  test.each([
    ['api.test', 'https', 'agents.yaml:6 web'],
    ['more.test', 'https', 'agents.yaml:21 more'],
    ['api.test:8443', 'https', 'no_rule'],
    ['api.test:443', 'http', 'no_rule'],
    ['api.test:443', 'tcp', 'no_rule'],
    ['x.wild.test', 'https', 'agents.yaml:7 web'],
    ['wild.test', 'https', 'no_rule'],
    ['no.wild.test', 'https', 'deny_rule'],
    ['a.no.wild.test', 'https', 'deny_rule'],
    ['http.test', 'http', 'agents.yaml:8 web'],
    ['http.test', 'ws', 'agents.yaml:8 web'],
    ['http.test:443', 'https', 'no_rule'],
    ['ws.test', 'ws', 'agents.yaml:10 web'],
    ['ws.test', 'http', 'no_rule'],
    ['ssh.test:22', 'tcp', 'agents.yaml:11 web'],
    ['ssh.test:22', 'https', 'no_rule'],
    ['many.test:8443', 'https', 'agents.yaml:12 web'],
    ['10.1.2.3', 'https', 'agents.yaml:13 web'],
    ['10.1.2.200', 'https', 'deny_rule'],
    ['10.1.3.3', 'https', 'no_rule'],
    ['api.test.evil.test', 'https', 'no_rule'],
    ['notapi.test', 'https', 'no_rule'],
  ] as const)('%s by %s: %s', (target, scheme, expected) => expect(verdict(target, scheme)).toBe(expected))

  test.each([
    ['GET', '/v1/a', true],
    ['HEAD', '/only', true],
    ['POST', '/v1/a', false],
    ['GET', '/v1', false],
    ['GET', '/only/more', false],
    ['GET', '/%76%31/a', true],
    ['GET', '/v1/%2e%2e/admin', false],
    ['GET', '/v1/..%2fadmin', false],
    ['GET', '/v1/%252e', false],
    ['GET', '/v1//a', false],
    ['GET', '/v1/a;b', false],
    ['GET', '/v1/%zz', false],
    ['GET', '/v1/\\x', false],
  ])('%s %s: %s', (method, path, allowed) => expect(decide(policies, ask('limited.test', 'http', { method, path })).allowed).toBe(allowed))

  test.each([
    ['/admin', 'deny_rule'],
    ['/administrator', 'deny_rule'],
    ['/%61dmin', 'deny_rule'],
    ['/%2561dmin', 'deny_rule'],
    ['//admin', 'deny_rule'],
    ['/x', 'agents.yaml:8 web'],
  ])('a path that is denied cannot be written so that it is not: %s', (path, expected) =>
    expect(verdict('http.test', 'http', { method: 'GET', path })).toBe(expected),
  )

  test('nothing is allowed by no policy, or an empty one', () => {
    expect(decide([], ask('api.test'))).toEqual({ allowed: false, reason: 'no_rule', by: null })
    expect(decide(policiesOf('    allow: []'), ask('api.test')).allowed).toBe(false)
  })
})

describe('addresses of allowed names', () => {
  const own = parseCidr('10.192.0.0/24')
  const isOwn = (address: NonNullable<ReturnType<typeof parseAddress>>): boolean => own !== null && contains(own, address)
  const result = (address: string, ...args: Parameters<typeof ask>): string => {
    const vetted = vet(address, { policies, ask: ask(...args), isOwn })
    return vetted.ok ? 'ok' : `${vetted.reason}: ${vetted.kind}`
  }
  test.each([
    ['11.22.33.44', 'api.test', 'ok'],
    ['2606:4700::1', 'api.test', 'ok'],
    ['10.1.2.3', 'api.test', 'ok'],
    ['10.1.2.200', 'api.test', 'deny_rule: a denied'],
    ['10.1.2.3', 'many.test:8443', 'address_private: a private'],
    ['192.168.0.1', 'api.test', 'address_private: a private'],
    ['127.0.0.1', 'api.test', 'address_never: a loopback'],
    ['169.254.169.254', 'api.test', 'address_never: a link-local'],
    ['::ffff:11.22.33.44', 'api.test', 'address_never: an embedded IPv4'],
    ['10.192.0.4', 'api.test', "address_never: one of the project's own networks'"],
    ['garbage', 'api.test', 'address_never: no'],
    ['fe80::1%eth0', 'api.test', 'address_never: no'],
  ])('%s for %s: %s', (address, target, expected) => expect(result(address, target)).toBe(expected))
})

describe('what an address would get: egress check', () => {
  const check = (url: string, method = 'GET'): string => {
    const asked = askOfUrl(url, method)
    if (asked === null) return 'unreadable'
    const { verdict: it, message } = checkAsk(policies, asked)
    return `${it}: ${message}`
  }
  test.each([
    ['https://API.test/x', 'allow: allowed by agents.yaml:6 egress.web'],
    ['api.test', 'allow: allowed by agents.yaml:6 egress.web'],
    ['wss://api.test', 'allow: allowed by agents.yaml:6 egress.web'],
    ['https://ssh.test:22', 'allow: allowed by agents.yaml:11 egress.web'],
    ['ssh://ssh.test', 'allow: allowed by agents.yaml:11 egress.web'],
    ['https://evil.test', 'deny: denied by agents.yaml:4 egress.web, agents.yaml:21 egress.more; add "evil.test" to egress.web.allow'],
    [
      'https://evil.test:444',
      'deny: denied by agents.yaml:4 egress.web, agents.yaml:21 egress.more; add "evil.test:444" to egress.web.allow',
    ],
    [
      'ws://evil.test:81',
      'deny: denied by agents.yaml:4 egress.web, agents.yaml:21 egress.more; add {host: evil.test, port: 81, scheme: ws} to egress.web.allow',
    ],
    [
      'tcp://evil.test:5432',
      'deny: denied by agents.yaml:4 egress.web, agents.yaml:21 egress.more; add {host: evil.test, port: 5432, scheme: tcp} to egress.web.allow',
    ],
    ['https://9.9.9.9', 'deny: denied by agents.yaml:4 egress.web, agents.yaml:21 egress.more; add {cidr: 9.9.9.9/32} to egress.web.allow'],
    ['http://169.254.169.254/x', 'deny: denied: "169.254.169.254" is a link-local address, which egress never dials'],
    ['https://no.wild.test', 'deny: denied by agents.yaml:16 egress.web.deny (no.wild.test)'],
    ['http://limited.test/v2', 'deny: denied by agents.yaml:9 egress.web: it allows GET, HEAD on /v1/*, /only of limited.test alone'],
    ['ftp://api.test', 'unreadable'],
    ['tcp://api.test', 'unreadable'],
    ['https://user@api.test', 'unreadable'],
    ['', 'unreadable'],
  ])('%s: %s', (url, expected) => expect(check(url)).toBe(expected))
})
