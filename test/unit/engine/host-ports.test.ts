import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import type { Desired } from '../../../engine/desired.ts'
import { requirePorts } from '../../../engine/host-ports.ts'
import type { Observed } from '../../../engine/observe.ts'
import { renderPlan } from '../../../engine/plan-text.ts'
import { reconcile } from '../../../engine/reconcile.ts'
import { nothing, project, running, service, want } from '../../support/project.ts'

type Protocol = 'tcp' | 'udp'
const web = (host_port: number, protocol: Protocol = 'tcp', name = 'web'): Desired =>
  want(project({ services: [service(name, { ports: [{ host_ip: '127.0.0.1', host_port, container_port: 80, protocol }] })] }))
const check = (desired: Desired, observed: Observed = nothing): Promise<void> =>
  requirePorts(reconcile(desired, observed, { writeRecord: null }), desired, observed)

async function tcp(): Promise<{ readonly port: number } & AsyncDisposable> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  return { port, [Symbol.asyncDispose]: () => new Promise((done) => void server.close(() => done())) }
}

async function udp(): Promise<{ readonly port: number } & AsyncDisposable> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  return { port: socket.address().port, [Symbol.asyncDispose]: () => new Promise((done) => void socket.close(() => done())) }
}

test('a port that somebody listens on is refused by name, for its protocol alone', async () => {
  await using listener = await tcp()
  await expect(check(web(listener.port))).rejects.toMatchObject({
    code: 'AG4004',
    message: `port 127.0.0.1:${listener.port}/tcp for p-web-1 is in use on this host`,
  })
  await check(web(listener.port, 'udp'))
  await using other = await udp()
  await expect(check(web(other.port, 'udp'))).rejects.toMatchObject({ code: 'AG4004' })
})

test('free ports, any port, and those of a service that stays as it is are not refused', async () => {
  let free = 0
  {
    await using listener = await tcp()
    free = listener.port
  }
  await check(web(free))
  await check(web(0))
  await using listener = await tcp()
  const desired = web(listener.port)
  await check(desired, running(desired))
})

test('a port that the project itself publishes may move; the new container starts when the old one is gone', async () => {
  await using listener = await tcp()
  const before = running(web(listener.port))
  const holding: Observed = {
    ...before,
    containers: before.containers.map((it) => (it.name === 'p-web-1' ? { ...it, published: [`${listener.port}/tcp`] } : it)),
  }
  const desired = web(listener.port, 'tcp', 'site')
  await check(desired, holding)
  const plan = reconcile(desired, holding, { writeRecord: null })
  const removal = plan.steps.find(({ operation }) => operation.op === 'remove-container' && operation.container === 'p-web-1')
  const start = plan.steps.find(({ operation }) => operation.op === 'start-container' && operation.container === 'p-site-1')
  expect(start?.needs, renderPlan(plan)).toContain(removal?.id)
})
