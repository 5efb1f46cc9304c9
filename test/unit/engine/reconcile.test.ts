import { expect, test } from 'vitest'
import type { Desired } from '../../../engine/desired.ts'
import type { Observed } from '../../../engine/observe.ts'
import { renderPlan } from '../../../engine/plan-text.ts'
import { reconcile, type ReconcileOptions } from '../../../engine/reconcile.ts'
import { tearDown } from '../../../engine/tear-down.ts'
import { agent, nothing, project, relabel, running, service, want } from '../../support/project.ts'

const text = (desired: Desired, observed: Observed, options: Partial<ReconcileOptions> = {}): string =>
  renderPlan(reconcile(desired, observed, { writeRecord: null, ...options }))
/** Only the lines about these targets; the rest of a first `up` is shown whole in one test. */
const about = (plan: string, pattern: RegExp): string =>
  plan
    .split('\n')
    .filter((line) => pattern.test(line))
    .map((line) => line.replace(/\[[\d, ]+\] -> /, '').replace(/#\d+ /, ''))
    .join('\n')

test('the first up makes networks, volumes, the holder, the record and secrets before anything that needs them', () => {
  const plan = text(want(project({ agents: [agent('coder', { replicas: 2 })], volumes: ['data'] })), nothing, {
    writeRecord: { revision: 1, cause: 'does not exist' },
  })
  expect(plan).toMatchInlineSnapshot(`
    "#1 create-network network:p_control (10.192.0.0/24 internal): does not exist
    #2 create-network network:p_outside (10.192.1.0/24): does not exist
    #3 create-network network:p_agent-coder (10.192.2.0/24 internal): does not exist
    #4 create-volume volume:p_agentctl-state: does not exist
    #5 create-volume volume:p_agentctl-secrets: does not exist
    #6 create-volume volume:p_agentctl-broker: does not exist
    #7 create-volume volume:p_data: does not exist
    [4, 5] -> #8 create-container container:p-agentctl-secrets-1 (engine:1): does not exist
    [8] -> #9 start-container container:p-agentctl-secrets-1: does not exist
    [9] -> #10 write-record record:p (revision 1): does not exist
    [9] -> #11 write-secrets volume:p_agentctl-secrets (for p-agentctl-broker-1, p-agentctl-gateway-1, p-coder-1, p-coder-2): files of the containers that start
    [1, 6, 9, 10, 11] -> #12 create-container container:p-agentctl-broker-1 (engine:1): does not exist
    [12] -> #13 own-volume volume:p_agentctl-broker (to 10002:10002): belongs to uid 10002
    [12, 13] -> #14 start-container container:p-agentctl-broker-1: does not exist
    [9] -> #15 make-folder volume:p_agentctl-state (gateway of 10002:10002): the gateway's folder
    [1, 4, 9, 10, 11, 15] -> #16 create-container container:p-agentctl-gateway-1 (engine:1): does not exist
    [3, 16] -> #17 connect-network container:p-agentctl-gateway-1 (p_agent-coder 10.192.2.2): joins p_agent-coder
    [16, 17] -> #18 start-container container:p-agentctl-gateway-1: does not exist
    [1, 4, 9, 10] -> #19 create-container container:p-agentctl-egress-1 (engine:1): does not exist
    [2, 19] -> #20 connect-network container:p-agentctl-egress-1 (p_outside): joins p_outside
    [19, 20] -> #21 start-container container:p-agentctl-egress-1: does not exist
    [4, 5, 9, 10] -> #22 create-container container:p-agentctl-controller-1 (engine:1): does not exist
    [22] -> #23 start-container container:p-agentctl-controller-1: does not exist
    [14] -> #24 wait container:p-agentctl-broker-1 (healthy within 60s): until healthy
    [18] -> #25 wait container:p-agentctl-gateway-1 (healthy within 60s): until healthy
    [21] -> #26 wait container:p-agentctl-egress-1 (healthy within 60s): until healthy
    [23] -> #27 wait container:p-agentctl-controller-1 (healthy within 60s): until healthy
    [3, 9, 10, 11] -> #28 create-container container:p-coder-1 (agent:1): does not exist
    [28] -> #29 start-container container:p-coder-1: does not exist
    [3, 9, 10, 11] -> #30 create-container container:p-coder-2 (agent:1): does not exist
    [30] -> #31 start-container container:p-coder-2: does not exist
    [25, 29] -> #32 wait container:p-coder-1 (ready within 30s): until ready
    [25, 31] -> #33 wait container:p-coder-2 (ready within 30s): until ready"
  `)
})

test('up twice changes nothing', () => {
  const all = want(project({ agents: [agent('a', { replicas: 3, uses: ['db'] })], services: [service('db')] }))
  expect(text(all, running(all))).toBe('No changes.')
})

test('a changed agent recreates only that agent', () => {
  const all = want(project({ agents: [agent('a'), agent('b')] }))
  expect(about(text(all, running(all, { 'p-a-1': relabel(all, 'p-a-1', 'old') })), /container/)).toMatchInlineSnapshot(`
    "write-secrets volume:p_agentctl-secrets (for p-a-1): files of the containers that start
    stop-container container:p-a-1: configuration changed
    remove-container container:p-a-1: configuration changed
    create-container container:p-a-1 (agent:1): configuration changed
    start-container container:p-a-1: configuration changed
    wait container:p-a-1 (ready within 30s): until ready"
  `)
})

test('scale down stops the highest numbers first and removes nothing else', () => {
  const before = want(project({ agents: [agent('a', { replicas: 3 })] }))
  const after = want(project({ agents: [agent('a', { replicas: 1 })] }))
  expect(text(after, running(before))).toMatchInlineSnapshot(`
    "#1 stop-container container:p-a-3: scaled down to 1
    [1] -> #2 remove-container container:p-a-3: scaled down to 1
    #3 stop-container container:p-a-2: scaled down to 1
    [3] -> #4 remove-container container:p-a-2: scaled down to 1"
  `)
})

test('scale up adds the missing numbers', () => {
  const before = want(project({ agents: [agent('a')] }))
  const after = want(project({ agents: [agent('a')] }), { scale: { a: 3 } })
  expect(about(text(after, running(before)), /create-container/)).toMatchInlineSnapshot(`
    "create-container container:p-a-2 (agent:1): does not exist
    create-container container:p-a-3 (agent:1): does not exist"
  `)
})

test('a role that leaves the file goes with its network, which the gateway leaves first', () => {
  const before = want(project({ agents: [agent('a'), agent('b')] }))
  const after = want(project({ agents: [agent('a')] }), {
    subnets: Object.fromEntries(before.networks.map((network) => [network.name.slice(2), network.subnet])),
  })
  expect(text(after, running(before))).toMatchInlineSnapshot(`
    "#1 stop-container container:p-b-1: is no longer in the file
    [1] -> #2 remove-container container:p-b-1: is no longer in the file
    #3 disconnect-network container:p-agentctl-gateway-1 (p_agent-b): leaves p_agent-b
    [2, 3] -> #4 remove-network network:p_agent-b: is no longer needed"
  `)
})

test('a new role joins the running gateway without recreating it', () => {
  const before = want(project({ agents: [agent('b')] }))
  const after = want(project({ agents: [agent('a'), agent('b')] }), {
    subnets: {
      ...Object.fromEntries(before.networks.map((network) => [network.name.slice(2), network.subnet])),
      'agent-a': '10.200.0.0/24',
    },
  })
  expect(about(text(after, running(before)), /gateway/)).toMatchInlineSnapshot(
    `"connect-network container:p-agentctl-gateway-1 (p_agent-a 10.200.0.2): joins p_agent-a"`,
  )
})

test('who depends on a healthy service starts after it is healthy', () => {
  const all = want(
    project({
      agents: [agent('a', { depends_on: { db: { condition: 'service_healthy' } } })],
      services: [service('db', { healthcheck: { test: ['CMD', 'true'] } })],
    }),
  )
  const plan = reconcile(all, running(all, { 'p-a-1': null, 'p-db-1': null }), { writeRecord: null })
  const step = (op: string, target: string) => plan.steps.find((it) => it.operation.op === op && it.target === target)
  expect(step('start-container', 'container:p-a-1')?.needs).toContain(step('wait', 'container:p-db-1')?.id)
  expect(step('wait', 'container:p-db-1')?.needs).toContain(step('start-container', 'container:p-db-1')?.id)
})

test.each([
  ['exited', { status: 'exited', exit_code: 137 }, 'start-container container:p-a-1: exited (137)'],
  ['half made', { status: 'created' }, 'start-container container:p-a-1: was created but never started'],
  ['cut off', { networks: {} }, 'create-container container:p-a-1 (agent:1): is not on its network'],
] as const)('a replica that is %s comes back, with the cause', (_name, change, line) => {
  const all = want(project({ agents: [agent('a')] }))
  expect(about(text(all, running(all, { 'p-a-1': change })), /start-container|create-container/)).toContain(line)
})

test('a container that an interrupted up left half made gets its volume before it starts; a volume in use stays as it is', () => {
  const all = want(project({ agents: [agent('a')] }))
  const plan = reconcile(all, running(all, { 'p-agentctl-broker-1': { status: 'created' } }), { writeRecord: null })
  const own = plan.steps.find(({ operation }) => operation.op === 'own-volume')
  const start = plan.steps.find(({ operation }) => operation.op === 'start-container')
  expect([own?.target, start?.target]).toEqual(['volume:p_agentctl-broker', 'container:p-agentctl-broker-1'])
  expect(start?.needs).toContain(own?.id)
  expect(text(all, running(all, { 'p-agentctl-broker-1': { status: 'exited', exit_code: 1 } }))).not.toContain('own-volume')
})

test('a service that ended well is not started again by the controller; one that failed is', () => {
  const all = want(project({ agents: [agent('a')], services: [service('db')] }))
  const ended = (exit_code: number): Observed => running(all, { 'p-db-1': { status: 'exited', exit_code } })
  expect(text(all, ended(0), { heal: true })).toBe('No changes.')
  expect(about(text(all, ended(1), { heal: true }), /start-container/)).toBe('start-container container:p-db-1: exited (1)')
  expect(about(text(all, ended(0)), /start-container/)).toBe('start-container container:p-db-1: exited (0)')
})

test('only the controller restarts what is unhealthy', () => {
  const all = want(project({ agents: [agent('a')] }))
  const sick = running(all, { 'p-a-1': { health: 'unhealthy' } })
  expect(text(all, sick)).toBe('No changes.')
  expect(about(text(all, sick, { heal: true }), /container:p-a-1/)).toMatchInlineSnapshot(`
    "stop-container container:p-a-1: is unhealthy
    start-container container:p-a-1: is unhealthy
    wait container:p-a-1 (ready within 30s): until ready"
  `)
})

test('what was stopped on purpose stays stopped', () => {
  const all = want(project({ agents: [agent('a')] }), { stopped: ['p-a-1'] })
  expect(text(all, running(all, { 'p-a-1': { status: 'exited', exit_code: 143 } }), { heal: true })).toBe('No changes.')
})

test('a one-shot service that ended well is not run again', () => {
  const all = want(
    project({
      agents: [agent('a', { depends_on: { seed: { condition: 'service_completed_successfully' } } })],
      services: [service('seed')],
    }),
  )
  expect(text(all, running(all, { 'p-seed-1': { status: 'exited', exit_code: 0 } }))).toBe('No changes.')
})

test('down removes the controller first and the holder of the lock last; volumes only when asked', () => {
  const all = want(project({ agents: [agent('a')], volumes: ['data'] }))
  expect(renderPlan(tearDown('p', running(all), { volumes: false }))).toMatchInlineSnapshot(`
    "#1 stop-container container:p-agentctl-controller-1: project is taken down
    [1] -> #2 remove-container container:p-agentctl-controller-1: project is taken down
    [2] -> #3 stop-container container:p-a-1: project is taken down
    [3] -> #4 remove-container container:p-a-1: project is taken down
    [2, 4] -> #5 stop-container container:p-agentctl-gateway-1: project is taken down
    [5] -> #6 remove-container container:p-agentctl-gateway-1: project is taken down
    [2, 4] -> #7 stop-container container:p-agentctl-egress-1: project is taken down
    [7] -> #8 remove-container container:p-agentctl-egress-1: project is taken down
    [2, 4] -> #9 stop-container container:p-agentctl-broker-1: project is taken down
    [9] -> #10 remove-container container:p-agentctl-broker-1: project is taken down
    [2, 4, 6, 8, 10] -> #11 stop-container container:p-agentctl-secrets-1: project is taken down
    [11] -> #12 remove-container container:p-agentctl-secrets-1: project is taken down
    [4, 6] -> #13 remove-network network:p_agent-a: project is taken down
    [6, 8, 10] -> #14 remove-network network:p_control: project is taken down
    [8] -> #15 remove-network network:p_outside: project is taken down
    [2, 4, 6, 8, 10, 12] -> #16 remove-volume volume:p_agentctl-secrets: secrets do not outlive the project"
  `)
  expect(about(renderPlan(tearDown('p', running(all), { volumes: true })), /remove-volume/)).toMatchInlineSnapshot(`
    "remove-volume volume:p_agentctl-broker: volumes were asked for
    remove-volume volume:p_agentctl-secrets: secrets do not outlive the project
    remove-volume volume:p_agentctl-state: volumes were asked for
    remove-volume volume:p_data: volumes were asked for"
  `)
})

test('changed secrets are exchanged under running containers, one step per cause; what is mounted as a file makes its container anew', () => {
  const of = project({
    agents: [agent('a', { replicas: 2 }), agent('b')],
    services: [service('s', { secrets: [{ source: 'k', target: '/etc/k' }] })],
  })
  const all = want(of)
  const because = 'secret k changed; nothing is restarted'
  const plan = text(all, running(all), {
    changedSecrets: { 'p-a-1': because, 'p-a-2': because, 'p-b-1': 'secret x changed; nothing is restarted' },
    recreate: { 'p-s-1': 'secret k changed, and a file outside /run/secrets cannot be exchanged' },
  })
  expect(plan).toMatchInlineSnapshot(`
    "#1 write-secrets volume:p_agentctl-secrets (for p-s-1): the file's secrets for the containers that start
    #2 write-secrets volume:p_agentctl-secrets (for p-a-1, p-a-2): secret k changed; nothing is restarted
    #3 write-secrets volume:p_agentctl-secrets (for p-b-1): secret x changed; nothing is restarted
    #4 stop-container container:p-s-1: secret k changed, and a file outside /run/secrets cannot be exchanged
    [4] -> #5 remove-container container:p-s-1: secret k changed, and a file outside /run/secrets cannot be exchanged
    [1, 5] -> #6 create-container container:p-s-1 (img): secret k changed, and a file outside /run/secrets cannot be exchanged
    [6] -> #7 start-container container:p-s-1: secret k changed, and a file outside /run/secrets cannot be exchanged
    [7] -> #8 wait container:p-s-1 (running within 300s): until running"
  `)
})

test('values that changed are kept for who starts later, also when no container has them now; whoever is written takes them along', () => {
  const all = want(project({ agents: [agent('a', { replicas: 0 })] }))
  const keepSecrets = 'secret k changed; no container has it'
  expect(text(all, running(all), { keepSecrets })).toBe(
    '#1 write-secrets volume:p_agentctl-secrets (kept): secret k changed; no container has it',
  )
  const one = want(project({ agents: [agent('a')] }))
  expect(text(one, running(one), { keepSecrets, changedSecrets: { 'p-a-1': 'secret k changed; nothing is restarted' } })).toBe(
    '#1 write-secrets volume:p_agentctl-secrets (for p-a-1): secret k changed; nothing is restarted',
  )
})

test('an agent with no replicas left is scaled down, and is no orphan', () => {
  const observed = running(want(project({ agents: [agent('coder', { replicas: 2 })] })))
  const none = want(project({ agents: [agent('coder', { replicas: 0 })] }))
  expect(about(text(none, observed, { removeOrphans: false }), /coder-/)).toMatchInlineSnapshot(`
    "stop-container container:p-coder-2: scaled down to 0
    remove-container container:p-coder-2: scaled down to 0
    stop-container container:p-coder-1: scaled down to 0
    remove-container container:p-coder-1: scaled down to 0"
  `)
  expect(about(text(want(project({})), observed, { removeOrphans: false }), /coder-/)).toBe('')
})
