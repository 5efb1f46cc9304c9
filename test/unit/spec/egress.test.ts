import { expect, test } from 'vitest'
import { stringify } from 'yaml'
import { configView } from '../../../spec/config.ts'
import type { EgressRule, Project } from '../../../spec/model.ts'
import { loadText, problems, project } from './loading.ts'

const FILE = `agents:
  a: { egress: [web, none] }
  b: {}
egress:
  web:
    allow:
      - API.Example.com.
      - "*.example.org:8443"
      - { host: sockets.test, scheme: wss }
      - { host: plain.test, scheme: http }
      - { host: plain.test:8080, scheme: http, methods: [get, Post], paths: ["/v1/*", /x$$y] }
      - { host: chat.test, scheme: ws }
      - { host: git.test, scheme: tcp, ports: [9418, "22", 22] }
      - { cidr: 10.1.2.0/24 }
      - { cidr: "fd12:3456::/32", port: 5432, scheme: tcp }
    deny:
      - bad.example.org
      - bad.example.org:8443
      - { host: plain.test, scheme: http, paths: ["/admin*"] }
      - { cidr: 10.1.2.128/25 }
  none: { allow: [] }
`
const shown = ({ at, host, cidr, ports, scheme, methods, paths }: EgressRule): string =>
  [at, host ?? cidr, `${scheme ?? 'any'}:${ports?.join(',') ?? 'any'}`, ...[methods, paths].map((it) => it?.join(',') ?? '-')].join(' ')

test('every way of writing a rule becomes one, with its line', () => {
  const { web } = project(FILE).egress ?? {}
  expect([web?.at, ...(web?.allow ?? []).map(shown), 'deny', ...(web?.deny ?? []).map(shown)].join('\n')).toMatchInlineSnapshot(`
    "agents.yaml:5
    agents.yaml:7 api.example.com https:443 - -
    agents.yaml:8 *.example.org https:8443 - -
    agents.yaml:9 sockets.test https:443 - -
    agents.yaml:10 plain.test http:80 - -
    agents.yaml:11 plain.test http:8080 GET,POST /v1/*,/x$y
    agents.yaml:12 chat.test ws:80 - -
    agents.yaml:13 git.test tcp:22,9418 - -
    agents.yaml:14 10.1.2.0/24 https:443 - -
    agents.yaml:15 fd12:3456::/32 tcp:5432 - -
    deny
    agents.yaml:17 bad.example.org any:any - -
    agents.yaml:18 bad.example.org any:8443 - -
    agents.yaml:19 plain.test http:any - /admin*
    agents.yaml:20 10.1.2.128/25 any:any - -"
  `)
})

/** Lines are where they stand, not what is meant. */
const withoutPlaces = (it: Project): unknown => JSON.parse(JSON.stringify(it, (key, value: unknown) => (key === 'at' ? undefined : value)))

test('what `config` prints means the same', () => {
  const first = project(FILE)
  const second = loadText(stringify(configView(first)), {})
  expect(problems(second)).toEqual([])
  expect(second.project === null ? null : withoutPlaces(second.project)).toEqual(withoutPlaces(first))
})

test('a file without egress leaves no trace of it', () => {
  expect(JSON.stringify(project('agents: { a: {} }'))).not.toContain('egress')
  expect(project(FILE).agents['b']).not.toHaveProperty('egress')
})

test('a host that comes from a variable is not shown when it does not fit', () => {
  const loaded = loadText('agents: { a: { egress: [w] } }\negress: { w: { allow: ["${TARGET}"] } }\n', {
    TARGET: 'https://token@secret.test/',
  })
  expect(problems(loaded).join('\n')).not.toContain('token')
})
