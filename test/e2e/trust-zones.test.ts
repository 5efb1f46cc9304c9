/** From inside an agent: each claim of the hardening and of the network, tried. */
import { createServer } from 'node:http'
import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { replicaToken } from '../../engine/tokens.ts'
import { type Stack, stack } from '../support/stack.ts'

const FILE = `
agents:
  coder: { replicas: 2, mem_limit: 256m, cpus: 0.5, pids_limit: 64, uses: [store], secrets: [key] }
  other: {}
services:
  store: { image: "agentctl/agent:\${AGENT_VERSION}", entrypoint: ["node", "-e", "require('http').createServer((q,s)=>s.end('store')).listen(8000)"] }
  hidden: { image: "agentctl/agent:\${AGENT_VERSION}", entrypoint: ["node", "-e", "require('http').createServer((q,s)=>s.end('hidden')).listen(8000)"] }
secrets:
  key: { environment: CANARY }
`
const CANARY = `canary-${Math.random().toString(36).slice(2)}`
let s: Stack
let listener: ReturnType<typeof createServer>
let port: number

beforeAll(async () => {
  const { version } = (await import('../../package.json', { with: { type: 'json' } })).default
  s = await stack('t-zones', { 'agents.yaml': FILE }, { CANARY, AGENT_VERSION: version })
  listener = createServer((_request, response) => void response.end('host'))
  await new Promise<void>((resolve) => listener.listen(0, '0.0.0.0', resolve))
  port = (listener.address() as { port: number }).port
}, 300_000)
afterAll(async () => {
  listener?.close()
  await s?.[Symbol.asyncDispose]()
}, 120_000)

/** What a TCP connection to each gives: "open" or the error's code. One process: each would need a dozen of the agent's PIDs. */
const connects = async (from: string, targets: readonly (readonly [host: string, port: number])[]): Promise<readonly string[]> =>
  JSON.parse(
    await s.node(
      from,
      `const net=require('net');Promise.all(${JSON.stringify(targets)}.map(([host,port])=>new Promise(end=>{const c=net.connect({host,port});c.on('connect',()=>end('open'));c.on('error',e=>end(e.code));setTimeout(()=>end('ETIMEDOUT'),5000)}))).then(all=>{console.log(JSON.stringify(all));process.exit(0)})`,
    ),
  ) as string[]
const addressOf = async (container: string, network: string): Promise<string> =>
  (await s.runtime.containers(s.name)).find((it) => it.name === `${s.name}-${container}`)?.networks[`${s.name}_${network}`] ?? ''

test('runs as a user without any capability, cannot gain privileges, is filtered', async () => {
  const status = await s.exec('coder-1', ['cat', '/proc/self/status'])
  expect(status.text).toMatch(/^Uid:\t10001\t10001\t10001\t10001$/m)
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) expect(status.text).toMatch(new RegExp(`^${set}:\\t0{16}$`, 'm'))
  expect(status.text).toMatch(/^NoNewPrivs:\t1$/m)
  expect(status.text).toMatch(/^Seccomp:\t2$/m)
})

test('cannot write its root file system; /tmp and /workspace are sized', async () => {
  for (const path of ['/x', '/etc/x', '/usr/bin/x', '/opt/agentctl/x', '/run/secrets/x'])
    expect((await s.exec('coder-1', ['touch', path])).exit_code, path).not.toBe(0)
  const mounts = (await s.exec('coder-1', ['cat', '/proc/mounts'])).text
  expect(mounts).toMatch(/^\S+ \/tmp tmpfs rw,nosuid,nodev,noexec,.*size=32768k/m)
  expect(mounts).toMatch(/^\S+ \/workspace tmpfs rw,nosuid,nodev,.*size=131072k/m)
  expect(mounts).toMatch(/^\S+ \/ \S+ ro,/m)
  const filled = await s.exec('coder-1', [
    'sh',
    '-c',
    'head -c 300000000 /dev/zero >/workspace/big; wc -c </workspace/big; rm /workspace/big',
  ])
  expect(Number(filled.text)).toBeLessThanOrEqual(134_217_728)
  expect((await s.runtime.containers(s.name)).find((it) => it.name === `${s.name}-coder-1`)?.status).toBe('running')
})

test('has the memory, CPU and PID limits of the file', async () => {
  const read = async (...paths: string[]): Promise<string> =>
    (await s.exec('coder-1', ['sh', '-c', `cat ${paths.join(' ')} 2>/dev/null | head -1`])).text
  expect(await read('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')).toBe('268435456')
  expect(await read('/sys/fs/cgroup/pids.max', '/sys/fs/cgroup/pids/pids.max')).toBe('64')
  expect(await read('/sys/fs/cgroup/cpu.max', '/sys/fs/cgroup/cpu/cpu.cfs_quota_us')).toMatch(/^50000/)
  const bomb = await s.exec('coder-1', [
    'sh',
    '-c',
    'i=0; while [ $i -lt 200 ]; do sleep 1 & i=$((i+1)); done 2>&1 | grep -c -i "fork\\|resource" ; wait',
  ])
  expect(bomb.stdout.toString() + bomb.stderr.toString()).toMatch(/[1-9]|fork|Resource/)
})

test('reaches its gateway and the service that it uses', async () => {
  expect(
    await connects('coder-1', [
      ['gateway', 7070],
      ['store', 8000],
    ]),
  ).toEqual(['open', 'open'])
})

test('reaches no address of the host', async () => {
  const own = Object.values(networkInterfaces())
    .flat()
    .filter((it) => it?.family === 'IPv4')
    .map((it) => it?.address ?? '')
  const bridges = (await s.runtime.networks(s.name)).flatMap((network) => network.subnets).map((subnet) => subnet.replace(/0\/24$/, '1'))
  expect(own.length).toBeGreaterThan(0)
  const addresses = [...new Set([...own.filter((address) => address !== '127.0.0.1'), ...bridges])]
  const results = await connects(
    'coder-1',
    addresses.map((address) => [address, port]),
  )
  for (const [index, address] of addresses.entries()) expect(results[index], address).not.toBe('open')
  // The listener itself works: an open door would have been seen.
  expect(await fetch(`http://127.0.0.1:${port}`).then((response) => response.text())).toBe('host')
}, 120_000)

test('reaches neither another role, nor a service that it does not use, nor the trusted parts', async () => {
  const targets: readonly (readonly [string, string, number])[] = [
    ['other', await addressOf('other-1', 'agent-other'), 7070],
    ['gateway of the other role', (await addressOf('other-1', 'agent-other')).replace(/\.\d+$/, '.2'), 7070],
    ['hidden', await addressOf('hidden-1', 'default'), 8000],
    ['broker', await addressOf('agentctl-broker-1', 'control'), 6379],
    ['egress', await addressOf('agentctl-egress-1', 'control'), 4318],
    ['egress outside', await addressOf('agentctl-egress-1', 'outside'), 4318],
  ]
  for (const [name, address] of targets) expect(address, name).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
  const results = await connects(
    'coder-1',
    targets.map(([, address, to]) => [address, to]),
  )
  for (const [index, [name]] of targets.entries()) expect(results[index], name).not.toBe('open')
}, 120_000)

test('resolves no name but its doors: no query leaves', async () => {
  const lookup = async (name: string): Promise<string> =>
    await s.node(
      'coder-1',
      `require('dns').lookup(${JSON.stringify(name)},(e,a)=>{console.log(e?e.code:a);process.exit(0)});setTimeout(()=>{console.log('ETIMEOUT');process.exit(0)},8000)`,
    )
  expect(await lookup('gateway')).toMatch(/^10\./)
  expect(await lookup('example.com')).not.toMatch(/^\d/)
  expect(await lookup('broker')).not.toMatch(/^\d/)
}, 60_000)

test('holds one token, its own secret, and no password of the broker; secrets are in no inspect and no environment', async () => {
  expect((await s.exec('coder-1', ['ls', '/run/secrets'])).text.split('\n').sort()).toEqual(['agentctl-token', 'key'])
  expect((await s.exec('coder-1', ['cat', '/run/secrets/key'])).text).toBe(CANARY)
  expect((await s.exec('coder-1', ['stat', '-c', '%a %u', '/run/secrets/key'])).text).toBe('400 10001')
  expect((await s.exec('other-1', ['cat', '/run/secrets/key'])).exit_code).not.toBe(0)
  for (const container of await s.runtime.containers(s.name))
    expect(JSON.stringify(await s.runtime.inspect(container.name)), container.name).not.toContain(CANARY)
  expect((await s.exec('coder-1', ['env'])).text).not.toMatch(/canary|redis|password/i)
  expect((await s.exec('agentctl-broker-1', ['cat', '/proc/1/cmdline'])).text).not.toMatch(/requirepass/)
})

test('a forged token is refused, and so is a token for another project', async () => {
  const call = async (token: string): Promise<string> =>
    await s.node(
      'coder-1',
      `const q=require('http').request('http://gateway:7070/v1/lease',{method:'POST',headers:{authorization:'Bearer ${token}','content-type':'application/json'}},r=>{console.log(r.statusCode);process.exit(0)});q.end('{"want":0}')`,
    )
  const own = (await s.exec('coder-1', ['cat', '/run/secrets/agentctl-token'])).text
  expect(await call(own)).toBe('200')
  expect(await call(own.replace(/^coder/, 'other'))).toBe('401')
  expect(await call(replicaToken('guess', s.name, { agent: 'coder', replica: 1 }))).toBe('401')
})

test('the dangerous system calls fail', async () => {
  for (const command of ['unshare -U true', 'unshare -n true', 'mount -t tmpfs x /tmp', 'nsenter -t 1 -m true'])
    expect((await s.exec('coder-1', ['sh', '-c', command])).exit_code, command).not.toBe(0)
})
