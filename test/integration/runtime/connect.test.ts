import { createServer } from 'node:http'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { connectDocker } from '../../../engine/runtimes/docker/connect.ts'
import { runtime } from '../../support/docker.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'agentctl-connect-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/** An engine of another age, as far as `GET /version` goes. */
async function fakeEngine(path: string, version: object): Promise<Disposable> {
  const server = createServer((_, response) => response.setHeader('content-type', 'application/json').end(JSON.stringify(version)))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return { [Symbol.dispose]: () => void server.close() }
}

test('the engine says what it is', async () => {
  const info = await (await runtime()).info()
  expect(info).toMatchObject({
    version: expect.stringMatching(/^\d+\./),
    api_version: expect.stringMatching(/^1\.\d+/),
    cpus: expect.any(Number),
    data_root: expect.stringMatching(/^\//),
  })
})

test('no engine: what was tried stands in the hint', async () => {
  const path = join(folder, 'none.sock')
  await expect(connectDocker({ environment: { DOCKER_HOST: `unix://${path}` } })).rejects.toMatchObject({
    code: 'AG4001',
    message: `No container engine answers at unix://${path} (from DOCKER_HOST)`,
    hint: expect.stringContaining('ENOENT'),
  })
})

test('a file that is no socket is no engine', async () => {
  const path = join(folder, 'file')
  await writeFile(path, '')
  await expect(connectDocker({ environment: { DOCKER_HOST: `unix://${path}` } })).rejects.toMatchObject({ code: 'AG4001' })
})

test('an engine that is too old is refused by its version', async () => {
  const path = join(folder, 'old.sock')
  using _ = await fakeEngine(path, { Version: '19.03.1', ApiVersion: '1.40', MinAPIVersion: '1.12' })
  await expect(connectDocker({ environment: { DOCKER_HOST: `unix://${path}` } })).rejects.toMatchObject({
    code: 'AG4005',
    message: expect.stringContaining('expected API 1.41'),
  })
})

test('one that does not answer is given up', async () => {
  const path = join(folder, 'mute.sock')
  const server = createServer(() => undefined)
  await new Promise<void>((resolve) => server.listen(path, resolve))
  try {
    await expect(connectDocker({ environment: { DOCKER_HOST: `unix://${path}` }, timeout_ms: 200 })).rejects.toMatchObject({
      code: 'AG4001',
      hint: expect.stringContaining('0.2 s'),
    })
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
