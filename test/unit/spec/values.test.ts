import fc from 'fast-check'
import { expect, test } from 'vitest'
import { duration, port, shortMount, showDuration, size, tmpfs, words } from '../../../spec/values.ts'

const of = <T>(read: { ok: true; value: T } | { ok: false; why: string }): T | string => (read.ok ? read.value : read.why)

test.each([
  ['512m', 536870912],
  ['1g', 1073741824],
  ['1.5G', 1610612736],
  ['64kb', 65536],
  ['64KiB', 65536],
  ['10', 10],
  ['10b', 10],
  ['1 m', 1048576],
])('size %s', (text, bytes) => {
  expect(of(size(text))).toBe(bytes)
})
test.each(['', 'm', '-1m', '1x', '1.m', '1e3', '99999999p'])('no size: %j', (text) => {
  expect(size(text).ok).toBe(false)
})

test.each([
  ['30s', 30000],
  ['1m30s', 90000],
  ['1h', 3600000],
  ['1.5s', 1500],
  ['250ms', 250],
  ['0', 0],
  ['0s', 0],
  ['2000us', 2],
])('duration %s', (text, ms) => {
  expect(of(duration(text))).toBe(ms)
})
test.each(['', '30', 's', '-1s', '1d', '1 s', '1ns', '10000h'])('no duration: %j', (text) => {
  expect(duration(text).ok).toBe(false)
})
test('a duration that is shown reads as itself', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2_147_483_647 }), (ms) => of(duration(showDuration(ms))) === ms),
    { seed: 1 },
  )
})

test.each([
  ['a b  c', ['a', 'b', 'c']],
  ['  ', []],
  [`sh -c 'echo "x y"'`, ['sh', '-c', 'echo "x y"']],
  ['a "b c"d e\\ f', ['a', 'b cd', 'e f']],
  [`'' ""`, ['', '']],
  ['a\\"b', ['a"b']],
  [`'a\\b'`, ['a\\b']],
])('words of %j', (text, expected) => {
  expect(of(words(text))).toEqual(expected)
})
test.each(['"a', "'a", 'a\\', 'a; b', 'a | b', 'a > b'])('no command: %j', (text) => {
  expect(words(text).ok).toBe(false)
})

test.each([
  ['8000', '127.0.0.1', 0, 8000, 'tcp'],
  ['8000:80', '127.0.0.1', 8000, 80, 'tcp'],
  ['8000:80/udp', '127.0.0.1', 8000, 80, 'udp'],
  ['0.0.0.0:8000:80', '0.0.0.0', 8000, 80, 'tcp'],
  ['127.0.0.1::80', '127.0.0.1', 0, 80, 'tcp'],
  ['[::1]:8000:80', '::1', 8000, 80, 'tcp'],
])('port %s', (text, host_ip, host_port, container_port, protocol) => {
  expect(of(port(text))).toEqual({ host_ip, host_port, container_port, protocol })
})
test.each(['', ':', 'a', '0', '65536', '1:2:3:4', '999.1.1.1:1:1', 'x:1:1', '80/icmp', '1-2', '-1'])('no port: %j', (text) => {
  expect(port(text).ok).toBe(false)
})

test('short mounts', () => {
  expect(of(shortMount('./a:/b'))).toEqual({ source: './a', target: '/b', read_only: false })
  expect(of(shortMount('a:/b:ro,cached'))).toEqual({ source: 'a', target: '/b', read_only: true })
  for (const text of ['a', ':/b', 'a:b', 'a:/b:x', 'a:/b:ro:x', 'C:\\a:/b', 'C:/a:/b']) expect(shortMount(text).ok).toBe(false)
})

test('tmpfs', () => {
  expect(of(tmpfs('/a'))).toEqual({ target: '/a', size: null })
  expect(of(tmpfs('/a:size=1m'))).toEqual({ target: '/a', size: 1048576 })
  for (const text of ['/a:size', '/a:mode=1', '/a:size=1m:x']) expect(tmpfs(text).ok).toBe(false)
})
