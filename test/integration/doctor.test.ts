import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { diagnose } from '../../engine/doctor.ts'
import { gatherFacts } from '../../engine/doctor-facts.ts'
import { connectDocker } from '../../engine/runtimes/docker/connect.ts'

const references = { agent: 'agentctl/agent:never-built', engine: 'agentctl/engine:never-built', base: 'debian:bookworm-slim' }
const examine = async (environment: NodeJS.ProcessEnv): Promise<ReturnType<typeof diagnose>> =>
  diagnose(await gatherFacts({ connect: () => connectDocker({ environment }), references, environment, folder: tmpdir() }))

test('on an engine that works nothing fails; images that are not there are named and are no failure', async () => {
  const { ok, checks } = await examine(process.env)
  expect(checks.filter(({ status }) => status === 'fail')).toEqual([])
  expect(ok).toBe(true)
  const status = Object.fromEntries(checks.map((check) => [check.id, check.status]))
  expect(status).toMatchObject({
    engine: 'ok',
    socket: 'ok',
    api: 'ok',
    limits: 'ok',
    seccomp: 'ok',
    'image-agent': 'warn',
    'image-engine': 'warn',
    node: 'ok',
  })
})

test('where no engine answers, that is the one failure', async () => {
  const { ok, checks } = await examine({ ...process.env, DOCKER_HOST: 'unix:///nonexistent/docker.sock' })
  expect(ok).toBe(false)
  expect(checks.filter(({ status }) => status === 'fail').map(({ id, fix }) => [id, fix !== null])).toEqual([['engine', true]])
})
