/** A broker of the user's own: with the least rights (ACL), with TLS, through the relay, and refused when it would lose work. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, expect, test } from 'vitest'
import { type BullmqOptions, connectBroker } from '../../../engine/broker/bullmq.ts'
import type { Broker } from '../../../engine/broker/port.ts'
import { farBroker } from '../../../engine/gateway/far-broker.ts'
import { startRelay } from '../../../engine/egress/relay.ts'
import { queuePrefix } from '../../../engine/names.ts'
import { brokerAddress } from '../../../spec/broker.ts'
import { DEFAULT_BROKER } from '../../../spec/model.ts'
import { makeCertificates } from '../../support/certificates.ts'
import { startRedis, type TestRedis } from '../../support/redis.ts'
import { brokerConformance } from './conformance.ts'

/** The very rights that docs/operations.md tells to give. */
function documentedAcl(password: string, keys: string): readonly string[] {
  const docs = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8')
  const rights = /^ACL SETUSER agentctl (.*)$/m.exec(docs)?.[1]
  if (rights === undefined) throw new Error('docs/operations.md names no ACL')
  return rights.replace('SECRET', password).replace('PROJECT', keys).split(' ')
}

const SERVER = 'redis.test'
const { ca, cert, key } = makeCertificates([`DNS:${SERVER}`])
const TLS = ['--tls-cert-file', '%dir%/cert.pem', '--tls-key-file', '%dir%/key.pem', '--tls-auth-clients', 'no']
const redis = await startRedis({ tls: true, flags: TLS, files: { 'cert.pem': cert, 'key.pem': key } })
const admin = new Redis({ host: redis.host, port: redis.port, password: redis.password })
const USER = 'agentctl'
const SECRET = 'a-secret-of-the-test'
await admin.call('ACL', 'SETUSER', USER, ...documentedAcl(SECRET, 't-*'))
const folder = mkdtempSync(join(tmpdir(), 't-far-'))
afterAll(async () => {
  admin.disconnect()
  await redis.stop()
  rmSync(folder, { recursive: true, force: true })
})

const record = join(folder, 'record.json')
const tell = (url: string | null): void => writeFileSync(record, JSON.stringify({ version: 1, project: { broker: { url } } }))
/** This machine under a name that is not refused: the relay of a project is in another container. */
const here = (port: number): string => `redis://0.0.0.0:${port}`
const clean = async (project: string): Promise<void> => {
  const keys = await admin.keys(`${queuePrefix(project)}*`)
  if (keys.length > 0) await admin.del(...keys)
}

const relay = async (allowed = '127.0.0.1') => {
  const notes: string[] = []
  const made = await startRelay({ record, host: '127.0.0.1', port: 0, allowed, note: (message) => notes.push(message) })
  return { ...made, notes }
}

tell(here(redis.port))
const plainRelay = await relay()
const tlsRecord = join(folder, 'tls.json')
writeFileSync(tlsRecord, JSON.stringify({ version: 1, project: { broker: { url: here(redis.tlsPort) } } }))
const tlsRelay = await startRelay({ record: tlsRecord, host: '127.0.0.1', port: 0, allowed: '127.0.0.1', note: () => {} })
afterAll(async () => {
  await Promise.all([plainRelay.stop(), tlsRelay.stop()])
})

brokerConformance('a user with the documented rights, through the relay', {
  connect: (project) =>
    connectBroker({ project, host: '127.0.0.1', port: plainRelay.port, username: USER, password: SECRET, demands: 'normal' }),
  clean,
})

brokerConformance('rediss:// with an authority of its own, through the relay', {
  connect: (project) =>
    connectBroker({
      project,
      host: '127.0.0.1',
      port: tlsRelay.port,
      username: USER,
      password: SECRET,
      tls: { servername: SERVER, ca },
      demands: 'normal',
    }),
  clean,
})

// The whole suite against a broker of yours: docs/operations.md.
const given = process.env['AGENTCTL_TEST_BROKER']
if (given !== undefined) {
  const address = brokerAddress(given)
  if (address === null) throw new Error('AGENTCTL_TEST_BROKER is no redis:// or rediss:// address without a password')
  const authority = process.env['AGENTCTL_TEST_BROKER_CA']
  const password = process.env['AGENTCTL_TEST_BROKER_PASSWORD']
  const options = {
    host: address.host,
    port: address.port,
    db: address.db,
    ...(address.username === null ? {} : { username: address.username }),
    ...(password === undefined ? {} : { password }),
  }
  const tls = address.tls
    ? { servername: address.host, ...(authority === undefined ? {} : { ca: readFileSync(authority, 'utf8') }) }
    : undefined
  brokerConformance('the given one', {
    connect: (project) => connectBroker({ project, ...options, ...(tls === undefined ? {} : { tls }), demands: 'normal' }),
    async clean(project) {
      const client = new Redis({ ...options, ...(tls === undefined ? {} : { tls }) })
      for (let cursor = '0'; ; ) {
        const [next, keys] = await client.scan(cursor, 'MATCH', `${queuePrefix(project)}*`)
        if (keys.length > 0) await client.unlink(...keys)
        if (next === '0') break
        cursor = next
      }
      client.disconnect()
    },
  })
}

const eventually = async (what: string, done: () => boolean): Promise<void> => {
  for (const end = Date.now() + 20_000; !done(); await sleep(20)) if (Date.now() > end) throw new Error(`not within 20 s: ${what}`)
}

/** A connection, what it says of itself, and its end. */
async function trying(options: Partial<BullmqOptions>, act: (broker: Broker) => Promise<void>): Promise<void> {
  const broker = connectBroker({ project: 't-trying', host: redis.host, port: redis.port, password: redis.password, ...options })
  try {
    await act(broker)
  } finally {
    await broker.close()
  }
}
const refused = async (options: Partial<BullmqOptions>, code: string, why: string): Promise<void> =>
  await trying(options, async (broker) => {
    let sent = false
    void broker.openRuns().then(
      () => (sent = true),
      () => {},
    )
    await eventually(`a refusal: ${why}`, () => broker.problem?.message.includes(why) === true)
    expect(broker.problem?.code).toBe(code)
    expect([broker.connected, sent]).toEqual([false, false])
  })

test('the documented user can do nothing outside the project, and nothing dangerous inside', async () => {
  const user = new Redis({ host: redis.host, port: redis.port, username: USER, password: SECRET })
  const denied = async (...command: [string, ...string[]]): Promise<void> =>
    await expect(user.call(...command), command.join(' ')).rejects.toThrow('NOPERM')
  try {
    await denied('GET', 'other')
    await denied('SET', '{agentctl:production}::runs', 'x')
    await denied('EVAL', "return redis.call('GET', KEYS[1])", '1', 'other')
    await denied('KEYS', '*')
    await denied('FLUSHALL')
    await denied('CONFIG', 'SET', 'maxmemory', '1')
    await denied('ACL', 'LIST')
    await denied('SHUTDOWN')
    await denied('SUBSCRIBE', 'any')
  } finally {
    user.disconnect()
  }
})

test('TLS: an unknown authority and another name are refused, and the name is that of the broker, not of the relay', async () => {
  const tls = { host: '127.0.0.1', port: tlsRelay.port }
  await refused({ ...tls, tls: { servername: SERVER } }, 'AG5002', 'certificate')
  await refused({ ...tls, tls: { servername: 'other.test', ca } }, 'AG5002', "does not match certificate's altnames")
  await trying({ ...tls, tls: { servername: SERVER, ca } }, async (broker) => {
    await eventually('a connection', () => broker.connected)
  })
})

test('a wrong password is told, and a new one in the file is taken without a restart', async () => {
  const secrets = mkdtempSync(join(folder, 'secrets-'))
  const file = join(secrets, 'broker-password')
  writeFileSync(file, 'wrong\n')
  const options = farBroker({ ...DEFAULT_BROKER, url: `redis://${USER}@0.0.0.0:${redis.port}/0`, password: 'pw' }, secrets, {
    host: '127.0.0.1',
    port: plainRelay.port,
  })
  if (options === null) throw new Error('no broker')
  await trying(options, async (broker) => {
    await eventually('WRONGPASS', () => broker.problem?.message.includes('WRONGPASS') === true)
    expect(broker.problem?.message).not.toContain(SECRET)
    writeFileSync(file, `${SECRET}\n`)
    await eventually('a connection', () => broker.connected)
    expect(broker.problem).toBeNull()
  })
})

test('settings that lose work are refused before anything is sent, unless durability is none', async () => {
  const set = async (name: string, value: string): Promise<unknown> => await admin.config('SET', name, value)
  await set('maxmemory', '256mb')
  await set('maxmemory-policy', 'allkeys-lru')
  await refused({ demands: 'normal' }, 'AG5003', 'maxmemory-policy is allkeys-lru')
  await trying({ demands: 'none' }, async (broker) => await eventually('a connection', () => broker.connected))
  await set('maxmemory-policy', 'noeviction')
  await set('appendonly', 'no')
  await refused({ demands: 'normal' }, 'AG5003', 'appendonly is off')
  await set('appendonly', 'yes')
  await refused({ demands: 'strict' }, 'AG5003', 'appendfsync is everysec')
  await set('appendfsync', 'always')
  await trying({ demands: 'strict' }, async (broker) => await eventually('a connection', () => broker.connected))
  // A user who may not ask cannot show that it is strict.
  await admin.call('ACL', 'SETUSER', 't-blind', 'on', '>x', '~*', '+@all', '-config')
  await refused({ username: 't-blind', password: 'x', demands: 'strict' }, 'AG5003', 'may not call CONFIG GET')
  await admin.call('ACL', 'SETUSER', 't-blind', '-info')
  await refused({ username: 't-blind', password: 'x', demands: 'none' }, 'AG5003', 'may not call INFO')
  await admin.call('ACL', 'DELUSER', 't-blind')
  await set('appendfsync', 'everysec')
})

test('settings are looked at again at each reconnect', async () => {
  await trying({ demands: 'normal' }, async (broker) => {
    await eventually('a connection', () => broker.connected)
    await admin.config('SET', 'appendonly', 'no')
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await eventually('a refusal', () => broker.problem?.code === 'AG5003')
    await admin.config('SET', 'appendonly', 'yes')
    await eventually('a connection', () => broker.connected)
  })
})

test('a replica is refused', async () => {
  const second: TestRedis = await startRedis()
  try {
    const to = new Redis({ host: second.host, port: second.port, password: second.password })
    // Of nobody who answers: its role is what counts.
    await to.call('REPLICAOF', '127.0.0.1', '1')
    to.disconnect()
    await refused({ port: second.port, password: second.password, demands: 'none' }, 'AG5003', 'it is a replica')
  } finally {
    await second.stop()
  }
})

test('a cluster is refused', async () => {
  const cluster = await startRedis({ flags: ['--cluster-enabled', 'yes'] })
  try {
    await refused({ port: cluster.port, password: cluster.password, demands: 'none' }, 'AG5003', 'it runs as cluster')
  } finally {
    await cluster.stop()
  }
})
