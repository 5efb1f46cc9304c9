import { expect, test } from 'vitest'
import { firstCommand } from '../../chaos/redis-proxy.ts'

const command = (...words: readonly string[]): string =>
  `*${words.length}\r\n${words.map((it) => `$${Buffer.byteLength(it)}\r\n${it}\r\n`).join('')}`

test('where one command ends is found at whatever byte a chunk ends', () => {
  const first = command('HSET', 'k', 'a\r\n*2\r\n$1\r\n', 'ü')
  const both = Buffer.from(first + command('PING'))
  const size = Buffer.byteLength(first)
  for (let length = 0; length < size; length++) expect(firstCommand(both.subarray(0, length))).toBeNull()
  expect(firstCommand(both)).toEqual({ end: size, name: 'hset' })
  expect(firstCommand(both.subarray(size))).toEqual({ end: both.length - size, name: 'ping' })
})
