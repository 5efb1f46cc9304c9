/** Text and bytes of agents, at random and near to what is right: nothing throws but a refusal, and what is read is read in one way. */
import fc from 'fast-check'
import { isIP } from 'node:net'
import { expect, test } from 'vitest'
import { peekClientHello } from '../../../../engine/egress/client-hello.ts'
import { decide } from '../../../../engine/egress/decide.ts'
import { requestHead } from '../../../../engine/egress/headers.ts'
import { Refused } from '../../../../engine/egress/refused.ts'
import { absoluteTarget, connectTarget, originTarget } from '../../../../engine/egress/target.ts'
import { contains, parseAddress, parseCidr } from '../../../../spec/addresses.ts'
import { classOf } from '../../../../spec/address-classes.ts'
import { parseAuthority, parseHost, showHost } from '../../../../spec/hosts.ts'
import type { EgressPolicy } from '../../../../spec/model.ts'

/** `EGRESS_FUZZ=1000000 npm test -- FILE` for longer. */
const RUNS = { numRuns: Number(process.env['EGRESS_FUZZ'] ?? 3_000), seed: 20_261_128 }
const pieces = fc.constantFrom(
  'a',
  'allowed.test',
  '.',
  '..',
  ':',
  '443',
  '0',
  '127',
  '1',
  '0x7f',
  '[',
  ']',
  '::',
  '::1',
  'ffff',
  '%',
  '%00',
  '%2e',
  '@',
  '/',
  '\\',
  '?',
  '#',
  '*',
  '-',
  '_',
  ' ',
  '\0',
  '\r\n',
  '\t',
  'http://',
  'https://',
  '\u3002',
  '\u00e4',
  'xn--',
  'EVIL.test',
)
const hostile = fc.oneof(
  fc.array(pieces, { maxLength: 10 }).map((parts) => parts.join('')),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.webAuthority(),
  fc.ipV4(),
  fc.ipV6().map((it) => `[${it}]`),
)
const onlyRefuses = (act: () => unknown): void => {
  try {
    act()
  } catch (error) {
    expect(error).toBeInstanceOf(Refused)
  }
}

test('hosts: what is read is stable, plain and what the URL standard reads', () => {
  fc.assert(
    fc.property(hostile, (text) => {
      const host = parseHost(text)
      if (host === null) return
      const shown = showHost(host.host)
      expect(parseHost(shown)).toEqual(host)
      expect(shown).toMatch(/^[a-z0-9._:[\]-]+$/)
      expect(isIP(host.host) !== 0).toBe(host.kind === 'address')
      expect(new URL(`http://${shown}/`).hostname).toBe(shown)
      expect(new URL(`http://${text}/`).hostname.replace(/\.$/, '')).toBe(shown)
    }),
    RUNS,
  )
})

test('targets: nothing but a refusal is thrown, and no part of one becomes another', () => {
  fc.assert(
    fc.property(hostile, hostile, (name, rest) => {
      for (const text of [name, `http://${name}`, `http://${name}/${rest}`, `${name}:443`]) {
        onlyRefuses(() => connectTarget(text))
        onlyRefuses(() => parseAuthority(text))
        onlyRefuses(() => {
          const target = absoluteTarget(text)
          // What other programs read there is the same host.
          expect(new URL(text).hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')).toBe(target.host.host)
          expect(target.url.startsWith('/')).toBe(true)
          expect(target.url).toMatch(/^[\x21-\x7e]+$/)
          expect(target.path.split('/')).not.toContain('..')
        })
        onlyRefuses(() => originTarget(`/${rest}`, { host: { kind: 'name', host: 'a.test' }, port: 80 }))
      }
    }),
    RUNS,
  )
})

test('addresses: an address lies in its own /32 and /128, and IPv4 in IPv6 is never public', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.ipV4(), (text, four) => {
      const address = parseAddress(text)
      if (address === null) throw new Error(text)
      const cidr = parseCidr(`${text}/${address.family === 4 ? 32 : 128}`)
      expect(cidr !== null && contains(cidr, address)).toBe(true)
      for (const prefix of ['::ffff:', '::', '64:ff9b::']) {
        const inside = parseAddress(`${prefix}${four}`)
        expect(inside === null ? null : classOf(inside).reach).toBe('never')
      }
    }),
    RUNS,
  )
})

test('hellos: any bytes are read without a throw, and a longer beginning never takes back what was read', () => {
  const header = fc.constantFrom([22, 3, 1], [22, 3, 3], [22, 2, 0], [1, 0, 0], [])
  const bytes = fc.tuple(header, fc.uint8Array({ maxLength: 300 })).map(([head, tail]) => Buffer.concat([Buffer.from(head), tail]))
  fc.assert(
    fc.property(bytes, fc.nat(300), (all, at) => {
      const [early, late] = [peekClientHello(all.subarray(0, at)), peekClientHello(all)]
      if (early.kind === 'hello') expect(late).toEqual(early)
      if (early.kind === 'other') expect(late.kind).toBe('other')
    }),
    RUNS,
  )
})

test('heads: what passes has one host, ours, and at most one way to say its length', () => {
  const name = fc.constantFrom('Host', 'host', 'Content-Length', 'Transfer-Encoding', 'Connection', 'X-A', 'Proxy-X', 'Upgrade', 'TE')
  const value = fc.constantFrom('1', 'chunked', 'Chunked', 'close', 'content-length', 'host, x-a', 'a\r\nb', 'evil.test', '')
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), (headers) => {
      onlyRefuses(() => {
        const head = requestHead(headers.flat(), 'allowed.test')
        const names = head.headers.filter((_, index) => index % 2 === 0).map((it) => it.toLowerCase())
        expect(head.headers.slice(0, 2)).toEqual(['host', 'allowed.test'])
        expect(names.filter((it) => it === 'host')).toHaveLength(1)
        expect(names.filter((it) => it === 'content-length' || it === 'transfer-encoding').length).toBeLessThanOrEqual(1)
        expect(names).not.toContain('proxy-x')
      })
    }),
    RUNS,
  )
})

test('decisions: whatever is asked, only the hosts of a rule are allowed', () => {
  const rule = (host: string) => ({ at: 'f:1', host, cidr: null, ports: [443], scheme: 'https' as const, methods: null, paths: null })
  const policies: readonly EgressPolicy[] = [
    { name: 'p', at: 'f:1', allow: [rule('allowed.test'), rule('*.wild.test')], deny: [rule('no.wild.test')] },
  ]
  const near = fc
    .tuple(
      fc.constantFrom('', 'a.', 'no.', 'x.no.', '.'),
      fc.constantFrom('allowed.test', 'wild.test', 'notallowed.test', 'ALLOWED.test'),
      fc.constantFrom('', '.', '.evil.test'),
    )
    .map((it) => it.join(''))
  fc.assert(
    fc.property(fc.oneof(hostile, near), (text) => {
      const host = parseHost(text)
      if (host === null || !decide(policies, { host, port: 443, scheme: 'https' }).allowed) return
      expect(host.host === 'allowed.test' || (host.host.endsWith('.wild.test') && host.host !== 'no.wild.test')).toBe(true)
    }),
    RUNS,
  )
})
