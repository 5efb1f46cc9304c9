import { connect } from 'node:tls'
import { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { peekClientHello } from '../../../../engine/egress/client-hello.ts'

/** The first bytes that a real TLS client sends. */
function hello(servername: string | null): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        resolve(chunk)
        done()
      },
    })
    connect({ socket: wire, ...(servername === null ? {} : { servername }) }).on('error', () => {})
  })
}
const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])
const vector = (bytes: Buffer): Buffer => Buffer.concat([u16(bytes.length), bytes])
const record = (payload: Buffer): Buffer => Buffer.concat([Buffer.from([22, 3, 1]), vector(payload)])
const sni = (name: string, type = 0): Buffer =>
  Buffer.concat([u16(0), vector(vector(Buffer.concat([Buffer.from([type]), vector(Buffer.from(name, 'latin1'))])))])
/** A hello with these extensions. */
function handmade(extensions: readonly Buffer[], more: Buffer = Buffer.alloc(0)): Buffer {
  const body = Buffer.concat([
    Buffer.alloc(34, 3),
    Buffer.from([0]),
    vector(Buffer.from([19, 1])),
    Buffer.from([1, 0]),
    vector(Buffer.concat(extensions)),
    more,
  ])
  return record(Buffer.concat([Buffer.from([1, 0]), u16(body.length), body]))
}

describe('the name in a hello', () => {
  test('of a real client', async () => {
    expect(peekClientHello(await hello('api.example.com'))).toEqual({ kind: 'hello', name: 'api.example.com' })
    expect(peekClientHello(await hello(null))).toEqual({ kind: 'hello', name: null })
  })

  test('every beginning of one asks for more, and what follows it does not matter', async () => {
    const whole = await hello('api.example.com')
    for (let length = 0; length < whole.length; length++)
      expect(peekClientHello(whole.subarray(0, length)), String(length)).toEqual({ kind: 'more' })
    expect(peekClientHello(Buffer.concat([whole, Buffer.from([20, 3, 3, 0, 1, 1])]))).toMatchObject({ kind: 'hello' })
  })

  test('cut into records, up to 32 of them', async () => {
    const payload = (await hello('api.example.com')).subarray(5)
    const cut = (size: number): Buffer =>
      Buffer.concat(
        Array.from({ length: Math.ceil(payload.length / size) }, (_, index) => record(payload.subarray(index * size, (index + 1) * size))),
      )
    expect(peekClientHello(cut(100))).toEqual({ kind: 'hello', name: 'api.example.com' })
    expect(peekClientHello(cut(1))).toEqual({ kind: 'malformed' })
  })

  test.each([
    ['two of them', handmade([sni('a.test'), sni('b.test')])],
    [
      'two names in one',
      handmade([
        Buffer.concat([
          u16(0),
          vector(vector(Buffer.concat([Buffer.from([0]), vector(Buffer.from('a.test')), Buffer.from([0]), vector(Buffer.from('b.test'))]))),
        ]),
      ]),
    ],
    ['an empty name', handmade([sni('')])],
    ['another kind of name', handmade([sni('a.test', 1)])],
    ['a NUL in it', handmade([sni('a\0b.test')])],
    ['another script', handmade([sni('\xe4.test')])],
    ['bytes behind the extensions', handmade([sni('a.test')], Buffer.from([0]))],
    ['another message', record(Buffer.from([2, 0, 0, 0]))],
    ['an empty record', record(Buffer.alloc(0))],
    ['a record of another kind in the middle', Buffer.concat([record(Buffer.from([1, 0, 0, 50])), Buffer.from([23, 3, 1, 0, 1, 0])])],
    ['a message that is too long', record(Buffer.from([1, 255, 255, 255]))],
  ])('%s: malformed', (_what, bytes) => expect(peekClientHello(bytes)).toEqual({ kind: 'malformed' }))

  test('a hello without extensions names nobody', () => {
    const body = Buffer.concat([Buffer.alloc(34), Buffer.from([0]), vector(Buffer.from([19, 1])), Buffer.from([1, 0])])
    expect(peekClientHello(record(Buffer.concat([Buffer.from([1, 0]), u16(body.length), body])))).toEqual({ kind: 'hello', name: null })
  })

  test.each(['SSH-2.0-x', 'GET / HTTP/1.1', 'PRI * HTTP/2.0', '\x16\x02\x00'])('%j is something else', (text) =>
    expect(peekClientHello(Buffer.from(text, 'latin1'))).toEqual({ kind: 'other' }),
  )
})
