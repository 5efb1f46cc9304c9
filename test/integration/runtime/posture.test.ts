/** What was declared, what the engine says and what the kernel says, on the real engine: equal, or the difference has a name. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { agentPosture } from '../../../engine/harden.ts'
import type { ContainerRuntime, ContainerSpec } from '../../../engine/ports.ts'
import { compare, renderDifference } from '../../../engine/posture/controls.ts'
import { compareProbe } from '../../../engine/posture/probe.ts'
import { effectiveOf, Images, probe } from '../../../engine/posture/prove.ts'
import { SECCOMP, STRICT_SECCOMP } from '../../../engine/seccomp.ts'
import { containerSpec } from '../../support/container-spec.ts'
import { cleanup, images, runtime, uniqueProject } from '../../support/docker.ts'

const docker = (...args: string[]): Promise<unknown> => promisify(execFile)('timeout', ['-k', '5', '60', 'docker', ...args])
const OWNER = { uid: 10_001, gid: 10_001 }
const signal = AbortSignal.timeout(600_000)
let engine: ContainerRuntime
let ours: { readonly agent: string; readonly engine: string }
let project = ''
let subnets = 0

beforeAll(async () => {
  engine = await runtime()
  ours = await images()
}, 600_000)
afterEach(() => cleanup(project))

async function made(changes: Partial<ContainerSpec> = {}): Promise<ContainerSpec> {
  project = uniqueProject('t-posture')
  const network = `${project}_agent-a`
  const subnet = `10.208.${subnets++ % 250}`
  await engine.createNetwork({ name: network, internal: true, subnet: `${subnet}.0/24`, labels: { 'agentctl.project': project } })
  const spec = containerSpec({
    project,
    image: ours.agent,
    environment: { A: '1' },
    endpoints: [{ network, address: `${subnet}.9` }],
    dns: ['127.0.0.1'],
    extra_hosts: { gateway: `${subnet}.2` },
    tmpfs: [
      { target: '/tmp', size: 1_048_576, exec: false, mode: 0o755, owner: OWNER },
      { target: '/workspace', size: 2_097_152, exec: true, mode: 0o755, owner: OWNER },
    ],
    ...agentPosture({}, { seccomp: SECCOMP, cpus: 2, profiles: {} }),
    ...changes,
  })
  await engine.createContainer(spec)
  await engine.start(spec.name)
  return spec
}
const told = async (spec: ContainerSpec): Promise<readonly string[]> => {
  const effective = await effectiveOf(engine, new Images(engine), spec.name, signal)
  return compare(spec, effective).map(renderDifference)
}
const probed = async (spec: ContainerSpec, from = ours): Promise<readonly string[]> =>
  compareProbe(spec, await probe(engine, spec, from, signal)).map(renderDifference)

test('what was asked for holds: nothing differs, for the engine and for the kernel, from inside and from beside', async () => {
  const spec = await made()
  expect(await told(spec)).toEqual([])
  expect(await probed(spec)).toEqual([])
  expect(await probed(spec, { ...ours, agent: 'another' })).toEqual([])
  const strict = { ...spec, seccomp: STRICT_SECCOMP }
  expect(await told(strict)).toEqual(['seccomp: declared ours, strict, is ours, default'])
}, 120_000)

test('a loosened one is as it was declared, and both say so', async () => {
  const spec = await made({ cap_add: ['NET_RAW'], read_only: false, no_new_privileges: false, init: false, seccomp: STRICT_SECCOMP })
  expect(await told(spec)).toEqual([])
  expect(await probed(spec)).toEqual([])
}, 120_000)

test('each control that is changed behind our back is named by its difference', async () => {
  const spec = await made()
  await docker('update', '--memory', '1g', '--memory-swap', '1g', '--cpus', '2', '--pids-limit', '9', spec.name)
  await docker('network', 'connect', 'bridge', spec.name)
  const differences = await told(spec)
  expect(differences).toEqual([
    'memory: declared 67108864, no swap, is 1073741824, no swap',
    'cpus: declared 1, is 2',
    'pids: declared 64, is 9',
    expect.stringMatching(/^networks: declared t-posture-\w+_agent-a 10\.208\.\d+\.9, is bridge, t-posture/),
  ])
  expect([...(await probed(spec))].sort()).toEqual([
    'cpus: declared 1, is 2',
    'memory: declared 67108864, is 1073741824',
    'networks: declared 1 interfaces, is 2 interfaces',
    expect.stringMatching(/^networks: declared no other route, is a default route to [\d.]+ by eth1$/),
    expect.stringMatching(/^networks: declared no other route, is a route to [\d.]+ by eth1$/),
    'pids: declared 64, is 9',
  ])
}, 120_000)

test('made again with more: capabilities, a writable root, a mount, the privileges of the host', async () => {
  const spec = await made()
  const remake = async (changes: Partial<ContainerSpec>): Promise<void> => {
    await engine.remove(spec.name)
    await engine.createContainer({ ...spec, ...changes })
    await engine.start(spec.name)
  }
  await remake({ cap_add: ['NET_ADMIN', 'SYS_PTRACE'], environment: { A: '2', LD_PRELOAD: '/tmp/x' }, user: '10001:0' })
  expect(await told(spec)).toEqual([
    'user: declared 10001:10001, is 10001:0',
    'capabilities: declared drop ALL; add none, is drop ALL; add NET_ADMIN, SYS_PTRACE',
    'environment: declared A, is A (another value), LD_PRELOAD (not declared)',
  ])
  expect(await probed(spec)).toEqual([
    'user: declared 10001 10001 10001 10001, is 0 0 0 0',
    'capabilities: declared none, is NET_ADMIN, SYS_PTRACE',
  ])
  await remake({
    read_only: false,
    no_new_privileges: false,
    seccomp: null,
    binds: [{ source: '/usr/share', target: '/host', read_only: false }],
    tmpfs: spec.tmpfs.map((it) => ({ ...it, exec: true, size: 4_194_304 })),
    masked_paths: ['/proc/kcore'],
  })
  expect((await told(spec)).map((it) => it.slice(0, it.indexOf(':')))).toEqual([
    'no-new-privileges',
    'seccomp',
    'read-only-root',
    'masked-paths',
    'mounts',
    'tmpfs',
  ])
  expect(await probed(spec)).toEqual([
    'no-new-privileges: declared 1, is 0',
    'read-only-root: declared / read-only, is / writable',
    'tmpfs: declared /tmp tmpfs 1024k noexec nosuid nodev, is /tmp tmpfs 4096k nosuid nodev',
    'tmpfs: declared /workspace tmpfs 2048k nosuid nodev, is /workspace tmpfs 4096k nosuid nodev',
    'mounts: declared /host not mounted, is /host mounted',
  ])
}, 180_000)

test('no process of the agent can look into the reader, nor change what it says', async () => {
  const spec = await made()
  // It reads a pipe that never ends, so that there is time to look at it.
  const script = `mkfifo /tmp/p; /opt/agentctl/probe /tmp/p & sleep 0.3
    cat /proc/$!/environ >/dev/null 2>&1 && echo readable; ls -l /proc/$!/exe >/dev/null 2>&1 && echo linked; (echo x >/proc/$!/mem) 2>/dev/null && echo writable
    cat /opt/agentctl/probe >/dev/null 2>&1 && echo copied; echo done`
  expect((await engine.exec(spec.name, ['sh', '-c', script], { timeout_ms: 20_000 })).stdout.toString()).toBe('done\n')
}, 120_000)

test('what a proof costs', async () => {
  const spec = await made()
  const times: { readonly [what: string]: number[] } = { inspect: [], inside: [], beside: [] }
  for (let round = 0; round < 7; round++) {
    for (const [what, act] of [
      ['inspect', () => told(spec)],
      ['inside', () => probed(spec)],
      ['beside', () => probed(spec, { ...ours, agent: 'another' })],
    ] as const) {
      const begin = performance.now()
      await act()
      times[what]?.push(performance.now() - begin)
    }
  }
  const median = (all: readonly number[] = []): number => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? 0
  console.log(
    `proof of one replica, medians of 7: inspect ${median(times['inspect']).toFixed(0)} ms, probe by exec ${median(times['inside']).toFixed(0)} ms, probe by a container beside ${median(times['beside']).toFixed(0)} ms`,
  )
}, 120_000)
