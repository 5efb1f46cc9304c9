/** A replica gets work when it was proved to be as it was declared; what is changed behind our back is named, and made anew. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { desired } from '../../engine/desired.ts'
import { readRecord } from '../../engine/lock.ts'
import { fields } from '../../engine/fields.ts'
import type { ContainerSpec } from '../../engine/ports.ts'
import { SECCOMP } from '../../engine/seccomp.ts'
import { eventually } from '../support/docker.ts'
import type { AuditReport } from '../../engine/posture/audit.ts'
import { type Stack, stack } from '../support/stack.ts'
import { agentctl } from './cli-process.ts'

/** `other` has a reference of its own, so to us its image is the user's: it is probed from beside. */
const FILE = `
agents:
  coder: { mem_limit: 128m }
  loose: { mem_limit: 128m, pids_limit: 300, cap_add: [NET_RAW], security_opt: ["seccomp=strict"], read_only: false }
  other: { image: "agentctl/agent:\${AGENT_VERSION}", handler: exec, mem_limit: 128m }
`
/** "on engine events (within 5 s)". */
const WITHIN_MS = 5_000
const run = promisify(execFile)
const docker = async (...args: string[]): Promise<string> => (await run('timeout', ['-k', '5', '60', 'docker', ...args])).stdout.trim()
let s: Stack
let version = ''

beforeAll(async () => {
  ;({ version } = (await import('../../package.json', { with: { type: 'json' } })).default)
  s = await stack('t-proof', { 'agents.yaml': FILE }, { AGENT_VERSION: version })
}, 300_000)
afterAll(async () => await s?.[Symbol.asyncDispose](), 120_000)

interface Line {
  readonly at: string
  readonly event?: string
  readonly container?: string
  readonly differences?: readonly string[]
  readonly action?: string
  readonly probe_ms?: number
}
const lines = async (): Promise<readonly Line[]> =>
  (await docker('logs', `${s.name}-agentctl-controller-1`))
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line)
const inspect = async (name: string): Promise<{ readonly id: string; readonly pid: number; readonly running: boolean }> => {
  const all = fields(await s.runtime.inspect(name))
  const state = fields(all['State'])
  return { id: String(all['Id']), pid: Number(state['Pid']), running: state['Running'] === true }
}
const works = async (agent: string): Promise<void> => {
  const run = await s.submit({ agent, type: 'task', tasks: [{ command: 'id -u' }] })
  expect((await s.ended(run, 30_000)).status).toBe('completed')
}
const specOf = async (name: string): Promise<ContainerSpec> => {
  const record = await readRecord(s.runtime, s.name, s.ctx.signal)
  if (record === null) throw new Error('no record')
  const found = desired(record, SECCOMP).containers.find((it) => it.spec.name === name)
  if (found === undefined) throw new Error(`nothing is to be called ${name}`)
  return found.spec
}

/** Waits until it is named and there is another container in its place; gives the differences and how long it took to name them. */
async function madeAnew(name: string, from: number): Promise<readonly string[]> {
  const since = new Date(from).toISOString()
  const told = await eventually(
    async () => (await lines()).find((it) => it.at >= since && it.container === name && it.action === 'quarantined'),
    15_000,
    `${name} is named`,
  )
  expect(Date.parse(told.at) - from).toBeLessThan(WITHIN_MS)
  await eventually(
    async () => (await lines()).some((it) => it.at > told.at && it.container === name && it.event === 'posture proved'),
    30_000,
    `${name} is proved again`,
  )
  return told.differences ?? []
}

test('replicas are proved before they work, whoever made their image', async () => {
  await Promise.all([works('coder'), works('other'), works('loose')])
  const proved = (await lines()).filter((it) => it.event === 'posture proved')
  expect(proved.map((it) => it.container ?? '').sort()).toEqual([`${s.name}-coder-1`, `${s.name}-loose-1`, `${s.name}-other-1`])
  expect((await lines()).filter((it) => it.event?.startsWith('posture ') && it.event !== 'posture proved')).toEqual([])
  for (const { container, probe_ms } of proved) console.log(`proof of ${container}: probe ${probe_ms} ms`)
  expect((await s.control.replicas()).every((it) => it.connected && it.unproved === undefined)).toBe(true)
}, 60_000)

test.each(['coder', 'other'])(
  '%s, made again with a capability: quarantined, named, and made as it was declared',
  async (agent) => {
    const name = `${s.name}-${agent}-1`
    const spec = await specOf(name)
    const { id } = await inspect(name)
    // The controller wants to make its own; whoever is first has the name.
    const forged = await eventually(
      async () => {
        await s.runtime.remove(name)
        return await s.runtime.createContainer({ ...spec, cap_add: ['NET_ADMIN'] }).catch(() => null)
      },
      20_000,
      'the forged container is made first',
    )
    const from = Date.now()
    await s.runtime.start(name).catch(() => undefined)
    expect(await madeAnew(name, from)).toEqual(['capabilities: declared drop ALL; add none, is drop ALL; add NET_ADMIN'])
    expect([id, forged]).not.toContain((await inspect(name)).id)
    await works(agent)
  },
  90_000,
)

test('another network, another limit: named within five seconds', async () => {
  const name = `${s.name}-coder-1`
  let from = Date.now()
  await docker('network', 'connect', 'bridge', name)
  expect(await madeAnew(name, from)).toEqual([expect.stringMatching(/^networks: declared .*_agent-coder 10\.[\d.]+, is bridge, /)])
  from = Date.now()
  await docker('update', '--pids-limit', '4000', name)
  expect(await madeAnew(name, from)).toEqual(['pids: declared 256, is 4000'])
  await works('coder')
}, 120_000)

test('a file system that was mounted anew in its namespace: the engine knows nothing of it, the kernel does', async () => {
  const name = `${s.name}-coder-1`
  const { pid } = await inspect(name)
  await run('nsenter', ['-t', String(pid), '-m', 'mount', '-o', 'remount,rw', '/'])
  const from = Date.now()
  // Any event makes it be looked at; without one it is a minute.
  await docker('update', '--pids-limit', '256', name)
  expect(await madeAnew(name, from)).toEqual(['read-only-root: declared / read-only, is / writable'])
  await works('coder')
}, 90_000)

test('plan and audit show what the file loosens; the audit finds what is not as declared, also in a part of ours, and exits with 1', async () => {
  const options = { cwd: s.folder, environment: { AGENT_VERSION: version } }
  const plan = await agentctl(['-p', s.name, 'plan'], options)
  expect(plan.stdout).toBe(`No changes.
Loosened by the file:
  agent loose  cap_add: NET_RAW  (with NET_RAW it can take the addresses of others on its networks)
  agent loose  read_only: false  (it can write its root file system, without a limit of size)
  agent loose  pids_limit: 300  (more processes than the default of 256)
`)
  expect((await agentctl(['-p', s.name, 'plan', '--format', 'json'], options)).json().loosenings).toHaveLength(3)
  const clean = await agentctl(['-p', s.name, 'audit', '--format', 'json'])
  expect(clean.code, clean.stdout).toBe(0)
  const report = clean.json() as AuditReport
  expect(report).toMatchObject({ project: s.name, ok: true, findings: [] })
  expect(report.containers.map((it) => `${it.kind} ${it.probe}`)).toEqual([
    ...['agent ok', 'agent ok', 'agent ok'],
    ...['secrets null', 'broker null', 'gateway null', 'egress null', 'controller null'],
  ])
  const egress = `${s.name}-agentctl-egress-1`
  await docker('network', 'connect', 'bridge', egress)
  const found = await agentctl(['-p', s.name, 'audit', 'agentctl-egress'])
  expect(found.code).toBe(1)
  expect(found.stdout).toMatch(/✘ {2}high {6}t-proof-\w+-agentctl-egress-1 {2}networks {2}5\.10 5\.30 .* bridge, .* the engine/)
  await docker('network', 'disconnect', 'bridge', egress)
  expect((await agentctl(['-p', s.name, 'audit', 'nobody'])).code).toBe(2)
}, 120_000)
