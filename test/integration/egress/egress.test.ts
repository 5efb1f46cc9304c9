import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Egress, startEgress } from '../../../engine/egress/server.ts'
import { RECORD_VERSION } from '../../../engine/record.ts'
import { OtlpReceiver } from '../../support/otlp.ts'

const BODY = JSON.stringify({ resourceSpans: [] })
let folder: string
let record: string
let receiver: OtlpReceiver
let egress: Egress | null

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'egress-'))
  record = join(folder, 'record.json')
  receiver = await OtlpReceiver.start()
  egress = null
})
afterEach(async () => {
  await egress?.stop()
  await receiver.stop()
  await rm(folder, { recursive: true })
})

async function writeRecord(endpoint: string | null, version = RECORD_VERSION): Promise<void> {
  await writeFile(`${record}.new`, JSON.stringify({ version, project: { telemetry: endpoint === null ? null : { endpoint } } }))
  await rename(`${record}.new`, record)
}

async function start(options: { queue_bytes?: number; note?: (message: string) => void } = {}): Promise<Egress> {
  egress = await startEgress({ record, port: 0, host: '127.0.0.1', ...options })
  return egress
}

interface Answer {
  status: number
  body: string
}
const send = (port: number, method: string, path: string, body = '', type = 'application/json'): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, method, path, headers: { 'content-type': type } }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: text }))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
const traces = (port: number, body = BODY): Promise<Answer> => send(port, 'POST', '/v1/traces', body)
const health = async (port: number): Promise<Record<string, unknown>> =>
  JSON.parse((await send(port, 'GET', '/healthz')).body) as Record<string, unknown>
const raw = (port: number, text: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    let got = ''
    socket
      .on('data', (chunk) => (got += chunk.toString()))
      .on('end', () => resolve(got))
      .on('error', reject)
    socket.setTimeout(5_000, () => socket.destroy(new Error('no answer')))
  })
const eventually = (check: () => void | Promise<void>, timeout = 10_000): Promise<void> => vi.waitFor(check, { timeout, interval: 50 })

test('what the gateway posts arrives at the endpoint of the record, byte for byte, on the same path and with its encoding', async () => {
  await writeRecord(`${receiver.url}/base/`)
  const { port } = await start()
  expect((await traces(port)).status).toBe(202)
  expect((await send(port, 'POST', '/v1/logs', '\x0a\x01', 'application/x-protobuf')).status).toBe(202)
  await eventually(() => expect(receiver.requests).toHaveLength(2))
  expect(receiver.requests.map(({ path, body, headers }) => [path, body.toString(), headers['content-type']])).toEqual([
    ['/base/v1/traces', BODY, 'application/json'],
    ['/base/v1/logs', '\x0a\x01', 'application/x-protobuf'],
  ])
  await eventually(async () =>
    expect(await health(port)).toMatchObject({ status: 'ok', endpoint: true, received: 2, forwarded: 2, failed: 0 }),
  )
})

test('without an endpoint it is accepted, dropped and counted; the endpoint may come later', async () => {
  const { port } = await start()
  expect((await traces(port)).status).toBe(202)
  expect(await health(port)).toMatchObject({ endpoint: false, received: 1, dropped: 1, forwarded: 0 })
  await writeRecord(null)
  await writeRecord(receiver.url)
  await eventually(async () => expect(await health(port)).toMatchObject({ endpoint: true }))
  await traces(port)
  await eventually(() => expect(receiver.requests).toHaveLength(1))
})

test('a record of a newer version, or with no usable URL, turns telemetry off and says so', async () => {
  const notes: string[] = []
  await writeRecord(receiver.url, RECORD_VERSION + 1)
  const { port } = await start({ note: (message) => notes.push(message) })
  await traces(port)
  expect(await health(port)).toMatchObject({ endpoint: false, dropped: 1 })
  expect(notes).toEqual([`the project record has version ${RECORD_VERSION + 1}; this egress knows ${RECORD_VERSION}`])
  await writeRecord('file:///etc/passwd')
  await eventually(() => expect(notes).toContain('telemetry.endpoint is not an http:// or https:// URL'))
})

test('a half-written record keeps what was known and is read again', async () => {
  await writeRecord(receiver.url)
  const { port } = await start()
  await writeFile(record, '{"version": 1, "proj')
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect(await health(port)).toMatchObject({ endpoint: true })
  await writeRecord(null)
  await eventually(async () => expect(await health(port)).toMatchObject({ endpoint: false }))
})

test('a busy receiver is tried again; one that refuses the data is not', async () => {
  await writeRecord(receiver.url)
  const { port } = await start()
  receiver.mode = 503
  await traces(port)
  await eventually(() => expect(receiver.requests).toHaveLength(1))
  receiver.mode = 'ok'
  await eventually(async () => expect(await health(port)).toMatchObject({ forwarded: 1, retried: 1, failed: 0 }))
  receiver.mode = 400
  await traces(port)
  await eventually(async () => expect(await health(port)).toMatchObject({ forwarded: 1, retried: 1, failed: 1 }))
})

test('a receiver that is gone or hangs delays nobody, is given up after three tries, and is said once', async () => {
  const notes: string[] = []
  await writeRecord(receiver.url)
  const { port } = await start({ note: (message) => notes.push(message) })
  await receiver.refuse()
  for (let n = 0; n < 3; n++) expect((await traces(port)).status).toBe(202)
  await eventually(async () => expect(await health(port)).toMatchObject({ failed: 3, retried: 6, queue: { items: 0, bytes: 0 } }), 15_000)
  expect(notes.filter((note) => note.includes('not getting through'))).toEqual([
    `telemetry is not getting through: 127.0.0.1:${receiver.port}: ECONNREFUSED`,
  ])
  await receiver.listen()
  receiver.mode = 'hang'
  expect((await traces(port)).status).toBe(202)
  await eventually(() => expect(receiver.requests.length).toBeGreaterThan(0))
  expect(await health(port)).toMatchObject({ status: 'ok' })
  receiver.mode = 'ok'
  await eventually(() => expect(notes).toContain('telemetry gets through again'), 15_000)
})

test('the queue is bounded by bytes and loses the oldest first', async () => {
  await writeRecord(receiver.url)
  const { port } = await start({ queue_bytes: 2_500 })
  receiver.mode = 'hang'
  const body = (n: number): string => JSON.stringify({ n, fill: 'x'.repeat(1_000) })
  await traces(port, body(0))
  await eventually(() => expect(receiver.requests).toHaveLength(1))
  for (let n = 1; n <= 4; n++) await traces(port, body(n))
  expect(await health(port)).toMatchObject({ overflowed: 2, queue: { items: 2 } })
  receiver.mode = 'ok'
  await eventually(() =>
    expect(new Set(receiver.requests.map((got) => (JSON.parse(got.body.toString()) as { n: number }).n))).toEqual(new Set([0, 3, 4])),
  )
})

test('it is no proxy: CONNECT and absolute URIs are 403, anything but OTLP is 404, 413 or 415, and nothing of it goes out', async () => {
  await writeRecord(receiver.url)
  const { port } = await start()
  const target = `127.0.0.1:${receiver.port}`
  expect(await raw(port, `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)).toMatch(/^HTTP\/1.1 403 /)
  expect((await send(port, 'POST', `http://${target}/v1/traces`, BODY)).status).toBe(403)
  expect((await send(port, 'GET', `http://${target}/`)).status).toBe(403)
  for (const [method, path] of [
    ['GET', '/'],
    ['GET', '/v1/traces'],
    ['POST', '/v1/other'],
    ['POST', '/healthz'],
    ['PUT', '/v1/traces'],
    ['POST', '/v1/traces/../x'],
  ] as const) {
    expect((await send(port, method, path)).status, `${method} ${path}`).toBe(404)
  }
  expect((await send(port, 'POST', '/v1/traces', 'x', 'text/plain')).status).toBe(415)
  expect((await traces(port, 'x'.repeat(4_194_305))).status).toBe(413)
  expect(
    await raw(
      port,
      'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'.replace('Upgrade\r\n', 'Upgrade, close\r\n'),
    ),
  ).toMatch(/^HTTP\/1.1 404 /)
  expect(await health(port)).toMatchObject({ received: 0, forwarded: 0, refused: 12 })
  expect(receiver.requests).toHaveLength(0)
})

test('SIGTERM delivers what waits and exits 0, with a hanging receiver too', async () => {
  await writeRecord(receiver.url)
  for (const mode of ['ok', 'hang'] as const) {
    receiver.mode = mode
    const child = spawn(process.execPath, ['engine/egress/main.ts', record, '0', '0'], { stdio: ['ignore', 'ignore', 'pipe'] })
    const exited = once(child, 'exit') as Promise<[number | null, string | null]>
    const port = await new Promise<number>((resolve, reject) => {
      let text = ''
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
        const match = /listening on port (\d+)/.exec(text)
        if (match !== null) resolve(Number(match[1]))
      })
      child.once('exit', () => reject(new Error(`egress exited: ${text}`)))
    })
    const before = receiver.requests.length
    expect((await traces(port)).status).toBe(202)
    child.kill('SIGTERM')
    expect(await exited).toEqual([0, null])
    expect(receiver.requests.length).toBeGreaterThan(before)
  }
})
