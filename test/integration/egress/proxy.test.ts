/** The proxy over loopback sockets: names lead where the test says, "public" addresses are ports of the test's own. */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, request, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { connect as tlsConnect, createServer as createTls } from 'node:tls'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Certificates, makeCertificates } from '../../support/certificates.ts'
import { at, listening, raw, recordText, sink, tunnel, type World, world } from '../../support/egress.ts'
import { segmentsOf } from '../../../engine/egress/segments.ts'

const FILE = `egress:
  web:
    allow:
      - allowed.test
      - "*.wild.test"
      - { host: plain.test, scheme: http }
      - { host: limited.test, scheme: http, methods: [GET], paths: ["/v1/*", /only] }
      - { host: sockets.test, scheme: ws }
      - { host: raw.test, port: 22, scheme: tcp }
      - { host: inside.test }
      - { cidr: 10.9.8.0/24 }
      - { cidr: 11.22.33.9/32, scheme: http }
    deny: [no.wild.test, { cidr: 11.22.33.1/32, scheme: http, methods: [TRACE] }]
  few: { allow: [other.test] }
agents:
  web: { egress: [web], replicas: 3 }
  other: { egress: [few] }
`
const PUBLIC = '11.22.33.1'
let w: World
let tls: Certificates
let servers: { close: () => void }[]
let seen: { method: string; url: string; headers: IncomingHttpHeaders; body: string }[]

beforeAll(() => {
  tls = makeCertificates(['DNS:allowed.test', 'DNS:a.b.wild.test'])
})
beforeEach(async () => {
  w = await world(FILE)
  servers = []
  seen = []
})
afterEach(async () => {
  await w.stop()
  for (const server of servers) server.close()
})

async function website(answer = 'hello'): Promise<Server> {
  const server = createServer((incoming, response) => {
    let body = ''
    incoming.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
    incoming.on('end', () => {
      seen.push({ method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers, body })
      if (incoming.url === '/moved') return response.writeHead(302, { location: 'http://evil.test/' }).end()
      response.end(answer)
    })
  })
  server.on('upgrade', (incoming, socket: Socket) => {
    seen.push({ method: 'UPGRADE', url: incoming.url ?? '', headers: incoming.headers, body: '' })
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n')
    socket.pipe(socket)
  })
  servers.push(server)
  await listening(server)
  return server
}
const portOf = (server: { address(): unknown }): number => (server.address() as { port: number }).port

async function plain(name: string, port = 80): Promise<void> {
  w.names.set(name, [PUBLIC])
  w.hosts.set(`${PUBLIC}:${port}`, portOf(await website()))
}
async function secure(name: string): Promise<void> {
  const server = createTls({ key: tls.key, cert: tls.cert }, (socket) => void socket.on('error', () => {}).pipe(socket))
  server.on('tlsClientError', () => {})
  servers.push(server)
  w.names.set(name, [PUBLIC])
  w.hosts.set(`${PUBLIC}:443`, await listening(server))
}

interface Answer {
  readonly status: number
  readonly message: string
  readonly body: string
}
function ask(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; agent?: 'web' | 'other' } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        ...at(options.agent ?? 'web'),
        port: w.proxy.port,
        method: options.method ?? 'GET',
        path: url,
        headers: { host: 'ignored.test', ...options.headers },
      },
      (answer) => {
        let body = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, message: answer.statusMessage ?? '', body }))
      },
    )
    outgoing.on('error', reject)
    outgoing.end(options.body)
  })
}
/** TLS through a tunnel: what comes back of what is sent, or the error. */
async function through(to: string, servername: string): Promise<string> {
  const socket = await tunnel(w, to)
  const secured = tlsConnect({ socket, ca: tls.ca, ...(servername === '' ? {} : { servername }), checkServerIdentity: () => undefined })
  return new Promise((resolve) => {
    secured.on('secureConnect', () => secured.write('ping'))
    secured.on('data', (chunk) => {
      resolve(chunk.toString())
      secured.destroy()
    })
    secured.on('error', (error) => resolve(error.message))
    secured.on('close', () => resolve('closed'))
  })
}
const last = (): unknown => {
  const record = w.audit.at(-1)
  return record === undefined ? null : [record.agent, record.replica, record.host, record.port, record.verdict, record.reason, record.rule]
}

describe('TLS by CONNECT', () => {
  test('an allowed host is reached, and audited with its rule', async () => {
    await secure('allowed.test')
    expect(await through('allowed.test:443', 'allowed.test')).toBe('ping')
    expect(w.dialled).toEqual([`${PUBLIC}:443`])
    expect(w.audit).toHaveLength(1)
    expect(last()).toEqual(['web', 1, 'allowed.test', 443, 'allow', 'allowed', 'agents.yaml:4 egress.web'])
  })

  test('names in capitals and with a trailing dot are the same name; a wildcard is every depth below and not the apex', async () => {
    await secure('allowed.test')
    expect(await through('ALLOWED.TEST.:443', 'Allowed.Test')).toBe('ping')
    w.names.set('a.b.wild.test', [PUBLIC])
    expect(await through('a.b.wild.test:443', 'a.b.wild.test')).toBe('ping')
    await expect(tunnel(w, 'wild.test:443')).rejects.toThrow(/403 denied by agents.yaml:2 egress.web; add "wild.test" to egress.web.allow/)
    await expect(tunnel(w, 'no.wild.test:443')).rejects.toThrow(/403 denied by agents.yaml:13 egress.web.deny \(no.wild.test\)/)
  })

  test.each([
    ['another host', 'evil.test:443', '403 denied by agents.yaml:2 egress.web; add "evil.test" to egress.web.allow'],
    ['another port', 'allowed.test:8443', 'add "allowed.test:8443" to'],
    ['a longer name', 'notallowed.test:443', '403 '],
    ['a name below', 'allowed.test.evil.test:443', '403 '],
    ['an address', `${PUBLIC}:443`, 'add {cidr: 11.22.33.1/32} to'],
    ['loopback', '127.0.0.1:443', '403 '],
    ['loopback, short', '127.1:443', '"127.0.0.1" is a loopback address, which egress never dials'],
    ['loopback, as a number', '2130706433:443', '"127.0.0.1" is a loopback'],
    ['loopback, hex', '0x7f.0.0.1:443', '"127.0.0.1" is a loopback'],
    ['loopback, octal', '0177.0.0.1:443', '"127.0.0.1" is a loopback'],
    ['all addresses', '0.0.0.0:443', '403 '],
    ['loopback, IPv6', '[::1]:443', '403 '],
    ['metadata in IPv6', '[::ffff:169.254.169.254]:443', '403 '],
    ['metadata by NAT64', '[64:ff9b::a9fe:a9fe]:443', '403 '],
    ['loopback by 6to4', '[2002:7f00:1::]:443', '403 '],
    ['metadata', '169.254.169.254:80', '403 '],
    ['metadata by name', 'metadata.google.internal:80', '403 '],
    ['a zone', '[fe80::1%25eth0]:443', '400 '],
    ['a user', 'allowed.test@evil.test:443', '400 '],
    ['a NUL, escaped', 'evil.test%00.allowed.test:443', '400 '],
    ['a dot of another script', 'allowed\u3002test:443', '400 '],
    ['no port', 'allowed.test', '400 '],
    ['port 0', 'allowed.test:0', '400 '],
    ['the proxy itself', '127.0.61.3:3128', '403 '],
  ])('%s is denied and not resolved', async (_what, to, text) => {
    const got = await raw(w, `CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\n\r\n`)
    expect(got.split('\r\n')[0]).toMatch(/^HTTP\/1\.1 40[03] /)
    expect(got).toMatch(new RegExp(text.replaceAll(/[{}()]/g, '\\$&')))
    expect(w.resolved).toEqual([])
    expect(w.dialled).toEqual([])
    expect(w.audit).toHaveLength(1)
    expect(w.audit[0]?.verdict).toBe('deny')
  })

  test.each([
    ['NUL', 'CONNECT evil.test\0.allowed.test:443 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['space', 'CONNECT allowed.test :443 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('%s in the first line is no request', async (_what, text) => {
    expect(await raw(w, text)).toMatch(/^HTTP\/1\.1 400 /)
    expect(w.dialled).toEqual([])
    expect(w.audit.map(({ reason }) => reason)).toEqual(['malformed'])
  })

  test.each([
    ['127.0.0.1', 'a loopback'],
    ['10.1.2.3', 'a private'],
    ['169.254.169.254', 'a link-local'],
    ['100.100.100.200', 'a metadata'],
    ['::1', 'a loopback'],
    ['::ffff:10.9.8.7', 'an embedded IPv4'],
    ['127.0.60.4', 'a loopback'],
  ])('an allowed name that resolves to %s is denied, without the address in the answer', async (address, kind) => {
    w.names.set('allowed.test', [address])
    const got = await raw(w, 'CONNECT allowed.test:443 HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(got).toContain(`403 denied`)
    expect(got).toContain(`"allowed.test" resolves to ${kind} address`)
    expect(got).not.toContain(address)
    expect(w.dialled).toEqual([])
  })

  test('a private address is reached where a cidr rule covers what an allowed name resolves to', async () => {
    const { port, close } = await sink()
    servers.push({ close })
    w.names.set('inside.test', ['10.9.8.7'])
    w.hosts.set('10.9.8.7:443', port)
    ;(await tunnel(w, 'inside.test:443')).destroy()
    expect(w.dialled).toEqual(['10.9.8.7:443'])
  })

  test('one look-up; of mixed answers the public one is dialled', async () => {
    await secure('allowed.test')
    w.names.set('allowed.test', ['10.0.0.1', '169.254.169.254', PUBLIC])
    expect(await through('allowed.test:443', 'allowed.test')).toBe('ping')
    expect(w.resolved).toEqual(['allowed.test'])
    expect(w.dialled).toEqual([`${PUBLIC}:443`])
  })

  test('a name that changes is looked at anew each time: rebinding leads nowhere', async () => {
    await secure('allowed.test')
    expect(await through('allowed.test:443', 'allowed.test')).toBe('ping')
    w.names.set('allowed.test', ['10.0.0.1'])
    await expect(tunnel(w, 'allowed.test:443')).rejects.toThrow(/resolves to a private address/)
    expect(w.dialled).toEqual([`${PUBLIC}:443`])
  })

  test.each([
    ['another name', 'evil.test'],
    ['no name', ''],
  ])('TLS for %s in the tunnel of an allowed host is closed before a byte goes on', async (_what, name) => {
    const { port, got, close } = await sink()
    servers.push({ close })
    w.names.set('allowed.test', [PUBLIC])
    w.hosts.set(`${PUBLIC}:443`, port)
    expect(await through('allowed.test:443', name)).toMatch(/unrecognized name|closed|disconnected/)
    expect(got()).toBe('')
    expect(last()).toEqual(['web', 1, 'allowed.test', 443, 'deny', 'name_mismatch', 'agents.yaml:4 egress.web'])
  })

  test.each([
    ['ssh', 'SSH-2.0-OpenSSH\r\n', 'not_tls'],
    ['plain HTTP', 'GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n', 'not_tls'],
    ['a record that is none', Buffer.from([22, 3, 1, 0, 4, 9, 9, 9, 9]), 'malformed'],
  ])('%s in a tunnel for TLS is closed', async (_what, text, reason) => {
    const { port, got, close } = await sink()
    servers.push({ close })
    w.names.set('allowed.test', [PUBLIC])
    w.hosts.set(`${PUBLIC}:443`, port)
    const socket = await tunnel(w, 'allowed.test:443')
    socket.write(text)
    let answer = ''
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
    await once(socket, 'close')
    expect(got()).toBe('')
    expect(w.audit.at(-1)?.reason).toBe(reason)
    if (typeof text === 'string' && text.startsWith('GET')) expect(answer).toContain('add {host: allowed.test, port: 443, scheme: http}')
  })

  test('a hello that comes byte by byte is put together; one that does not come is given 5 s', async () => {
    await secure('allowed.test')
    const socket = await tunnel(w, 'allowed.test:443')
    const relay = tlsConnect({ socket: slowly(socket), ca: tls.ca, servername: 'allowed.test' })
    relay.on('error', () => {})
    await once(relay, 'secureConnect')
    relay.destroy()
    const silent = await tunnel(w, 'allowed.test:443')
    silent.resume()
    await once(silent, 'close')
    expect(w.audit.at(-1)?.reason).toBe('timeout')
  }, 20_000)
})

/** Each byte in a packet of its own. */
function slowly(socket: Socket): Socket {
  const write = socket.write.bind(socket)
  socket.write = ((chunk: Buffer | string, ...rest: unknown[]) => {
    for (const byte of Buffer.from(chunk as Buffer)) write(Buffer.from([byte]))
    const done = rest.find((each) => typeof each === 'function') as (() => void) | undefined
    done?.()
    return true
  }) as typeof socket.write
  return socket
}

describe('any bytes, where a tcp rule says so', () => {
  test('a server that speaks first is heard', async () => {
    const { port, close } = await sink((socket, chunk) => void socket.write(chunk))
    servers.push({ close })
    w.names.set('raw.test', [PUBLIC])
    w.hosts.set(`${PUBLIC}:22`, port)
    const socket = await tunnel(w, 'raw.test:22')
    socket.write('SSH-2.0-x\r\n')
    expect(String((await once(socket, 'data'))[0])).toBe('SSH-2.0-x\r\n')
    socket.destroy()
    expect(w.audit.at(-1)).toMatchObject({ scheme: 'tcp', verdict: 'allow', method: 'CONNECT' })
    await expect(tunnel(w, 'raw.test:443')).rejects.toThrow('403')
  })
})

describe('plain HTTP', () => {
  test('is passed on with the host of the address, without what belongs to one hop', async () => {
    await plain('plain.test')
    const answer = await ask('http://plain.test/a/../b?q=1', {
      headers: {
        host: 'evil.test',
        'proxy-authorization': 'Basic x',
        'proxy-connection': 'keep-alive',
        'x-forwarded-for': '1.2.3.4',
        connection: 'x-mine, keep-alive',
        'x-mine': '1',
        accept: 'text/plain',
      },
    })
    expect(answer).toMatchObject({ status: 200, body: 'hello' })
    expect(seen[0]).toMatchObject({ url: '/b?q=1', headers: { host: 'plain.test', accept: 'text/plain' } })
    for (const name of ['proxy-authorization', 'proxy-connection', 'x-forwarded-for', 'x-mine'])
      expect(seen[0]?.headers[name], name).toBeUndefined()
    expect(last()).toEqual(['web', 1, 'plain.test', 80, 'allow', 'allowed', 'agents.yaml:6 egress.web'])
  })

  test('bodies pass both ways, with a length and without', async () => {
    await plain('plain.test')
    expect((await ask('http://plain.test/', { method: 'POST', body: 'x'.repeat(100_000) })).status).toBe(200)
    expect((await ask('http://plain.test/', { method: 'PUT', headers: { 'transfer-encoding': 'chunked' }, body: 'chunked' })).status).toBe(
      200,
    )
    expect((await ask('http://plain.test/', { method: 'POST' })).status).toBe(200)
    expect(seen.map(({ body }) => body.length)).toEqual([100_000, 7, 0])
    expect(seen[2]?.headers['content-length']).toBe('0')
  })

  test('a kept connection is used again; one that the host has closed meanwhile is replaced', async () => {
    await plain('plain.test')
    await ask('http://plain.test/1')
    await ask('http://plain.test/2')
    expect(w.dialled).toHaveLength(1)
    ;(servers[0] as Server).closeAllConnections()
    expect((await ask('http://plain.test/3')).status).toBe(200)
    expect(w.dialled).toHaveLength(2)
  })

  test('a connection that is used again is looked at for what it is used for', async () => {
    await plain('plain.test')
    expect((await ask('http://plain.test/', { method: 'OPTIONS' })).status).toBe(200)
    expect(await ask('http://plain.test/', { method: 'TRACE' })).toMatchObject({
      status: 403,
      body: 'denied by agents.yaml:13 egress.web.deny: "plain.test" resolves to a denied address\n',
    })
    expect(seen.map(({ method }) => method)).toEqual(['OPTIONS'])
    expect(w.dialled).toHaveLength(1)
  })

  test('methods and paths are looked at in one form', async () => {
    await plain('limited.test')
    const ok = async (path: string, method = 'GET'): Promise<number> => (await ask(`http://limited.test${path}`, { method })).status
    expect(await ok('/v1/models')).toBe(200)
    expect(await ok('/only?x=1')).toBe(200)
    expect(await ok('/%76%31/models')).toBe(200)
    for (const path of [
      '/v2',
      '/v1/../admin',
      '/v1/%2e%2e/admin',
      '/v1/..%2fadmin',
      '/v1//admin',
      '/v1/%5c../x',
      '/onlymore',
      '/v1/%252e%252e/x',
      '/v1/a;/x',
    ])
      expect(await ok(path), path).toBe(403)
    expect(await ok('/v1/models', 'POST')).toBe(403)
    expect((await ask('http://limited.test/v1/x', { method: 'POST' })).body).toBe(
      'denied by agents.yaml:7 egress.web: it allows GET on /v1/*, /only of limited.test alone\n',
    )
    expect(seen.map(({ url }) => url)).toEqual(['/v1/models', '/only?x=1', '/%76%31/models'])
  })

  test("a redirect is the client's to follow, and is decided on", async () => {
    await plain('plain.test')
    expect((await ask('http://plain.test/moved')).status).toBe(302)
    expect(await ask('http://evil.test/')).toMatchObject({
      status: 403,
      body: 'denied by agents.yaml:2 egress.web; add {host: evil.test, scheme: http} to egress.web.allow\n',
    })
    expect((await ask('http://evil.test/')).message).toContain('denied by agents.yaml:2 egress.web')
    expect(w.resolved).toEqual(['plain.test'])
  })

  test.each([
    ['two lengths', 'POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd'],
    [
      'a length beside chunks',
      'POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'an encoding that is not chunked',
      'POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    ],
    ['chunked, oddly written', 'POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n'],
    ['two hosts', 'GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nHost: evil.test\r\n\r\n'],
    ['a folded header', 'GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX-A: b\r\n c\r\n\r\n'],
    ['a bare line feed', 'GET http://plain.test/ HTTP/1.1\nHost: plain.test\n\n'],
    ['a user', 'GET http://plain.test@evil.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n'],
    ['another scheme', 'GET ftp://plain.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n'],
    ['https in the clear', 'GET https://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n'],
    ['no host', 'GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n'],
    [
      'an upgrade to h2c',
      'GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n',
    ],
    ['a head of 20 kB', `GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`],
  ])('%s is refused', async (_what, text) => {
    await plain('plain.test')
    expect(await raw(w, text)).toMatch(/^HTTP\/1\.1 4\d\d /)
    expect(seen).toEqual([])
    expect(w.audit.map(({ verdict }) => verdict)).toEqual(['deny'])
  })

  test('an address is reached by a cidr rule of its scheme', async () => {
    w.hosts.set('11.22.33.9:80', portOf(await website('by address')))
    expect((await ask('http://11.22.33.9/')).body).toBe('by address')
    expect((await ask('http://11.22.33.8/')).status).toBe(403)
    expect(w.resolved).toEqual([])
  })

  test('a host without an address, and one that does not answer, are 502', async () => {
    expect(await ask('http://plain.test/')).toMatchObject({ status: 502, body: '"plain.test" has no address: ENOTFOUND\n' })
    w.names.set('plain.test', [PUBLIC])
    expect(await ask('http://plain.test/')).toMatchObject({ status: 502, body: '"plain.test:80" cannot be reached: ECONNREFUSED\n' })
    expect(w.audit.map(({ reason }) => reason)).toEqual(['unresolved', 'unreachable'])
  })

  test('goes through a tunnel, too, and is looked at there', async () => {
    await plain('limited.test')
    const socket = await tunnel(w, 'limited.test:80')
    let got = ''
    socket.on('data', (chunk) => (got += chunk.toString('latin1')))
    socket.write('GET /v1/a HTTP/1.1\r\nHost: evil.test\r\n\r\n')
    await vi.waitFor(() => expect(got).toContain('hello'))
    socket.write('POST /v1/a HTTP/1.1\r\nHost: limited.test\r\nContent-Length: 0\r\n\r\n')
    await vi.waitFor(() => expect(got).toContain('403 denied by agents.yaml:7'))
    expect(seen.map(({ method, headers }) => [method, headers.host])).toEqual([['GET', 'limited.test']])
    socket.destroy()
  })
})

describe('WebSockets', () => {
  const upgrade = (url: string): string =>
    `GET ${url} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n`
  test('an upgrade is passed on for ws and for http, and echoes', async () => {
    await plain('sockets.test')
    w.names.set('plain.test', [PUBLIC])
    for (const host of ['sockets.test', 'plain.test']) {
      const got = await raw(w, `${upgrade(`http://${host}/chat`)}frames`, { ms: 500 })
      expect(got).toMatch(/^HTTP\/1\.1 101 /)
      expect(got).toMatch(/frames$/)
    }
    expect(seen[0]).toMatchObject({ method: 'UPGRADE', url: '/chat', headers: { host: 'sockets.test', 'sec-websocket-key': 'abc' } })
    expect(w.audit.map(({ scheme, verdict }) => `${scheme} ${verdict}`)).toEqual(['ws allow', 'ws allow'])
  })
  test('through a tunnel as well', async () => {
    await plain('sockets.test')
    const socket = await tunnel(w, 'sockets.test:80')
    socket.write(upgrade('/chat'))
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 101 /)
    socket.write('frames')
    expect(String((await once(socket, 'data'))[0])).toBe('frames')
    socket.destroy()
  })
  test('a ws rule allows no plain request, and another host no upgrade', async () => {
    await plain('sockets.test')
    expect((await ask('http://sockets.test/')).status).toBe(403)
    expect(await raw(w, upgrade('http://evil.test/'))).toMatch(/^HTTP\/1\.1 403 denied by/)
    expect(seen).toEqual([])
  })
})

describe('who asks', () => {
  test('each agent has its own rules', async () => {
    await plain('plain.test')
    expect((await ask('http://plain.test/', { agent: 'other' })).body).toContain('denied by agents.yaml:14 egress.few')
    expect(last()).toEqual(['other', 1, 'plain.test', 80, 'deny', 'no_rule', null])
  })
  test('an address that is not of the network it arrived on is hung up on', async () => {
    for (const [host, localAddress] of [
      ['127.0.61.3', '127.0.62.9'],
      ['127.0.60.3', '127.0.60.9'],
      ['127.0.0.1', '127.0.0.1'],
      ['127.0.61.4', '127.0.61.9'],
      ['127.0.61.3', '127.0.61.2'],
      ['127.0.61.3', '127.0.61.249'],
    ] as const) {
      const answer = await new Promise((resolve) => {
        const outgoing = request({ host, localAddress, port: w.proxy.port, path: 'http://plain.test/' }, () => resolve('answered'))
        outgoing.on('error', () => resolve('hung up'))
        outgoing.end()
      })
      expect(answer, `${localAddress} to ${host}`).toBe('hung up')
    }
    expect(w.audit).toEqual([])
  })
})

describe('limits', () => {
  test('a replica with 256 open tunnels gets 429; another one does not notice', async () => {
    const { port, close } = await sink()
    servers.push({ close })
    w.names.set('raw.test', [PUBLIC])
    w.hosts.set(`${PUBLIC}:22`, port)
    const open = await Promise.all(Array.from({ length: 256 }, () => tunnel(w, 'raw.test:22')))
    await expect(tunnel(w, 'raw.test:22')).rejects.toThrow(/429 denied: this replica has 256/)
    const other = await tunnel(w, 'raw.test:22', { replica: 2 })
    for (const socket of [...open, other]) socket.destroy()
    await vi.waitFor(async () => (await tunnel(w, 'raw.test:22')).destroy())
  })
  test('names that nobody answers for hold up their replica alone', async () => {
    const { promise, reject } = Promise.withResolvers<readonly string[]>()
    for (let name = 0; name < 8; name++) w.names.set(`n${name}.wild.test`, promise)
    const waiting = Array.from({ length: 8 }, (_, name) => tunnel(w, `n${name}.wild.test:443`).catch((error: Error) => error.message))
    await vi.waitFor(() => expect(w.resolved).toHaveLength(8))
    await expect(tunnel(w, 'n8.wild.test:443')).rejects.toThrow(/429 denied: this replica waits for the addresses of 8 names/)
    // The same name is one look-up, whoever asks.
    const same = tunnel(w, 'n0.wild.test:443', { replica: 2 }).catch((error: Error) => error.message)
    await expect(tunnel(w, 'n9.wild.test:443', { replica: 2 })).rejects.toThrow(/502 "n9.wild.test" has no address/)
    reject(Object.assign(new Error('no'), { code: 'EAI_AGAIN' }))
    for (const text of await Promise.all([...waiting, same])) expect(text).toContain('has no address: EAI_AGAIN')
    expect(w.resolved).toHaveLength(9)
  })
  test('a head that does not end is given 10 s', async () => {
    const begun = Date.now()
    expect(await raw(w, 'GET http://plain.test/ HTTP/1.1\r\nHost: a', { ms: 20_000 })).toMatch(/^HTTP\/1\.1 408/)
    expect(Date.now() - begun).toBeLessThan(14_000)
  }, 30_000)
})

test('whatever comes, the proxy goes on and nothing is dialled that is not allowed', async () => {
  const piece = fc.constantFrom(
    'CONNECT ',
    'GET ',
    'PRI * HTTP/2.0\r\n\r\n',
    'http://',
    'evil.test',
    'allowed.test',
    ':443',
    '/',
    ' HTTP/1.1\r\n',
    '\r\n',
    'Host: allowed.test\r\n',
    'Transfer-Encoding: chunked\r\n',
    'Content-Length: 5\r\n',
    'Connection: Upgrade\r\n',
    'Upgrade: websocket\r\n',
    '\0',
    '@',
    '%00',
    '\x16\x03\x01\x00\x05',
  )
  const heads = fc.sample(
    fc.oneof(
      fc.array(piece, { maxLength: 12 }).map((parts) => parts.join('')),
      fc.string({ unit: 'binary', maxLength: 200 }),
    ),
    { numRuns: 400, seed: 4 },
  )
  await Promise.all(heads.map((head, index) => raw(w, Buffer.from(head, 'latin1'), { ms: 300, replica: 1 + (index % 3) })))
  expect(w.dialled).toEqual([])
  expect(w.resolved.filter((host) => host !== 'allowed.test')).toEqual([])
  await plain('plain.test')
  expect((await ask('http://plain.test/')).status).toBe(200)
})

describe('a change of the policy', () => {
  const without = (host: string): string =>
    FILE.split('\n')
      .map((line) => (line.includes(host) ? '      - { host: gone.test }' : line))
      .join('\n')
  test('closes what it no longer allows, and nothing else', async () => {
    const { port, close } = await sink()
    servers.push({ close })
    w.names.set('raw.test', [PUBLIC])
    w.hosts.set(`${PUBLIC}:22`, port)
    await secure('allowed.test')
    const [gone, stays] = [await tunnel(w, 'raw.test:22'), await tunnel(w, 'raw.test:22', { replica: 2 })]
    stays.destroy()
    const kept = tlsConnect({ socket: await tunnel(w, 'allowed.test:443'), ca: tls.ca, servername: 'allowed.test' })
    await once(kept, 'secureConnect')
    const closed = once(gone.resume(), 'close')
    w.use(without('raw.test'))
    await closed
    expect(last()).toEqual(['web', 1, 'raw.test', 22, 'deny', 'narrowed', null])
    kept.write('still')
    expect(String((await once(kept, 'data'))[0])).toBe('still')
    kept.destroy()
    await expect(tunnel(w, 'raw.test:22')).rejects.toThrow('403')
  })
  test('holds for what is being dialled, too', async () => {
    const { port, close } = await sink()
    servers.push({ close })
    const { promise, resolve } = Promise.withResolvers<readonly string[]>()
    w.names.set('inside.test', promise)
    w.hosts.set('10.9.8.7:443', port)
    const waiting = raw(w, 'CONNECT inside.test:443 HTTP/1.1\r\nHost: x\r\n\r\n')
    await vi.waitFor(() => expect(w.resolved).toEqual(['inside.test']))
    w.use(without('10.9.8.0/24'))
    resolve(['10.9.8.7'])
    expect(await waiting).toMatch(/403 .*resolves to a private address/)
  })
  test('a kept connection of before is not used again', async () => {
    await plain('plain.test')
    await ask('http://plain.test/')
    w.use(FILE)
    await ask('http://plain.test/')
    expect(w.dialled).toHaveLength(2)
  })
  test('a record that cannot be read is no policy: the caller keeps the old one', () => {
    for (const text of [
      '{',
      '{"version": 99}',
      '{"version": 1}',
      recordText(FILE).replace('"allow":[', '"allow":[{"host":1},'),
      recordText(FILE).replace('"cidr":"10.9.8.0/24"', '"cidr":"10.9.8.0"'),
    ])
      expect(() => segmentsOf(text), text.slice(0, 30)).toThrow()
    expect(() => segmentsOf(recordText(FILE))).not.toThrow()
  })
})
