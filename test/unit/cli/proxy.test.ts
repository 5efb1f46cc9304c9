/** The proxy in front of a gateway that is only a server on a socket: what passes, what does not, and what it leaves behind. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createHttp, request } from 'node:http'
import { connect as dial, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { connect } from '../../../engine/client/index.ts'
import { gate, isLoopbackHost, type Proxy, type ProxyPlace, startProxy } from '../../../engine/cli/proxy.ts'
import { placeOf, parsePlace } from '../../../engine/cli/verbs/proxy.ts'
import { controlAgent } from '../../../engine/control-agent.ts'
import { AgentctlError } from '../../../engine/errors.ts'
import { answer, bodyOf, type FakeGateway, fakeGateway } from './fake-gateway.ts'

const folder = mkdtempSync(join(tmpdir(), 't-proxy-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const TOKEN = 'a-token-of-some-length'

const proxied = (gateway: FakeGateway, place: ProxyPlace): Promise<Proxy> =>
  startProxy({ place, project: 'p', agent: controlAgent(gateway.runtime, 'p', new AbortController().signal, { maxFreeSockets: 4 }) })
const echo = (): Promise<FakeGateway> =>
  fakeGateway(async (incoming, response) =>
    answer(response, 200, { method: incoming.method, url: incoming.url, body: await bodyOf(incoming), headers: incoming.headers }),
  )

interface Answer {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly json: any
}
const ask = (port: number, headers: Record<string, string>, options: object = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path: '/v1/health', headers, agent: false, ...options }, async (response) =>
      resolve({ status: response.statusCode ?? 0, json: JSON.parse(await bodyOf(response)) }),
    )
    sent.on('error', reject)
    sent.end()
  })

test('a socket is for its owner alone, is gone with the proxy, and passes requests on as they are', async () => {
  await using gateway = await echo()
  const path = join(folder, 'own.sock')
  const proxy = await proxied(gateway, { socket: path })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  const client = connect({ socket: path, retry_ms: 0 })
  const seen = (await client.submit({ id: 'run_1', agent: 'a', type: 't', tasks: ['ä'.repeat(300_000)] })) as unknown as Answer['json']
  expect([seen.method, seen.url, seen.headers.host]).toEqual(['POST', '/v1/runs', 'control'])
  expect(JSON.parse(seen.body).tasks[0].length).toBe(300_000)
  client.close()
  await proxy.close()
  expect(existsSync(path)).toBe(false)
})

test('a port asks for the token, and keeps it to itself', async () => {
  await using gateway = await echo()
  const proxy = await proxied(gateway, { address: '127.0.0.1', port: 0, token: TOKEN })
  const port = proxy.port as number
  expect((await ask(port, {})).status).toBe(401)
  expect((await ask(port, { authorization: 'Bearer wrong' })).json.error).toMatchObject({
    code: 'unauthorized',
    message: 'the token is wrong',
  })
  expect((await ask(port, { authorization: `Basic ${TOKEN}` })).status).toBe(401)
  const passed = await ask(port, { authorization: `Bearer ${TOKEN}` })
  expect(passed.status).toBe(200)
  expect(passed.json.headers.authorization).toBeUndefined()

  const client = connect({ url: `http://localhost:${port}`, token: TOKEN, retry_ms: 0 })
  expect(await client.health()).toMatchObject({ method: 'GET', url: '/v1/health' })
  client.close()
  const wrong = connect({ url: `http://127.0.0.1:${port}`, token: 'no', retry_ms: 0 })
  await expect(wrong.health()).rejects.toThrow('the token is wrong')
  wrong.close()
  await proxy.close()
  await expect(ask(port, { authorization: `Bearer ${TOKEN}` })).rejects.toThrow('ECONNREFUSED')
})

test.each([
  ['a name that leads here', { host: 'evil.example:7071' }],
  ['a name that only looks like ours', { host: '127.0.0.1.evil.example' }],
  ['a page', { host: 'localhost', origin: 'http://localhost:3000' }],
  ['a page without a name', { host: 'localhost', origin: 'null' }],
  ['a link or a form of a page', { host: '127.0.0.1', 'sec-fetch-site': 'cross-site' }],
  ['an image of a page of this machine', { host: '127.0.0.1', 'sec-fetch-site': 'same-site' }],
])('a browser does not pass, with the token or without: %s', (_name, headers) => {
  expect(gate(TOKEN)({ headers: { ...headers, authorization: `Bearer ${TOKEN}` } })?.status).toBe(403)
})

test('hosts of this machine pass', () => {
  for (const host of ['localhost', 'LOCALHOST:80', '127.0.0.1:7071', '127.9.9.9', '[::1]:7071']) {
    expect(isLoopbackHost(host), host).toBe(true)
    expect(gate(TOKEN)({ headers: { host, authorization: `Bearer ${TOKEN}` } })).toBeNull()
  }
  expect(isLoopbackHost('')).toBe(false)
})

test('a stream passes event by event, and ends with its reader', async () => {
  const gone = Promise.withResolvers<void>()
  await using gateway = await fakeGateway((_incoming, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('id: 1\ndata: {}\n\n')
    response.once('close', () => gone.resolve())
  })
  const proxy = await proxied(gateway, { address: '127.0.0.1', port: 0, token: TOKEN })
  await new Promise<void>((resolve, reject) => {
    const headers = { authorization: `Bearer ${TOKEN}`, accept: 'text/event-stream' }
    const sent = request({ host: '127.0.0.1', port: proxy.port, path: '/v1/runs/r/events', headers }, (response) => {
      expect(response.headers['content-type']).toBe('text/event-stream')
      response.once('data', (chunk: Buffer) => {
        expect(String(chunk)).toBe('id: 1\ndata: {}\n\n')
        sent.destroy()
        resolve()
      })
    })
    sent.once('error', reject)
    sent.end()
  })
  await gone.promise
  await proxy.close()
})

test('a gateway that is away is 503 with a code; requests at once share few streams', async () => {
  await using gateway = await fakeGateway((_incoming, response) => answer(response, 200, { ok: true }))
  const proxy = await proxied(gateway, { address: '127.0.0.1', port: 0, token: TOKEN })
  const headers = { authorization: `Bearer ${TOKEN}` }
  for (let round = 0; round < 5; round++) await Promise.all([1, 2, 3].map(() => ask(proxy.port as number, headers)))
  expect(gateway.opened()).toBeLessThanOrEqual(4)
  await gateway.stop()
  const away = await ask(proxy.port as number, headers)
  expect([away.status, away.json.error.code]).toEqual([503, 'AG5001'])
  await gateway.start()
  expect((await ask(proxy.port as number, headers)).status).toBe(200)
  await proxy.close()
})

test('what is at the place of the socket stays, unless it is a socket that nobody answers on', async () => {
  const file = join(folder, 'file')
  writeFileSync(file, 'mine')
  const refusal = async (options: Record<string, string>): Promise<string> =>
    await placeOf(folder, options).then(
      () => 'none',
      (error: unknown) => (error instanceof AgentctlError ? error.message : String(error)),
    )
  expect(await refusal({ socket: 'file' })).toContain('exists and is not a socket')
  expect(readFileSync(file, 'utf8')).toBe('mine')

  const path = join(folder, 'taken.sock')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  expect(await refusal({ socket: 'taken.sock' })).toContain('something answers on')
  await new Promise((resolve) => server.close(resolve))

  // As a proxy that was killed leaves it.
  const dead = join(folder, 'dead.sock')
  const killed = createHttp()
  await new Promise<void>((resolve) => killed.listen(dead, resolve))
  const { renameSync } = await import('node:fs')
  renameSync(dead, `${dead}.kept`)
  await new Promise((resolve) => killed.close(resolve))
  renameSync(`${dead}.kept`, dead)
  const probe = dial(dead)
  await new Promise((resolve) => probe.once('error', resolve))
  expect(await placeOf(folder, { socket: 'dead.sock' })).toEqual({ socket: dead })
  expect(existsSync(dead)).toBe(false)
})

test('a token file is made for its owner, read again, and refused when it holds none', async () => {
  const made = await placeOf(folder, { port: '0', tokenFile: 'token' })
  const path = join(folder, 'token')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(made).toEqual({ address: '127.0.0.1', port: 0, token: readFileSync(path, 'utf8').trim() })
  expect(await placeOf(folder, { port: '0', tokenFile: 'token' })).toEqual(made)
  writeFileSync(path, 'short\n')
  await expect(placeOf(folder, { port: '0', tokenFile: 'token' })).rejects.toThrow('holds no token')
  const [one, two] = [await placeOf(folder, { port: '0' }), await placeOf(folder, { port: '0' })]
  expect(one).not.toEqual(two)
})

test.each([
  ['7071', { address: '127.0.0.1', port: 7071 }],
  ['localhost:1', { address: '127.0.0.1', port: 1 }],
  ['127.0.0.2:80', { address: '127.0.0.2', port: 80 }],
  ['[::1]:80', { address: '::1', port: 80 }],
])('--port %s', (text, place) => {
  expect(parsePlace(text)).toEqual(place)
})
