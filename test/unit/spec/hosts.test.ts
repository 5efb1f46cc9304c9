import { describe, expect, test } from 'vitest'
import { classOf } from '../../../spec/address-classes.ts'
import { contains, parseAddress, parseCidr } from '../../../spec/addresses.ts'
import { matchesHost, parseAuthority, parseHost } from '../../../spec/hosts.ts'

describe('hosts', () => {
  test.each([
    ['API.Example.com', 'name api.example.com'],
    ['example.com.', 'name example.com'],
    ['a_b.example.com', 'name a_b.example.com'],
    ['localhost', 'name localhost'],
    ['xn--exmple-cua.com', 'name xn--exmple-cua.com'],
    ['127.0.0.1', 'address 127.0.0.1'],
    ['127.1', 'address 127.0.0.1'],
    ['2130706433', 'address 127.0.0.1'],
    ['0x7f.0.0.1', 'address 127.0.0.1'],
    ['0X7F000001', 'address 127.0.0.1'],
    ['0177.0.0.1', 'address 127.0.0.1'],
    ['127.0.0.1.', 'address 127.0.0.1'],
    ['0', 'address 0.0.0.0'],
    ['1.2.3.0x', 'address 1.2.3.0'],
    ['[::1]', 'address ::1'],
    ['[0:0:0:0:0:0:0:1]', 'address ::1'],
    ['[::ffff:169.254.169.254]', 'address ::ffff:a9fe:a9fe'],
  ])('%s is %s', (text, expected) => {
    const host = parseHost(text)
    expect(`${host?.kind} ${host?.host}`).toBe(expected)
  })

  test.each([
    '',
    '.',
    'a..b',
    '.a',
    'a.b..',
    '-a.test',
    'a-.test',
    'a b.test',
    'a\0.test',
    'a%00.test',
    'a\r\nb.test',
    'user@a.test',
    'a.test/',
    'a.test?',
    'a.test#',
    'a\\b.test',
    'a:b.test',
    'allowed\u3002test',
    'ex\u00e4mple.com',
    '\u0430pple.com',
    '[fe80::1%eth0]',
    '[fe80::1%25eth0]',
    '[127.0.0.1]',
    '[::1',
    '::1',
    '[]',
    '1.2.3.4.5',
    '256.1.1.1',
    'a.08',
    `${'a'.repeat(64)}.test`,
    `${'a.'.repeat(130)}test`,
  ])('%j is none', (text) => expect(parseHost(text)).toBeNull())

  test('an authority has a host and at most a port', () => {
    expect(parseAuthority('a.test:443')).toEqual({ host: { kind: 'name', host: 'a.test' }, port: 443 })
    expect(parseAuthority('[::1]:1')?.port).toBe(1)
    expect(parseAuthority('a.test')?.port).toBeNull()
    for (const text of [
      'a.test:',
      'a.test:0',
      'a.test:65536',
      'a.test:+1',
      'a.test:1a',
      ':443',
      'a.test:1:2',
      '::1:443',
      'a.test:443 ',
      '[::1]443',
    ])
      expect(parseAuthority(text), text).toBeNull()
  })

  test('a wildcard is every name below, and nothing else', () => {
    for (const host of ['a.x.test', 'a.b.x.test']) expect(matchesHost('*.x.test', host), host).toBe(true)
    for (const host of ['x.test', 'ax.test', '.x.test', 'a.x.test.evil', 'x.testa']) expect(matchesHost('*.x.test', host), host).toBe(false)
    expect(matchesHost('x.test', 'a.x.test')).toBe(false)
  })
})

describe('addresses', () => {
  test.each([
    ['127.0.0.1', 'never'],
    ['0.0.0.0', 'never'],
    ['10.0.0.1', 'explicit'],
    ['172.16.0.1', 'explicit'],
    ['172.32.0.1', 'public'],
    ['192.168.1.1', 'explicit'],
    ['100.64.0.1', 'explicit'],
    ['100.100.100.200', 'never'],
    ['169.254.169.254', 'never'],
    ['168.63.129.16', 'never'],
    ['192.0.0.192', 'never'],
    ['192.0.2.1', 'explicit'],
    ['198.18.0.1', 'explicit'],
    ['198.51.100.1', 'explicit'],
    ['203.0.113.1', 'explicit'],
    ['224.0.0.1', 'never'],
    ['240.0.0.1', 'never'],
    ['255.255.255.255', 'never'],
    ['11.22.33.1', 'public'],
    ['8.8.8.8', 'public'],
    ['::', 'never'],
    ['::1', 'never'],
    ['::7f00:1', 'never'],
    ['::ffff:127.0.0.1', 'never'],
    ['::ffff:8.8.8.8', 'never'],
    ['64:ff9b::a9fe:a9fe', 'never'],
    ['64:ff9b:1::1', 'never'],
    ['2002:7f00:1::', 'never'],
    ['2001:0:4136:e378::1', 'never'],
    ['fe80::1', 'never'],
    ['fec0::1', 'explicit'],
    ['fc00::1', 'explicit'],
    ['fd00:ec2::254', 'never'],
    ['fd20:ce::254', 'never'],
    ['ff02::1', 'never'],
    ['2001:db8::1', 'explicit'],
    ['2606:4700::1', 'public'],
    ['4000::1', 'never'],
  ])('%s: %s', (text, reach) => {
    const address = parseAddress(text)
    expect(address === null ? null : classOf(address).reach).toBe(reach)
  })

  test('ranges hold what begins as they do, of their own family', () => {
    const holds = (cidr: string, address: string): boolean | null => {
      const [range, one] = [parseCidr(cidr), parseAddress(address)]
      return range === null || one === null ? null : contains(range, one)
    }
    expect(holds('10.0.0.0/8', '10.255.255.255')).toBe(true)
    expect(holds('10.0.0.0/8', '11.0.0.0')).toBe(false)
    expect(holds('1.2.3.4/32', '1.2.3.4')).toBe(true)
    expect(holds('fd00::/8', 'fdff::1')).toBe(true)
    expect(holds('fd00::/8', '253.0.0.1')).toBe(false)
    for (const text of ['10.0.0.0', '10.0.0.1/8', '10.0.0.0/33', '::/129', '/8', '10.0.0.0/', 'a/8', '10.0.0.0/8/8'])
      expect(parseCidr(text), text).toBeNull()
  })
})
