/** Large bodies of the control API are taken one after the other: one that does not come must not be the last. */
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { type ControlApiOptions, controlServer } from '../../../engine/gateway/control-api.ts'

const sockets: Socket[] = []
const ends: (() => void)[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const end of ends.splice(0)) end()
})

async function server(ms: number): Promise<number> {
  const made = controlServer({ log: () => {} } as unknown as ControlApiOptions, ms)
  made.listen(0, '127.0.0.1')
  await once(made, 'listening')
  ends.push(() => {
    made.closeAllConnections()
    made.close()
  })
  return (made.address() as AddressInfo).port
}

/** All that comes until the other side closes. */
async function exchange(port: number, head: string, body = ''): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  sockets.push(socket)
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  socket.on('error', () => {})
  socket.write(`${head}\r\n\r\n${body}`)
  await once(socket, 'close')
  return text
}

const body = JSON.stringify({ odd: 'x'.repeat(1_200_000) })
const post = (more: string): string => `POST /v1/runs HTTP/1.1\r\nhost: x\r\n${more}`

test('who stalls after the headers is refused after a while, and the next one has its turn', async () => {
  const port = await server(200)
  const stalled = exchange(port, post(`content-length: ${body.length}`), body.slice(0, 100))
  const chunked = exchange(port, post('transfer-encoding: chunked'))
  const whole = exchange(port, post(`content-length: ${body.length}\r\nconnection: close`), body)
  for (const answer of [await stalled, await chunked]) {
    expect(answer).toContain('HTTP/1.1 408')
    expect(answer.toLowerCase()).toContain('connection: close')
    expect(answer).toContain('did not come whole within 0.2 s')
  }
  // It was read, and what is wrong with it is said.
  expect(await whole).toContain('HTTP/1.1 400')
})

test('a request whose route reads no body takes no turn', async () => {
  const port = await server(60_000)
  const stalled = exchange(port, post(`content-length: ${body.length}`))
  const other = await exchange(
    port,
    'GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close',
    '0\r\n\r\n',
  )
  expect(other).toContain('HTTP/1.1 200')
  for (const socket of sockets) socket.destroy()
  await stalled
})
