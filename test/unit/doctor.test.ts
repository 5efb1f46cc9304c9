import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Check, diagnose } from '../../engine/doctor.ts'
import { type DoctorFacts, type EngineFacts, gatherFacts } from '../../engine/doctor-facts.ts'
import { AgentctlError } from '../../engine/errors.ts'

const GIB = 1_073_741_824
const engine: EngineFacts = {
  ok: true,
  info: {
    version: '24.0.7',
    api_version: '1.43',
    cgroup_version: 2,
    security_options: ['name=apparmor', 'name=seccomp,profile=default'],
    runtimes: ['runc'],
    rootless: false,
    endpoint: 'unix:///var/run/docker.sock',
    cpus: 4,
    memory: 8 * GIB,
    data_root: '/var/lib/docker',
    limits: { memory: true, cpus: true, pids: true },
  },
  images: { agent: true, engine: true, base: true },
}
const good: DoctorFacts = {
  engine,
  references: { agent: 'agentctl/agent:1.0.0', engine: 'agentctl/engine:1.0.0', base: 'debian:bookworm-slim' },
  sockets: [{ path: '/var/run/docker.sock', gid: 999, group: 'docker', writable: true }],
  user: { uid: 1000, name: 'ada' },
  free: { engine: 100 * GIB, folder: 100 * GIB },
  folder: '/home/ada/demo',
  debootstrap: null,
  node: 'v24.21.0',
  subnets: { range: undefined, taken: ['172.17.0.0/16', '192.168.1.0/24'] },
}
const none: DoctorFacts['engine'] = { ok: false, message: 'No container engine answers', hint: 'Start Docker.' }
const withInfo = (info: Partial<EngineFacts['info']>): DoctorFacts => ({
  ...good,
  engine: { ...engine, info: { ...engine.info, ...info } },
})
const withImages = (images: Partial<EngineFacts['images']>, rest: Partial<DoctorFacts> = {}): DoctorFacts => ({
  ...good,
  ...rest,
  engine: { ...engine, images: { ...engine.images, ...images } },
})
const find = (facts: DoctorFacts, id: string): Check => diagnose(facts).checks.find((check) => check.id === id) as Check

test('a good machine: every check is ok and asks for nothing', () => {
  const report = diagnose(good)
  expect(report.ok).toBe(true)
  expect(report.checks.map(({ id, status, fix }) => [id, status, fix])).toEqual(
    [
      'engine',
      'socket',
      'api',
      'cgroups',
      'limits',
      'seccomp',
      'disk',
      'image-agent',
      'image-engine',
      'base-image',
      'disk-project',
      'node',
      'subnets',
    ].map((id) => [id, 'ok', null]),
  )
})

test('whatever is found, every finding that is not ok says what to do, and the checks are the same ones', () => {
  const ids = diagnose(good).checks.map(({ id }) => id)
  const bad: readonly DoctorFacts[] = [
    { ...good, engine: none, sockets: [] },
    {
      ...good,
      engine: none,
      sockets: [{ path: '/var/run/docker.sock', gid: 5, group: null, writable: false }],
      free: { engine: null, folder: null },
      node: 'v20.1.0',
    },
    {
      ...withInfo({ api_version: '1.39', security_options: [], limits: { memory: false, cpus: false, pids: false } }),
      subnets: { range: 'x', taken: [] },
    },
    { ...withImages({ agent: false, engine: false, base: false }), free: { engine: 1, folder: 1 } },
  ]
  for (const facts of bad) {
    const { checks } = diagnose(facts)
    expect(checks.map(({ id }) => id)).toEqual(ids)
    for (const check of checks) {
      expect(check.expected && check.found).not.toBe('')
      if (check.status !== 'ok') expect(check.fix, check.id).toMatch(/\w{3}/)
    }
  }
})

test('without an engine that check fails with the remedy, and the others go on', () => {
  const report = diagnose({ ...good, engine: none, sockets: [] })
  expect(report.ok).toBe(false)
  expect(report.checks.filter(({ status }) => status === 'fail')).toEqual([
    { id: 'engine', status: 'fail', found: none.message, expected: 'a container engine that answers', fix: none.hint },
  ])
  expect(find({ ...good, engine: none }, 'seccomp')).toMatchObject({ status: 'warn', found: 'unknown: no engine answers' })
  expect(find({ ...good, engine: none }, 'node').status).toBe('ok')
})

test('a socket that this user may not open names the group and the command', () => {
  const sockets = [{ path: '/var/run/docker.sock', gid: 999, group: 'docker', writable: false }]
  expect(find({ ...good, engine: none, sockets }, 'socket')).toMatchObject({
    status: 'fail',
    found: '/var/run/docker.sock belongs to group docker; uid 1000 is not in it',
    fix: expect.stringContaining('sudo usermod -aG docker ada') as string,
  })
})

test.each([
  ['1.41', 'ok'],
  ['1.40', 'fail'],
  ['1.9', 'fail'],
  ['1.100', 'ok'],
  ['2.0', 'ok'],
])('API %s is %s', (api_version, status) => {
  expect(find(withInfo({ api_version }), 'api').status).toBe(status)
})

test.each([
  ['v22.18.0', 'ok'],
  ['v22.17.9', 'fail'],
  ['v24.0.0', 'ok'],
  ['v9.99.0', 'fail'],
])('Node %s is %s', (node, status) => {
  expect(find({ ...good, node }, 'node').status).toBe(status)
})

test('limits and seccomp: what the engine would ignore is named', () => {
  expect(find(withInfo({ limits: { memory: true, cpus: false, pids: false } }), 'limits')).toMatchObject({
    status: 'fail',
    found: 'cannot limit CPU, PIDs',
  })
  expect(find(withInfo({ limits: { memory: false, cpus: true, pids: true }, rootless: true }), 'limits').fix).toContain('Delegate=')
  expect(find(withInfo({ security_options: ['name=cgroupns'] }), 'seccomp')).toMatchObject({ status: 'fail', found: 'name=cgroupns' })
})

test('disk: little is a warning, too little a failure, elsewhere is not looked at', () => {
  const disk = (bytes: number | null): string => find({ ...good, free: { engine: bytes, folder: GIB } }, 'disk').status
  expect([disk(5 * GIB), disk(2 * GIB), disk(GIB / 2), disk(null)]).toEqual(['ok', 'warn', 'fail', 'ok'])
  expect(find({ ...good, free: { engine: GIB, folder: null } }, 'disk-project').status).toBe('warn')
})

test('images: missing ones are built; what they are built from is pulled, made, or not needed', () => {
  expect(find(withImages({ agent: false }), 'image-agent').status).toBe('warn')
  expect(diagnose(withImages({ agent: false, engine: false, base: false })).ok).toBe(true)
  expect(find(withImages({ agent: false, base: false }), 'base-image')).toMatchObject({
    status: 'warn',
    found: 'debian:bookworm-slim is not here: `up` will pull it',
  })
  expect(find(withImages({ agent: false, base: false }, { debootstrap: '/usr/sbin/debootstrap' }), 'base-image')).toMatchObject({
    status: 'ok',
    found: '/usr/sbin/debootstrap makes one',
  })
  expect(find(withImages({ base: false }), 'base-image').status).toBe('ok')
})

test('subnets: what the host routes is not free', () => {
  const subnets = (range: string | undefined, taken: readonly string[]): Check => find({ ...good, subnets: { range, taken } }, 'subnets')
  expect(subnets(undefined, ['10.0.0.0/8'])).toMatchObject({ status: 'fail', fix: expect.stringContaining('AGENTCTL_SUBNETS') as string })
  expect(subnets('10.9.0.0/22', ['10.9.0.0/24'])).toMatchObject({ status: 'warn', found: 'fewer than 32' })
  expect(subnets('nonsense', [])).toMatchObject({ status: 'fail', found: expect.stringContaining('nonsense') as string })
})

test('facts are gathered with no engine at all, from this machine', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'doctor-'))
  const socket = join(folder, 'engine.sock')
  const server = createServer().listen(socket)
  try {
    const facts = await gatherFacts({
      connect: () => Promise.reject(new AgentctlError('AG4001', 'No engine', { hint: 'Start one.' })),
      references: good.references,
      environment: { DOCKER_HOST: `unix://${socket}`, AGENTCTL_SUBNETS: '10.64.0.0/16' },
      folder,
    })
    expect(facts).toMatchObject({
      engine: { ok: false, message: 'No engine', hint: 'Start one.' },
      sockets: [{ path: socket, writable: true }],
      node: process.version,
      free: { engine: null },
    })
    expect(facts.free.folder).toBeGreaterThan(0)
    expect(facts.subnets.range).toBe('10.64.0.0/16')
    expect(diagnose(facts).checks.find(({ id }) => id === 'socket')).toMatchObject({
      status: 'warn',
      found: `${socket} can be opened, but nothing answers`,
    })
  } finally {
    server.close()
    await rm(folder, { recursive: true })
  }
})

test('a folder that is not there and an engine whose connect throws something odd are facts, not crashes', async () => {
  const facts = await gatherFacts({
    connect: () => Promise.reject(new TypeError('odd')),
    references: good.references,
    environment: { DOCKER_HOST: 'tcp://10.0.0.1:2375' },
    folder: '/nonexistent/x',
  })
  expect(facts).toMatchObject({ engine: { ok: false, message: 'odd' }, sockets: [], free: { folder: null } })
  expect(diagnose(facts).ok).toBe(false)
})
