/** Two gateways on a real engine: they are made, known, healed and taken away like any other part. */
import { setTimeout as sleep } from 'node:timers/promises'
import Docker from 'dockerode'
import { expect, test } from 'vitest'
import { shardOf } from '../../engine/gateway/shards/front.ts'
import type { GatewayHealth } from '../../engine/gateway/shards/merge.ts'
import { ps } from '../../engine/ps.ts'
import { readStore } from '../../engine/secrets/store.ts'
import { peerToken } from '../../engine/tokens.ts'
import { newRunId } from '../../engine/ulid.ts'
import { type Stack, stack } from '../support/stack.ts'

const file = (gateways: number): { readonly [path: string]: string } => ({
  'agents.yaml': `gateway: { replicas: ${gateways} }\nagents:\n  worker: { concurrency: 2, mem_limit: 64m, pids_limit: 32 }\n`,
})
const gateways = async ({ control }: Stack): Promise<readonly GatewayHealth[]> =>
  ((await control.health()) as { readonly gateways?: readonly GatewayHealth[] }).gateways ?? []
const names = async ({ runtime, name }: Stack): Promise<readonly string[]> =>
  (await runtime.containers(name))
    .map((it) => it.name.slice(name.length + 1))
    .filter((it) => it.includes('gateway'))
    .sort()
const eventually = async (what: string, done: () => Promise<boolean>): Promise<void> => {
  for (const end = Date.now() + 60_000; !(await done().catch(() => false)); await sleep(200))
    if (Date.now() > end) throw new Error(`not within 60 s: ${what}`)
}
/** A run of the gateway with that number, by an id that leads there. */
async function submit(on: Stack, gateway: number, command: string): Promise<string> {
  let id = newRunId()
  while (shardOf(id, 2) !== gateway - 1) id = newRunId()
  return await on.submit({ id, agent: 'worker', type: 'task', tasks: [{ command }] })
}

test('up with two gateways, work through both, heal, and down to one when nothing is unfinished', async () => {
  await using on = await stack('t-gateways', file(2))
  await on.up()
  expect(await names(on)).toEqual(['agentctl-gateway-1', 'agentctl-gateway-2'])
  expect((await gateways(on)).map(({ name, ok, broker }) => [name, ok, broker])).toEqual([
    ['gateway', true, true],
    ['gateway-2', true, true],
  ])
  // Made anew: nothing to do.
  const before = (await on.runtime.containers(on.name)).map(({ id }) => id).sort()
  await on.up()
  expect((await on.runtime.containers(on.name)).map(({ id }) => id).sort()).toEqual(before)

  const runs = [await submit(on, 1, 'echo 1'), await submit(on, 2, 'echo 2')]
  for (const run of runs) expect((await on.ended(run)).status).toBe('completed')
  expect((await on.control.runs()).runs.map(({ run }) => run).sort()).toEqual(runs.toSorted())
  const { containers } = await ps(on.ctx, on.name)
  expect(containers.filter(({ kind }) => kind === 'gateway' || kind === 'agent').map((it) => [it.kind, it.replica, it.ready])).toEqual([
    ['agent', 1, true],
    ['gateway', 1, true],
    ['gateway', 2, true],
  ])

  // Not even with the token that only gateways can make does an agent get through.
  const store = await readStore(on.runtime, on.name, on.ctx.signal)
  const token = peerToken(store?.project_key ?? '', on.name)
  const ask = `fetch('http://gateway-2:7070/control/health', { headers: { authorization: 'Bearer ${token}' } }).then((it) => console.log(it.status))`
  expect([await on.node('agentctl-gateway-1', ask), await on.node('worker-1', ask)]).toEqual(['200', '401'])

  await new Docker().getContainer(`${on.name}-agentctl-gateway-2`).remove({ force: true })
  await eventually(
    'the second gateway is back, with the replica',
    async () => (await gateways(on))[1]?.broker === true && (await on.control.replicas())[0]?.connected === true,
  )
  expect((await on.ended(await submit(on, 2, 'echo again'))).status).toBe('completed')

  const held = await submit(on, 2, 'sleep 600')
  await expect(on.up(file(1))).rejects.toMatchObject({ code: 'AG5006', message: expect.stringContaining('gateway-2') })
  expect(await names(on)).toEqual(['agentctl-gateway-1', 'agentctl-gateway-2'])
  await on.control.cancel(held)
  await eventually('nothing is unfinished', async () => (await gateways(on))[1]?.open === 0)
  await on.up(file(1))
  expect(await names(on)).toEqual(['agentctl-gateway-1'])
  const last = await on.submit({ agent: 'worker', type: 'task', tasks: [{ command: 'echo alone' }] })
  expect((await on.ended(last)).status).toBe('completed')
  // What the other had is there again when it is.
  await on.up(file(2))
  expect((await on.control.run(runs[1] as string)).status).toBe('completed')
})
