import { expect, test } from 'vitest'
import type { ContainerSpec } from '../../../../../engine/ports.ts'
import { containerBody, networkBody, seriousWarnings, volumeBody } from '../../../../../engine/runtimes/docker/create-body.ts'
import { splitReference } from '../../../../../engine/runtimes/docker/images.ts'
import { exitCodeOf, healthOf, observedContainer } from '../../../../../engine/runtimes/docker/observed.ts'
import { toAgentctlError } from '../../../../../engine/runtimes/docker/failure.ts'
import { containerSpec } from '../../../../support/container-spec.ts'

test("an internal network takes the host's address away, by the means of the engine's age", () => {
  const spec = { name: 'p_n', internal: true, subnet: '10.192.0.0/24', labels: {} }
  expect(networkBody(spec, { hasIsolatedGateway: false })['Options']).toEqual({ 'com.docker.network.bridge.inhibit_ipv4': 'true' })
  expect(networkBody(spec, { hasIsolatedGateway: true })['Options']).toEqual({ 'com.docker.network.bridge.gateway_mode_ipv4': 'isolated' })
  expect(networkBody({ ...spec, internal: false }, { hasIsolatedGateway: true })).toMatchObject({
    Internal: false,
    Options: {},
    EnableIPv6: false,
  })
})

test('a tmpfs volume is sized and runs nothing', () => {
  expect(volumeBody({ name: 'v', labels: {}, tmpfs: 1024 })['DriverOpts']).toEqual({
    type: 'tmpfs',
    device: 'tmpfs',
    o: 'size=1024,mode=0755,noexec,nosuid,nodev',
  })
})

test('the first endpoint is made with the container, with its address', () => {
  const body = containerBody(
    containerSpec({
      endpoints: [
        { network: 'p_a', address: '10.192.0.9' },
        { network: 'p_b', address: null },
      ],
    }),
  )
  expect(body).toMatchObject({
    HostConfig: { NetworkMode: 'p_a' },
    NetworkingConfig: { EndpointsConfig: { p_a: { IPAMConfig: { IPv4Address: '10.192.0.9' } } } },
  })
})

test('no endpoint is network none', () => {
  const body = containerBody(containerSpec({ endpoints: [] }))
  expect(body).toMatchObject({ HostConfig: { NetworkMode: 'none' } })
  expect(body).not.toHaveProperty('NetworkingConfig')
})

test("nothing is left to the engine's defaults that would loosen it", () => {
  expect(
    containerBody(containerSpec({ mem_limit: 1_000_000, cpus: 0.25, pids_limit: 9, seccomp: '{"defaultAction":"SCMP_ACT_ERRNO"}' })),
  ).toMatchObject({
    HostConfig: {
      Privileged: false,
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      CapAdd: [],
      SecurityOpt: ['no-new-privileges=true', 'seccomp={"defaultAction":"SCMP_ACT_ERRNO"}'],
      Memory: 1_000_000,
      MemorySwap: 1_000_000,
      NanoCpus: 250_000_000,
      PidsLimit: 9,
      CgroupnsMode: 'private',
      IpcMode: 'private',
    },
  })
})

test('a warning about a limit is serious; one about swap is not, since it says that the memory limit holds', () => {
  const swap = 'Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.'
  const memory = 'Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.'
  expect(seriousWarnings([swap, memory])).toEqual([memory])
})

test.each([
  ['Up 3 minutes (healthy)', 'healthy', null],
  ['Up 2 seconds (health: starting)', 'starting', null],
  ['Up 1 hour (unhealthy)', 'unhealthy', null],
  ['Up 2 seconds', null, null],
  ['Exited (137) 3 minutes ago', null, 137],
  ['Restarting (1) 2 seconds ago', null, 1],
])('%s', (status, health, code) => {
  expect([healthOf(status), exitCodeOf(status)]).toEqual([health, code])
})

test("a linked name is not the container's name", () => {
  expect(observedContainer({ Names: ['/other/alias', '/p-a-1'], State: 'running' }).name).toBe('p-a-1')
})

test.each([
  ['debian', ['debian', 'latest']],
  ['agentctl/agent:abc', ['agentctl/agent', 'abc']],
  ['registry.example:5000/x', ['registry.example:5000/x', 'latest']],
  ['x@sha256:00', ['x@sha256:00', null]],
])('reference %s', (reference, expected) => {
  expect(splitReference(reference)).toEqual(expected)
})

const answer = (statusCode: number, message: string): Error =>
  Object.assign(new Error(`(HTTP code ${statusCode}) x - ${message} `), { statusCode, json: { message } })
test.each([
  [answer(404, 'No such image: x:latest'), 'AG4003'],
  [answer(500, 'driver failed programming external connectivity: Bind for 127.0.0.1:80 failed: port is already allocated'), 'AG4004'],
  [answer(404, 'No such container: x'), 'AG4012'],
  [answer(409, 'Conflict. The container name "/x" is already in use by container "y".'), 'AG4014'],
  [answer(500, 'out of memory'), 'AG4005'],
  [Object.assign(new Error('connect EACCES'), { code: 'EACCES' }), 'AG4002'],
  [Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }), 'AG4001'],
])('%s is %s', (error, code) => {
  expect(toAgentctlError(error, 'start it', 'unix:///x').code).toBe(code)
})

test('a folder of the secrets volume is bound as the engine insists', () => {
  const bind = (source: string): object => ({ source, target: '/x', read_only: true })
  const binds = [bind('/data'), bind('/var/lib/docker/volumes/p_agentctl-secrets/_data/p-a-1')] as ContainerSpec['binds']
  expect(containerBody(containerSpec({ binds }))).toMatchObject({
    HostConfig: { Mounts: [{ BindOptions: { Propagation: 'rprivate' } }, { BindOptions: { Propagation: 'rslave' } }] },
  })
})
