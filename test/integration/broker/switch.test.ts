/** A project that goes to another broker and comes back has lost nothing; one whose broker comes back empty has. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, expect, test } from 'vitest'
import { connectBroker } from '../../../engine/broker/bullmq.ts'
import { farBroker } from '../../../engine/gateway/far-broker.ts'
import { startGateway } from '../../../engine/gateway/start.ts'
import { DEFAULT_BROKER } from '../../../spec/model.ts'
import { agent, project, record } from '../../support/project.ts'
import { startRedis } from '../../support/redis.ts'

const folder = mkdtempSync(join(tmpdir(), 't-switch-'))
const socket = join(folder, 'control.sock')
const [own, far] = [await startRedis(), await startRedis()]
afterAll(async () => {
  await Promise.all([own.stop(), far.stop()])
  rmSync(folder, { recursive: true, force: true })
})
writeFileSync(join(folder, 'project-key'), 'ab'.repeat(32))

interface Health {
  readonly broker: boolean
  readonly broker_loss: { readonly runs: readonly string[] } | null
}
const ask = <T>(method: string, path: string, body?: unknown): Promise<T> =>
  new Promise((resolve, reject) => {
    const sent = request({ socketPath: socket, method, path, headers: { 'content-type': 'application/json' } }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => resolve(JSON.parse(Buffer.concat(chunks).toString('utf8')) as T))
    })
    sent.on('error', reject)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })

/** One life of a gateway, on our broker or on the other. */
async function life<T>(url: string | null, act: () => Promise<T>): Promise<{ readonly health: Health; readonly value: T }> {
  const broker = { ...DEFAULT_BROKER, url, password: url === null ? null : 'pw' }
  writeFileSync(join(folder, 'record.json'), JSON.stringify(record({ ...project({ agents: [agent('a')] }), broker })))
  writeFileSync(join(folder, 'broker-password'), url === null ? own.password : far.password)
  const gateway = await startGateway({
    connect: (name, password, settings, secrets) => {
      const there = farBroker(settings, secrets, { host: far.host, port: far.port })
      return connectBroker({ project: name, ...(there ?? { host: own.host, port: own.port, password }) })
    },
    record: join(folder, 'record.json'),
    secrets: folder,
    host: '127.0.0.1',
    port: 0,
    controlSocket: socket,
    stateDir: join(folder, 'state'),
    log: () => {},
  })
  try {
    const value = await act()
    // Answered after the gateway has taken over, which is when it compares.
    await ask('GET', '/v1/runs')
    return { health: await ask<Health>('GET', '/v1/health'), value }
  } finally {
    await gateway.close()
  }
}
const submit = async (): Promise<string> =>
  (await ask<{ run: string }>('POST', '/v1/runs', { agent: 'a', type: 'task', tasks: [{ command: 'true' }] })).run
const runs = async (): Promise<readonly string[]> =>
  (await ask<{ runs: readonly { readonly run: string }[] }>('GET', '/v1/runs')).runs.map((it) => it.run)

test('there and back again: nothing is lost; an emptied broker is told, by run', async () => {
  const url = `redis://0.0.0.0:${far.port}/0`
  const first = await life(null, submit)
  expect(first.health).toMatchObject({ broker: true, broker_loss: null })
  const second = await life(url, async () => [await submit(), await runs()] as const)
  expect(second.health).toMatchObject({ broker: true, broker_loss: null })
  expect(second.value[1]).toEqual([second.value[0]])
  const back = await life(null, runs)
  expect(back.health).toMatchObject({ broker: true, broker_loss: null })
  expect(back.value).toContain(first.value)

  const client = new Redis({ host: far.host, port: far.port, password: far.password })
  await client.flushall()
  client.disconnect()
  const emptied = await life(url, async () => await sleep(0))
  expect(emptied.health.broker_loss?.runs).toEqual([second.value[0]])
})
