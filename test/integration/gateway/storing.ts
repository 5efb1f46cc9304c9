/** Raw requests of one replica, with bodies as bytes, and agents that hold a task. */
import { readFileSync, writeFileSync } from 'node:fs'
import { type ClientRequest, request } from 'node:http'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { ArtifactSettings } from '../../../spec/model.ts'
import type { LeasedTask } from '../../../spec/protocol.ts'
import { replicaToken } from '../../../engine/tokens.ts'
import { type AnyJson, type Client, type Harness, PROJECT } from './harness.ts'

export interface RawReply {
  readonly status: number
  readonly headers: { readonly [name: string]: string | string[] | undefined }
  readonly bytes: Buffer
  readonly json: AnyJson
}
export type Raw = (
  method: string,
  path: string,
  body?: Buffer | string | ((request: ClientRequest) => void),
  headers?: Record<string, string>,
) => Promise<RawReply>

export function raw(h: Harness, agent: string, replica: number = 1): Raw {
  const token = replicaToken('ab'.repeat(32), PROJECT, { agent, replica })
  return (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const sent = request(
        { host: '127.0.0.1', port: h.port(), method, path, agent: false, headers: { authorization: `Bearer ${token}`, ...headers } },
        (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('error', reject)
          answer.on('end', () => {
            const bytes = Buffer.concat(chunks)
            let json: unknown = null
            try {
              json = JSON.parse(bytes.toString())
            } catch {
              // Bytes.
            }
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, bytes, json })
          })
        },
      )
      sent.on('error', reject)
      if (typeof body === 'function') body(sent)
      else sent.end(body)
    })
}

/** Settings of the project's artifacts; the gateway follows the record. */
export async function configureArtifacts(h: Harness, artifacts: ArtifactSettings): Promise<void> {
  const path = join(h.directory, 'record.json')
  const record = JSON.parse(readFileSync(path, 'utf8')) as { project: object }
  writeFileSync(path, JSON.stringify({ ...record, project: { ...record.project, artifacts } }))
  await h.control('POST', '/v1/reload').catch(() => null)
}

/** Its next task. */
export async function take(client: Client): Promise<LeasedTask> {
  const until = Date.now() + 20_000
  for (;;) {
    const [task] = (await client.lease(1, 2_000)).tasks
    if (task !== undefined) return task
    if (Date.now() > until) throw new Error('no task within 20 s')
  }
}

/** Holds the lease for as long as a busy test takes: a session that is silent for 5 s is dead. */
export function beating(client: Client, lease: string): Disposable {
  const timer = setInterval(() => void client.post('/v1/heartbeat', { lease }).catch(() => null), 1_000)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Redis' own count of its commands. */
export async function commandStats(h: Harness): Promise<string> {
  const client = new Redis({ host: h.redis.host, port: h.redis.port, password: h.redis.password })
  try {
    return await client.info('commandstats')
  } finally {
    client.disconnect()
  }
}
