import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { auditOf } from '../../../engine/cli/audit-lines.ts'
import { renderAuditLine } from '../../../engine/cli/views/egress.ts'
import { agentctl } from './fake-io.ts'

const FILE = `name: demo
egress:
  web:
    allow: [api.test, { host: http.test, scheme: http, methods: [GET] }]
agents:
  worker: { egress: [web] }
  shut: {}
`
function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'agentctl-cli-'))
  writeFileSync(join(path, 'agents.yaml'), FILE)
  return path
}
const plain = (_color: unknown, text: string): string => text

test('check says what the rules say: 0 allowed, 1 denied, 2 not understood', async () => {
  const cwd = folder()
  const check = (...args: readonly string[]): ReturnType<typeof agentctl> => agentctl(['egress', 'check', ...args], { cwd })
  expect(await check('worker', 'https://api.test/x')).toMatchObject({
    code: 0,
    stdout: '✔ worker → https://api.test:443\n  allowed by agents.yaml:4 egress.web\n',
  })
  expect(await check('worker', 'https://other.test')).toMatchObject({
    code: 1,
    stdout: '✘ worker → https://other.test:443\n  denied by agents.yaml:3 egress.web; add "other.test" to egress.web.allow\n',
  })
  expect(await check('shut', 'https://api.test')).toMatchObject({
    code: 1,
    stdout: '✘ shut → https://api.test:443\n  denied: the agent has no egress policy\n',
  })
  expect((await check('worker', 'http://http.test/', '--method', 'post')).code).toBe(1)
  const json = await check('worker', 'http://http.test/', '--format', 'json')
  expect(JSON.parse(json.stdout)).toEqual({
    agent: 'worker',
    url: 'http://http.test/',
    host: 'http.test',
    port: 80,
    scheme: 'http',
    verdict: 'allow',
    reason: 'allowed',
    rule: 'agents.yaml:4 egress.web',
    message: 'allowed by agents.yaml:4 egress.web',
  })
})

test.each([
  [
    'an address that is none',
    ['check', 'worker', 'ftp://api.test'],
    'expected an address like https://api.example.com, got "ftp://api.test"',
  ],
  ['no address', ['check', 'worker'], 'egress check expects an agent and an address'],
  ['another word', ['chekc', 'worker', 'x'], 'egress has no "chekc"'],
  ['a flag of log', ['check', 'worker', 'https://api.test', '--tail', '3'], '--tail is for egress log, not for egress check'],
  ['an agent that there is not', ['check', 'wroker', 'https://api.test'], 'project "demo" has no agent "wroker"'],
])('%s is bad usage', async (_what, args, text) => {
  const { code, stderr } = await agentctl(['egress', ...args], { cwd: folder() })
  expect(code).toBe(2)
  expect(stderr).toContain(text)
})

test('records are lines on stdout, of the agent that is asked for, and are shown in one line', () => {
  const line = JSON.stringify({
    ...{ audit: 'egress', at: '2026-01-02T03:04:05.678Z', agent: 'worker', replica: 2, host: 'other.test', port: 443, scheme: 'https' },
    ...{ method: 'CONNECT', verdict: 'deny', reason: 'no_rule', rule: null, suppressed: 7 },
  })
  const record = auditOf({ stream: 'stdout', line }, 'worker')
  expect(record === null ? '' : renderAuditLine(record, plain)).toBe(
    '2026-01-02T03:04:05.678Z  worker-2  deny   CONNECT https://other.test:443  no_rule  (7 before it not shown)\n',
  )
  expect(auditOf({ stream: 'stdout', line }, 'other')).toBeNull()
  expect(auditOf({ stream: 'stderr', line }, null)).toBeNull()
  expect(auditOf({ stream: 'stdout', line: line.slice(0, 40) }, null)).toBeNull()
})
