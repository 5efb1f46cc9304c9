import { expect, test } from 'vitest'
import { type Reply, ReplyParser } from '../../../agents/http-parse.ts'

/** The reply, and after how many bytes it was there, with the answer cut into pieces of `size`. */
function parse(text: string, size: number): Reply | null {
  const parser = new ReplyParser()
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += size) {
    const reply = parser.push(bytes.subarray(at, at + size))
    if (reply !== null) return reply
  }
  return parser.end()
}

const ANSWERS: { readonly [name: string]: readonly [string, Reply] } = {
  'a length': ['HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"ü":1}', { status: 200, body: '{"ü":1}', keepAlive: true }],
  'no body': ['HTTP/1.1 204 No Content\r\n\r\n', { status: 204, body: '', keepAlive: true }],
  chunks: [
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6;x=y\r\n{"a":"\r\nA\r\n\r\n12345678\r\n2\r\n"}\r\n0\r\nt: 1\r\n\r\n',
    { status: 200, body: '{"a":"\r\n12345678"}', keepAlive: true },
  ],
  'the end of the connection': ['HTTP/1.1 502 Bad\r\nConnection: close\r\n\r\noops', { status: 502, body: 'oops', keepAlive: false }],
  'a 100 before': [
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}',
    { status: 200, body: '{}', keepAlive: true },
  ],
}

test.each(Object.entries(ANSWERS))('an answer with %s is read whatever the pieces', (_, [text, reply]) => {
  for (const size of [1, 2, 3, 7, 1_000]) expect(parse(text, size)).toEqual(reply)
})

test('what is not HTTP is refused', () => {
  expect(() => new ReplyParser().push(Buffer.from('SSH-2.0-x\r\n\r\n'))).toThrow('expected an HTTP/1.1 answer, got "SSH-2.0-x"')
})
