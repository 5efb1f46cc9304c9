import { describe, expect, test } from 'vitest'
import { type DesiredContainer, type Desired } from '../../../engine/desired.ts'
import type { Plan } from '../../../engine/plan.ts'
import { reconcile } from '../../../engine/reconcile.ts'
import { tearDown } from '../../../engine/tear-down.ts'
import { agent, nothing, project, running, service, want } from '../../support/project.ts'

const of = (gateways: number, ...names: readonly string[]): Desired =>
  want({ ...project({ agents: names.map((name) => agent(name)) }), ...(gateways === 1 ? {} : { gateway: { replicas: gateways } }) })
const spec = (all: Desired, name: string): DesiredContainer['spec'] => {
  const found = all.containers.find((it) => it.spec.name === name)
  if (found === undefined) throw new Error(`no ${name}`)
  return found.spec
}
const steps = ({ steps }: Plan, about: string): readonly string[] =>
  steps.filter(({ target }) => target.includes(about)).map(({ operation, target, cause }) => `${operation.op} ${target}: ${cause}`)
const keep = { writeRecord: null }

describe('several gateways', () => {
  test('one gateway is what it was: the key leaves no trace', () => {
    const plain = want(project({ agents: [agent('a')] }))
    const said = want({ ...project({ agents: [agent('a')] }), gateway: { replicas: 1 } })
    expect(said.containers).toEqual(plain.containers)
    expect(JSON.stringify(plain.containers)).not.toMatch(/AGENTCTL_(SHARD|PEERS|GATEWAYS)/)
  })

  test('each is on every network under an address of its own; agents and the first gateway know them by name', () => {
    const all = of(3, 'a', 'b')
    expect(all.containers.filter((it) => it.spec.kind === 'gateway').map((it) => [it.spec.name, it.replica])).toEqual([
      ['p-agentctl-gateway-1', 1],
      ['p-agentctl-gateway-2', 2],
      ['p-agentctl-gateway-3', 3],
    ])
    const hosts = (name: string): readonly string[] => spec(all, name).endpoints.map((it) => `${it.network} .${it.address?.split('.')[3]}`)
    expect(hosts('p-agentctl-gateway-1')).toEqual(['p_control .2', 'p_agent-a .2', 'p_agent-b .2'])
    expect(hosts('p-agentctl-gateway-2')).toEqual(['p_control .249', 'p_agent-a .249', 'p_agent-b .249'])
    expect(hosts('p-agentctl-gateway-3')).toEqual(['p_control .250', 'p_agent-a .250', 'p_agent-b .250'])
    const known = (name: string): readonly string[] =>
      Object.entries(spec(all, name).extra_hosts).map(([door, at]) => `${door} .${at.split('.')[3]}`)
    expect(known('p-agentctl-gateway-1')).toEqual(['broker .4', 'egress .3', 'gateway-2 .249', 'gateway-3 .250'])
    expect(known('p-agentctl-gateway-2')).toEqual(['broker .4', 'egress .3'])
    expect(known('p-a-1')).toEqual(['gateway .2', 'gateway-2 .249', 'gateway-3 .250'])
    expect(spec(all, 'p-a-1').environment).toMatchObject({
      AGENTCTL_GATEWAY: 'http://gateway:7070',
      AGENTCTL_GATEWAYS: 'http://gateway:7070,http://gateway-2:7070,http://gateway-3:7070',
    })
    expect(spec(all, 'p-agentctl-gateway-1').environment).toEqual({
      AGENTCTL_PROJECT: 'p',
      AGENTCTL_GUARDED: '1',
      AGENTCTL_SHARD: '1',
      AGENTCTL_PEERS: 'http://gateway-2:7070,http://gateway-3:7070',
    })
    // Who is asked needs to know nobody, and has secrets of its own.
    expect(spec(all, 'p-agentctl-gateway-2').environment).toEqual({ AGENTCTL_PROJECT: 'p', AGENTCTL_GUARDED: '1', AGENTCTL_SHARD: '2' })
    expect(spec(all, 'p-agentctl-gateway-2').binds[0]?.source).toMatch(/\/p-agentctl-gateway-2$/)
  })

  test('a service that is called gateway-2 keeps its name', () => {
    const parts = project({ agents: [agent('a', { uses: ['gateway-2'] })], services: [service('gateway-2')] })
    const { extra_hosts, environment } = spec(want({ ...parts, gateway: { replicas: 2 } }), 'p-a-1')
    expect(Object.keys(extra_hosts).sort()).toEqual(['agentctl-gateway', 'agentctl-gateway-2', 'gateway-2'])
    expect(environment['AGENTCTL_GATEWAYS']).toBe('http://agentctl-gateway:7070,http://agentctl-gateway-2:7070')
  })

  test('a first up makes both, one folder, and agents wait for both', () => {
    const plan = reconcile(of(2, 'a'), nothing, { writeRecord: { revision: 1, cause: 'new' } })
    const ops = (name: string): readonly string[] =>
      plan.steps.filter((it) => it.target === `container:${name}`).map((it) => it.operation.op)
    for (const name of ['p-agentctl-gateway-1', 'p-agentctl-gateway-2'])
      expect(ops(name), name).toEqual(['create-container', 'connect-network', 'start-container', 'wait'])
    expect(plan.steps.filter((it) => it.operation.op === 'make-folder')).toHaveLength(1)
    const waits = plan.steps.filter((it) => it.operation.op === 'wait' && it.target.includes('gateway')).map(({ id }) => id)
    const ready = plan.steps.find((it) => it.operation.op === 'wait' && it.target === 'container:p-a-1')
    expect(ready?.needs).toEqual(expect.arrayContaining(waits))
    expect(waits).toHaveLength(2)
  })

  test('a new role is joined, and one that goes is left, by both', () => {
    const [before, after] = [of(2, 'a'), of(2, 'a', 'b')]
    expect(steps(reconcile(after, running(before), keep), 'gateway')).toEqual([
      'connect-network container:p-agentctl-gateway-1: joins p_agent-b',
      'connect-network container:p-agentctl-gateway-2: joins p_agent-b',
    ])
    const plan = reconcile(before, running(after), keep)
    expect(steps(plan, 'gateway')).toEqual([
      'disconnect-network container:p-agentctl-gateway-1: leaves p_agent-b',
      'disconnect-network container:p-agentctl-gateway-2: leaves p_agent-b',
    ])
    const left = plan.steps.filter((it) => it.operation.op === 'disconnect-network').map(({ id }) => id)
    expect(plan.steps.find((it) => it.operation.op === 'remove-network')?.needs).toEqual(expect.arrayContaining(left))
  })

  test('fewer gateways: the last is removed; a dead one is started again', () => {
    const plan = reconcile(of(1, 'a'), running(of(2, 'a')), keep)
    expect(steps(plan, 'gateway-2')).toEqual([
      'stop-container container:p-agentctl-gateway-2: the project has 1 gateway(s) now',
      'remove-container container:p-agentctl-gateway-2: the project has 1 gateway(s) now',
    ])
    const dead = running(of(2, 'a'), { 'p-agentctl-gateway-2': { status: 'exited', exit_code: 137 } })
    expect(steps(reconcile(of(2, 'a'), dead, { ...keep, heal: true }), 'gateway')).toEqual([
      'start-container container:p-agentctl-gateway-2: exited (137)',
      'wait container:p-agentctl-gateway-2: until healthy',
    ])
  })

  test('down takes all', () => {
    const plan = tearDown('p', running(of(2, 'a')), { volumes: true })
    expect(steps(plan, 'gateway').filter((line) => line.startsWith('remove-container'))).toHaveLength(2)
  })

  test('a broker of its own lets every gateway in', () => {
    const far = { ...project({ agents: [agent('a')] }), gateway: { replicas: 2 } }
    const all = want({ ...far, broker: { ...far.broker, url: 'redis://redis.example.com:6379/0' } })
    expect(
      spec(all, 'p-agentctl-egress-1')
        .environment['AGENTCTL_RELAY']?.split(',')
        .map((it) => it.split('.')[3]),
    ).toEqual(['3', '2', '249'])
    expect(spec(all, 'p-agentctl-gateway-2').environment).toMatchObject({ AGENTCTL_BROKER_URL: 'redis://redis.example.com:6379/0' })
  })
})
