import { expect, test } from 'vitest'
import { Proving, type ProvingOptions } from '../../../../engine/controller/proving.ts'
import { desired } from '../../../../engine/desired.ts'
import { LABEL } from '../../../../engine/names.ts'
import type { ContainerSpec, EngineEvent } from '../../../../engine/ports.ts'
import type { ProjectRecord } from '../../../../engine/record.ts'
import { containerBody } from '../../../../engine/runtimes/docker/create-body.ts'
import { SECCOMP } from '../../../../engine/seccomp.ts'
import type { Proof, ReplicaView } from '../../../../spec/protocol.ts'
import { agent, project, record } from '../../../support/project.ts'

const RECORD: ProjectRecord = record(project({ agents: [agent('a')] }))
const spec = desired(RECORD, SECCOMP).containers.find((it) => it.spec.kind === 'agent')?.spec as ContainerSpec

/** What the reader says of a replica as it was declared. */
const SAID = [
  `Name:\tx\nUid:\t10001\t10001\t10001\t10001\nGid:\t10001\t10001\t10001\t10001\nCapEff:\t0\nCapBnd:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n`,
  `1 0 0:1 / / ro - overlay overlay ro\n2 1 0:2 / /tmp rw,nosuid,nodev,noexec - tmpfs t rw,size=65536k\n3 1 0:3 / /workspace rw,nosuid,nodev - tmpfs t rw,size=262144k\n4 1 0:4 / /run/secrets ro - tmpfs t rw\n`,
  'Iface\n',
  'lo: 0\neth0: 0\n',
  ...['536870912\n', '', '256\n', '', '100000 100000\n', ''],
  Object.keys(spec.environment)
    .map((name) => `${name}=x\0`)
    .join(''),
].join('--- agentctl probe ---\n')

interface World {
  readonly proving: Proving
  readonly told: Proof[]
  readonly logged: { readonly [key: string]: unknown }[]
  readonly removed: string[]
  views: readonly ReplicaView[]
  said: string
  /** A verb has the lock. */
  busy: boolean
  change: (inspect: { [key: string]: unknown }) => void
  start: string
}

function world(): World {
  const { HostConfig, ...Config } = containerBody(spec) as { readonly [key: string]: unknown }
  const self: World = {
    proving: null as never,
    told: [],
    logged: [],
    removed: [],
    views: [],
    said: SAID,
    busy: false,
    change: () => undefined,
    start: 'first',
  }
  const runtime: ProvingOptions['runtime'] = {
    containers: async () => [],
    inspect: async () => {
      const inspect = structuredClone({
        Id: 'id',
        State: { Running: true, StartedAt: self.start },
        Config,
        HostConfig: HostConfig as { [key: string]: unknown },
        Mounts: spec.binds.map((it) => ({ Type: 'bind', Source: it.source, Destination: it.target, RW: !it.read_only })),
        NetworkSettings: { Networks: { 'p_agent-a': { IPAddress: spec.endpoints[0]?.address } } },
      })
      self.change(inspect)
      return inspect
    },
    image: async () => null,
    exec: async () => ({ exit_code: 0, stdout: Buffer.from(self.said), stderr: Buffer.alloc(0) }),
    join: async () => Buffer.alloc(0),
    remove: async (name) => void self.removed.push(name),
  }
  const proving = new Proving({
    runtime,
    project: 'p',
    record: async () => JSON.stringify(RECORD),
    control: { replicas: async () => self.views, prove: async (proofs) => void self.told.push(...proofs) },
    locked: async (act) => {
      if (self.busy) return false
      await act()
      return true
    },
    log: (line) => void self.logged.push(line),
    signal: AbortSignal.timeout(60_000),
    quiet_ms: 0,
  })
  return Object.assign(self, { proving })
}
const event = (action: EngineEvent['action']): EngineEvent => ({
  action,
  container: 'id',
  name: 'p-a-1',
  labels: { [LABEL.kind]: 'agent', [LABEL.agent]: 'a', [LABEL.replica]: '1' },
  exit_code: null,
  time_ms: 0,
})
const view = (extra: Partial<ReplicaView> = {}): ReplicaView => ({ agent: 'a', replica: 1, connected: true, tasks: 0, ...extra })
const PROOF: Proof = { agent: 'a', replica: 1, proved: true }

test('a replica that starts is proved once, and the gateway is told; again only when the gateway does not know it', async () => {
  const it = world()
  it.proving.event(event('start'))
  await it.proving.turn()
  expect(it.told).toEqual([PROOF])
  expect(it.logged).toMatchObject([{ event: 'posture proved', container: 'p-a-1' }])
  it.proving.event(event('update'))
  await it.proving.turn()
  expect(it.told).toEqual([PROOF])
  // Another gateway.
  it.views = [view({ unproved: true })]
  await it.proving.turn()
  expect(it.told).toEqual([PROOF, PROOF])
  // Another container under the name, of which no event told: what was proved was not it.
  it.start = 'another'
  it.said = 'nothing'
  await it.proving.turn()
  expect(it.told).toEqual([PROOF, PROOF])
})

test('a death takes the proof back; who was heard of without one is proved', async () => {
  const it = world()
  it.proving.event(event('start'))
  await it.proving.turn()
  it.proving.event(event('die'))
  expect(it.told.at(-1)).toEqual({ ...PROOF, proved: false })
  it.views = [view({ unproved: true })]
  it.start = 'second'
  await it.proving.turn()
  expect(it.told.at(-1)).toEqual(PROOF)
})

test('one that differs is quarantined, named and removed; while a verb has the lock it stays in quarantine', async () => {
  const it = world()
  it.change = (inspect) => void ((inspect['HostConfig'] as { [key: string]: unknown })['CapAdd'] = ['NET_ADMIN'])
  it.busy = true
  it.proving.event(event('start'))
  await it.proving.turn()
  const differences = ['capabilities: declared drop ALL; add none, is drop ALL; add NET_ADMIN']
  expect(it.told).toEqual([{ ...PROOF, proved: false }])
  expect(it.logged).toEqual([{ event: 'posture differs', code: 'AG3006', container: 'p-a-1', differences, action: 'quarantined' }])
  expect(it.removed).toEqual([])
  it.busy = false
  it.proving.event(event('update'))
  await expect.poll(async () => (await it.proving.turn(), it.removed), { timeout: 5_000 }).toEqual(['p-a-1'])
  expect(it.logged.at(-1)).toMatchObject({ action: 'recreate', differences })
  expect(it.told.every(({ proved }) => !proved)).toBe(true)
})

test('what the kernel says decides where the engine sees nothing', async () => {
  const it = world()
  it.said = SAID.replace('/ / ro -', '/ / rw -')
  it.proving.event(event('start'))
  await it.proving.turn()
  expect(it.removed).toEqual(['p-a-1'])
  expect(it.logged[0]).toMatchObject({ differences: ['read-only-root: declared / read-only, is / writable'] })
})

test('what cannot be read is not proved, told once, and tried again', async () => {
  const it = world()
  it.said = 'sh: not found'
  it.proving.event(event('start'))
  for (let turn = 0; turn < 3; turn++) await it.proving.turn()
  expect(it.told).toEqual([])
  expect(it.removed).toEqual([])
  expect(it.logged).toMatchObject([{ event: 'posture not proved', container: 'p-a-1' }])
  it.said = SAID
  await expect.poll(async () => (await it.proving.turn(), it.told), { timeout: 5_000 }).toEqual([PROOF])
})

test('one that a verb is about to replace, or that is down, is left alone', async () => {
  const it = world()
  it.change = (inspect) => void ((inspect['Config'] as { Labels: { [key: string]: string } }).Labels[LABEL.configHash] = 'older')
  it.proving.event(event('start'))
  await it.proving.turn()
  it.change = (inspect) => void (inspect['State'] = { Running: false })
  it.proving.event(event('start'))
  await it.proving.turn()
  expect([it.told, it.logged, it.removed]).toEqual([[], [], []])
})

test('a network that it joins is seen by the id of the container', async () => {
  const it = world()
  it.proving.event(event('start'))
  await it.proving.turn()
  it.change = (inspect) =>
    void ((inspect['NetworkSettings'] as { Networks: { [key: string]: unknown } }).Networks['bridge'] = { IPAddress: '172.17.0.2' })
  it.proving.network('another')
  await it.proving.turn()
  expect(it.removed).toEqual([])
  it.proving.network('id')
  await it.proving.turn()
  expect(it.removed).toEqual(['p-a-1'])
})
