import { afterAll, beforeAll, expect, test } from 'vitest'
import { ensureImages, type ImageReferences } from '../../../engine/images/ensure.ts'
import type { ContainerRuntime } from '../../../engine/ports.ts'
import { containerSpec } from '../../support/container-spec.ts'
import { cleanup, images, runtime, uniqueProject } from '../../support/docker.ts'

const project = uniqueProject('t-images')
let engine: ContainerRuntime
let ours: ImageReferences

beforeAll(async () => {
  engine = await runtime()
  ours = await images()
})
afterAll(() => cleanup(project))

async function run(image: string, ...command: string[]): Promise<string> {
  const name = `${project}-x-1`
  const spec = containerSpec({ project, name, image, entrypoint: ['sleep'], command: ['infinity'], mem_limit: 268_435_456 })
  await engine.createContainer(spec)
  await engine.start(name)
  const { stdout, stderr } = await engine.exec(name, command)
  await engine.remove(name)
  return stdout.toString() + stderr.toString()
}

test('images that exist cost two look-ups and no build', async () => {
  const said: string[] = []
  const start = performance.now()
  expect(await ensureImages(engine, { emit: (message) => said.push(message), signal: AbortSignal.timeout(10_000) })).toEqual(ours)
  expect(said).toEqual([])
  expect(performance.now() - start).toBeLessThan(1_000)
})

test('agents run as 10001, our own parts as 10002', async () => {
  expect((await engine.image(ours.agent))?.user).toBe('10001:10001')
  expect((await engine.image(ours.engine))?.user).toBe('10002:10002')
  // What is searched for secrets in images of users.
  expect((await engine.image(ours.agent))?.environment).toContainEqual(expect.stringMatching(/^PATH=/))
  expect((await engine.imageHistory(ours.agent)).join('\n')).toMatch(/COPY|ENTRYPOINT|CMD/)
  expect(await run(ours.agent, 'id', '-un')).toBe('agent\n')
})

test("the agent's image has no broker client and no broker", async () => {
  expect(
    await run(
      ours.agent,
      'sh',
      '-c',
      'ls /opt/agentctl; grep -slEi "bullmq|ioredis" /opt/agentctl/*; which redis-server redis-cli; find / -xdev -name node_modules 2>/dev/null',
    ),
  ).toBe('agent.mjs\nmark\nprobe\n')
})

test("the agent's image has what its tasks want", async () => {
  expect(await run(ours.agent, 'sh', '-c', 'which curl git node sh')).toBe(
    '/usr/bin/curl\n/usr/bin/git\n/usr/local/bin/node\n/usr/bin/sh\n',
  )
})

test("the engine's image has every part", async () => {
  expect(await run(ours.engine, 'sh', '-c', 'ls /opt/agentctl; which redis-server socat flock node')).toBe(
    'controller.mjs\negress.mjs\ngateway.mjs\nmark\nprobe\n/usr/bin/redis-server\n/usr/bin/socat\n/usr/bin/flock\n/usr/local/bin/node\n',
  )
})

test.each(['gateway.mjs', 'egress.mjs', 'controller.mjs'])('%s loads: nothing is missing from the bundle', async (file) => {
  const said = await run(ours.engine, 'timeout', '2', 'node', `/opt/agentctl/${file}`)
  expect(said).not.toMatch(
    /ERR_MODULE_NOT_FOUND|Cannot find (module|package)|Dynamic require|is not defined|is not a function|DeprecationWarning/,
  )
})
