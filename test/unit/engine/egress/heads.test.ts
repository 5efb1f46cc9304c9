import { describe, expect, test } from 'vitest'
import { makeAudit, type AuditRecord } from '../../../../engine/egress/audit.ts'
import { requestHead, responseHeaders } from '../../../../engine/egress/headers.ts'
import { Refused } from '../../../../engine/egress/refused.ts'
import { segmentsOf } from '../../../../engine/egress/segments.ts'
import { absoluteTarget, connectTarget, hostHeader, originTarget } from '../../../../engine/egress/target.ts'
import { recordText } from '../../../support/egress.ts'

const reason = (act: () => unknown): string => {
  try {
    act()
    return 'fine'
  } catch (error) {
    return error instanceof Refused ? error.reason : String(error)
  }
}

describe('heads', () => {
  test('what belongs to one hop, and what is invented, stays behind; the host is ours', () => {
    const raw = [
      'Host',
      'evil.test',
      'Connection',
      'close, X-Mine',
      'X-Mine',
      '1',
      'Proxy-Authorization',
      'b',
      'TE',
      'trailers',
      'Via',
      '1.1 x',
      'X-Forwarded-For',
      '1.1.1.1',
      'Expect',
      '100-continue',
      'Accept',
      '*/*',
      'Content-Length',
      '3',
    ]
    expect(requestHead(raw, 'a.test')).toEqual({ headers: ['host', 'a.test', 'Accept', '*/*', 'Content-Length', '3'], hasBody: true })
  })
  test('a length cannot be taken away by naming it', () => {
    expect(requestHead(['Host', 'a', 'Connection', 'content-length, host', 'Content-Length', '3'], 'a.test').headers).toEqual([
      'host',
      'a.test',
      'Content-Length',
      '3',
    ])
  })
  test.each([
    ['two hosts', ['Host', 'a', 'host', 'a']],
    ['two lengths', ['Content-Length', '1', 'content-length', '1']],
    ['both ways', ['Content-Length', '1', 'Transfer-Encoding', 'chunked']],
    ['two encodings', ['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked']],
    ['another encoding', ['Transfer-Encoding', 'identity']],
    ['chunked in capitals', ['Transfer-Encoding', 'Chunked']],
    ['a line in a value', ['X', 'a\r\n b']],
  ])('%s: malformed', (_what, raw) => expect(reason(() => requestHead(raw, 'a.test'))).toBe('malformed'))
  test('of an answer the hop is taken off', () => {
    expect(
      responseHeaders([
        'Connection',
        'close',
        'Transfer-Encoding',
        'chunked',
        'Proxy-Authenticate',
        'Basic',
        'Set-Cookie',
        'a',
        'Set-Cookie',
        'b',
      ]),
    ).toEqual(['Set-Cookie', 'a', 'Set-Cookie', 'b'])
  })
})

describe('targets', () => {
  test('absolute addresses in their one form', () => {
    const shown = (text: string): string => {
      const target = absoluteTarget(text)
      return `${hostHeader(target)} ${target.path} ${target.url}`
    }
    expect(shown('http://A.test')).toBe('a.test / /')
    expect(shown('http://a.test:8080/x/../y?q=/../z')).toBe('a.test:8080 /y /y?q=/../z')
    expect(shown('HTTP://[::1]:81/')).toBe('[::1]:81 / /')
    expect(shown('http://a.test?x')).toBe('a.test / /?x')
    expect(shown('http://a.test/%2e%2E/x')).toBe('a.test /x /x')
  })
  test.each([
    '/',
    '*',
    'https://a.test/',
    'ftp://a.test/',
    'http:/a.test',
    'http://',
    'http://@a.test/',
    'http://a.test:99999/',
    'http://a.test\\@b.test/',
    'http://a%2etest/',
    'a.test:80',
    'http://a.test/\u00e4',
  ])('%j: malformed', (text) => expect(reason(() => absoluteTarget(text))).toBe('malformed'))
  test.each(['a.test', 'a.test:', 'http://a.test:443', '/', '', 'a.test:443/x', 'a.test:443?', 'a@b.test:443', '[::1]'])(
    'CONNECT %j: malformed',
    (text) => expect(reason(() => connectTarget(text))).toBe('malformed'),
  )
  test("inside of a tunnel the host is the tunnel's", () => {
    const to = connectTarget('a.test:8080')
    expect(originTarget('/x?y', to)).toMatchObject({ port: 8080, path: '/x', url: '/x?y' })
    expect(reason(() => originTarget('http://b.test/', to))).toBe('malformed')
    expect(reason(() => originTarget('//b.test/x', to))).toBe('fine')
    expect(originTarget('//b.test/x', to).url).toBe('//b.test/x')
  })
})

describe('who is who', () => {
  const segments = segmentsOf(recordText('agents:\n  web: { egress: [w], replicas: 2 }\n  other: {}\negress: { w: { allow: [a.test] } }\n'))
  test.each([
    ['127.0.61.3', '127.0.61.9', { agent: 'web', replica: 1 }],
    ['::ffff:127.0.61.3', '::ffff:127.0.61.10', { agent: 'web', replica: 2 }],
    ['127.0.61.3', '127.0.61.5', { agent: 'web', replica: 0 }],
    ['127.0.61.3', '127.0.61.2', null],
    ['127.0.61.3', '127.0.61.1', null],
    ['127.0.61.3', '127.0.61.249', null],
    ['127.0.61.3', '127.0.62.9', null],
    ['127.0.61.9', '127.0.61.9', null],
    ['127.0.62.3', '127.0.62.9', null],
    ['127.0.60.3', '127.0.60.2', null],
    [undefined, undefined, null],
  ])('at %s from %s', (local, remote, expected) => expect(segments.identify(local, remote)).toEqual(expected))
})

test('a replica that asks too often fills no log: so many, and then how many are not there', () => {
  const records: AuditRecord[] = []
  let lines = ''
  let now = 0
  const audit = makeAudit({ write: (text) => (lines += text), span: (each) => void records.push(each), now: () => now })
  const entry = { host: 'a.test', port: 443, scheme: 'https', method: null, verdict: 'deny', reason: 'no_rule', rule: null } as const
  for (let count = 0; count < 1_000; count++) audit.tell({ agent: 'a', replica: 1 }, entry)
  audit.tell({ agent: 'a', replica: 2 }, entry)
  expect(records).toHaveLength(201)
  now = 1_000
  audit.tell({ agent: 'a', replica: 1 }, entry)
  expect(records.at(-1)).toMatchObject({ replica: 1, suppressed: 800 })
  audit.flush()
  expect(lines.split('\n')).toHaveLength(203)
  expect(JSON.parse(lines.split('\n')[0] ?? '')).toMatchObject({
    audit: 'egress',
    agent: 'a',
    verdict: 'deny',
    at: '1970-01-01T00:00:00.000Z',
  })
})
