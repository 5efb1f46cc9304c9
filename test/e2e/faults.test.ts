/** The faults of the contract: everything heals without anyone asking, the run ends right, nothing is lost, nothing is visible twice. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ReplicaView } from '../../spec/protocol.ts'
import { type Stack, stack } from '../support/stack.ts'

const FILE = `
agents:
  worker:
    replicas: 3
    concurrency: 4
    handler: { module: ./app/handler.ts }
    volumes: ["ledger:/ledger"]
  keeper: { secrets: [key] }
volumes: { ledger: {} }
secrets: { key: { environment: KEY } }
`
/** Each execution leaves a line of its own, so that what ran twice is seen from outside the system. */
const HANDLER = `
import { appendFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
export default async (input, ctx) => {
  await appendFile('/ledger/log', ctx.task.id + ' ' + ctx.task.attempt + '\\n')
  await sleep(input.ms)
  return input.n * 2
}
`
let s: Stack
beforeAll(async () => void (s = await stack('t-faults', { 'agents.yaml': FILE, 'app/handler.ts': HANDLER }, { KEY: 'sesame' })), 300_000)
afterAll(async () => void (await s?.[Symbol.asyncDispose]()), 120_000)

const TASKS = 40
const submit = async (ms = 250): Promise<string> =>
  await s.submit({ agent: 'worker', type: 'task', tasks: Array.from({ length: TASKS }, (_, n) => ({ n, ms })) })
const executions = async (run: string): Promise<ReadonlyMap<string, number>> => {
  const counts = new Map<string, number>()
  const worker = (await s.runtime.containers(s.name)).find((it) => it.labels['agentctl.agent'] === 'worker' && it.status === 'running')
  const log = (await s.exec((worker?.name ?? '').slice(s.name.length + 1), ['cat', '/ledger/log'])).text
  for (const line of log.split('\n')) {
    const [task = ''] = line.split(' ')
    if (task.startsWith(run)) counts.set(task, (counts.get(task) ?? 0) + 1)
  }
  return counts
}
const underWay = async (run: string): Promise<void> =>
  await eventually(
    async () => (await s.control.replicas()).reduce((sum, it) => sum + it.tasks, 0) > 0 && (await s.control.run(run)).status === 'running',
  )
const eventually = async (check: () => Promise<boolean>, timeout_ms = 30_000): Promise<void> => {
  for (const until = Date.now() + timeout_ms; ; await sleep(50)) {
    if (await check().catch(() => false)) return
    if (Date.now() > until) throw new Error('not within the time')
  }
}
const expectRight = async (run: string): Promise<void> => {
  const view = await s.ended(run, 60_000)
  expect(view.status).toBe('completed')
  expect(Object.values(view.result as Record<string, unknown>)[0]).toEqual(Array.from({ length: TASKS }, (_, n) => n * 2))
}
const pidOf = async (container: string): Promise<number> => ((await s.runtime.inspect(container)) as { State: { Pid: number } }).State.Pid
/** The three kinds of the contract; the third is behind our back. */
const KINDS = {
  crash: async (container: string) =>
    void (await s.runtime
      .exec(container, ['sh', '-c', 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = node ] && kill -9 ${p#/proc/}; done'], {
        timeout_ms: 10_000,
      })
      .catch(() => undefined)),
  'kill -9 of its process from the host': async (container: string) => void process.kill(await pidOf(container), 'SIGKILL'),
  'removed behind our back': async (container: string) => await s.runtime.remove(container),
} as const
const allConnected = async (): Promise<boolean> => {
  const replicas = await s.control.replicas()
  return [1, 2, 3].every((n) => replicas.some((it: ReplicaView) => it.agent === 'worker' && it.replica === n && it.connected))
}
const whole = async (): Promise<boolean> =>
  (await allConnected()) &&
  (await s.runtime.containers(s.name)).every((it) => it.status === 'running' && it.health !== 'unhealthy') &&
  (await s.runtime.containers(s.name)).length === 9

for (const [kind, strike] of Object.entries(KINDS)) {
  test(`an agent in mid task: ${kind}`, async () => {
    const run = await submit()
    await underWay(run)
    await strike(`${s.name}-worker-2`)
    await expectRight(run)
    const counts = await executions(run)
    expect(counts.size).toBe(TASKS)
    // Only what that replica held (four slots) may have run again.
    expect([...counts.values()].reduce((sum, n) => sum + n, 0)).toBeLessThanOrEqual(TASKS + 4)
    await eventually(whole)
  }, 120_000)
}

for (const [kind, strike] of Object.entries(KINDS)) {
  test(`the gateway: ${kind}; no task is run again`, async () => {
    const run = await submit()
    await underWay(run)
    await strike(`${s.name}-agentctl-gateway-1`)
    await expectRight(run)
    expect([...(await executions(run)).values()]).toEqual(Array.from({ length: TASKS }, () => 1))
    await eventually(whole)
  }, 120_000)
}

test('the gateway, killed again and again as soon as it is back: each time it is started at once, not by the slow look, and work goes on', async () => {
  const gateway = `${s.name}-agentctl-gateway-1`
  const run = await submit(500)
  await underWay(run)
  for (let round = 1; round <= 4; round++) {
    // As `docker kill`: the engine does not restart it. The controller may still be busy with the repair of the round before.
    await s.runtime.stop(gateway, 0)
    const died = Date.now()
    await eventually(async () => (await s.runtime.containers(s.name)).some((it) => it.name === gateway && it.status === 'running'))
    // The slow look comes every 10 s; the longest pause of a part of ours is 2 s.
    expect(Date.now() - died, `round ${round}`).toBeLessThan(9_000)
  }
  const back = Date.now()
  await eventually(async () => (await s.control.replicas()).some((it) => it.agent === 'worker' && it.connected), 15_000)
  expect(Date.now() - back).toBeLessThan(8_000)
  await expectRight(run)
  expect([...(await executions(run)).values()]).toEqual(Array.from({ length: TASKS }, () => 1))
  await eventually(whole)
}, 120_000)

for (const [kind, strike] of [
  ['killed by the engine', async (container: string) => await s.runtime.stop(container, 0)],
  ...Object.entries(KINDS).filter(([name]) => name !== 'crash'),
] as const) {
  test(`Redis: ${kind}; nothing is lost and no task is run again`, async () => {
    const run = await submit()
    await underWay(run)
    await strike(`${s.name}-agentctl-broker-1`)
    await expectRight(run)
    expect([...(await executions(run)).values()]).toEqual(Array.from({ length: TASKS }, () => 1))
    await eventually(whole)
  }, 120_000)
}

test('the controller: killed with its process it is back by itself and heals again; removed, the next verb restores it', async () => {
  const controller = `${s.name}-agentctl-controller-1`
  process.kill(await pidOf(controller), 'SIGKILL')
  await eventually(async () => (await s.runtime.containers(s.name)).some((it) => it.name === controller && it.status === 'running'))
  await s.runtime.remove(`${s.name}-worker-1`)
  await eventually(whole)
  await s.runtime.remove(controller)
  await s.up()
  await eventually(whole)
}, 120_000)

test('egress removed behind our back comes back', async () => {
  await s.runtime.remove(`${s.name}-agentctl-egress-1`)
  await eventually(whole)
}, 60_000)

test('the holder of the secrets removed behind our back comes back, and a new replica still gets its token', async () => {
  await s.runtime.remove(`${s.name}-agentctl-secrets-1`)
  await s.runtime.remove(`${s.name}-worker-3`)
  await eventually(whole)
}, 60_000)

test('the machine is started again: all comes back by itself but who needs a secret, which the next up must be given', async () => {
  const containers = await s.runtime.containers(s.name)
  await Promise.all(containers.map(async (it) => await s.runtime.stop(it.name, 0)))
  // What an engine does with `unless-stopped` when it starts; their memory (the tmpfs volume) is gone.
  for (const part of ['secrets', 'controller']) await s.runtime.start(`${s.name}-agentctl-${part}-1`)
  await eventually(allConnected)
  const keeper = async (): Promise<string | undefined> =>
    (await s.runtime.containers(s.name)).find((it) => it.name === `${s.name}-keeper-1`)?.status
  expect(await keeper()).toBe('exited')
  await s.up()
  expect(await keeper()).toBe('running')
  expect((await s.exec('keeper-1', ['cat', '/run/secrets/key'])).text).toBe('sesame')
  const run = await submit(10)
  await expectRight(run)
}, 120_000)
