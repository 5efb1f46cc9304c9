import { describe, expect, test } from 'vitest'
import type { Desired, DesiredContainer } from '../../../engine/desired.ts'
import type { Plan } from '../../../engine/plan.ts'
import { changeOf } from '../../../engine/record-changes.ts'
import { reconcile } from '../../../engine/reconcile.ts'
import type { Project } from '../../../spec/model.ts'
import { agent, nothing, project, record, running, service, want } from '../../support/project.ts'

const policy = (...hosts: readonly string[]) => ({
  name: 'web',
  at: 'agents.yaml:2',
  allow: hosts.map((host) => ({
    at: 'agents.yaml:3',
    host,
    cidr: null,
    ports: [443],
    scheme: 'https' as const,
    methods: null,
    paths: null,
  })),
  deny: [],
})
const withRules = (hosts: readonly string[], ...agents: Parameters<typeof agent>[]): Project => ({
  ...project({ agents: agents.map((each) => agent(...each)), services: [service('egress'), service('store')] }),
  egress: { web: policy(...hosts) },
})
const spec = (all: Desired, name: string): DesiredContainer['spec'] => {
  const found = all.containers.find((it) => it.spec.name === name)
  if (found === undefined) throw new Error(`no ${name}`)
  return found.spec
}
const about = ({ steps }: Plan, name: string): readonly string[] =>
  steps.filter(({ target }) => target.endsWith(name)).map(({ operation, cause }) => `${operation.op}: ${cause}`)
const EGRESS = 'p-agentctl-egress-1'
const keep = { writeRecord: null }

describe('where egress is', () => {
  const all = want(withRules(['api.test'], ['out', { egress: ['web'], uses: ['store'] }], ['in']))

  test("on the networks of roles with rules, at .3, and on no other role's", () => {
    expect(spec(all, EGRESS).endpoints.map((it) => `${it.network} ${it.address?.split('.')[3] ?? '-'}`)).toEqual([
      'p_control 3',
      'p_outside -',
      'p_agent-out 3',
    ])
    expect(spec(all, EGRESS).environment['AGENTCTL_CONTROL']).toMatch(/^10\.192\.\d+\.0\/24$/)
  })

  test('agents with rules have the door and the variables, the others neither', () => {
    const { environment, extra_hosts } = spec(all, 'p-out-1')
    expect(environment).toMatchObject({
      HTTP_PROXY: 'http://egress:3128',
      HTTPS_PROXY: 'http://egress:3128',
      http_proxy: 'http://egress:3128',
      https_proxy: 'http://egress:3128',
      NO_PROXY: 'localhost,127.0.0.1,::1,gateway,store',
      no_proxy: 'localhost,127.0.0.1,::1,gateway,store',
      NODE_USE_ENV_PROXY: '1',
    })
    expect(extra_hosts['egress']).toMatch(/\.3$/)
    expect(JSON.stringify(spec(all, 'p-in-1'))).not.toMatch(/proxy|egress/i)
  })

  test('a service that is called egress keeps its name', () => {
    const { extra_hosts, environment } = spec(want(withRules([], ['a', { egress: ['web'], uses: ['egress'] }])), 'p-a-1')
    expect(Object.keys(extra_hosts).sort()).toEqual(['agentctl-egress', 'egress', 'gateway'])
    expect(environment).toMatchObject({ HTTP_PROXY: 'http://agentctl-egress:3128', NO_PROXY: 'localhost,127.0.0.1,::1,egress,gateway' })
  })
})

describe('changes', () => {
  const before = withRules(['api.test'], ['out', { egress: ['web'] }], ['in'])

  test('the first up joins them before egress starts', () => {
    expect(about(reconcile(want(before), nothing, keep), EGRESS)).toEqual([
      'create-container: does not exist',
      'connect-network: joins p_outside',
      'connect-network: joins p_agent-out',
      'start-container: does not exist',
      'wait: until healthy',
    ])
  })

  test('other rules touch no container, and the plan says that rules changed', () => {
    const after = withRules(['api.test', 'other.test'], ['out', { egress: ['web'] }], ['in'])
    expect(reconcile(want(after), running(want(before)), keep).steps).toEqual([])
    expect(changeOf(record(before), record(after))).toBe('egress rules of web changed')
    expect(changeOf(record(before), record(before))).toBe('the project changed')
  })

  test('an agent that gets rules is made anew; egress joins its network and runs on', () => {
    const after = withRules(['api.test'], ['out', { egress: ['web'] }], ['in', { egress: ['web'] }])
    const plan = reconcile(want(after), running(want(before)), keep)
    expect(about(plan, EGRESS)).toEqual(['connect-network: joins p_agent-in'])
    expect(about(plan, 'p-in-1')[0]).toBe('stop-container: configuration changed')
    expect(about(plan, 'p-out-1')).toEqual([])
    expect(changeOf(record(before), record(after))).toBe('the project changed')
  })

  test('an agent that loses them is made anew, and egress leaves its network', () => {
    const plan = reconcile(want(withRules(['api.test'], ['out'], ['in'])), running(want(before)), keep)
    expect(about(plan, EGRESS)).toEqual(['disconnect-network: leaves p_agent-out'])
    expect(about(plan, 'p-out-1')[0]).toBe('stop-container: configuration changed')
  })

  test('a role that goes is left before its network is removed', () => {
    const plan = reconcile(want(withRules(['api.test'], ['in'])), running(want(before)), keep)
    expect(about(plan, EGRESS)).toEqual(['disconnect-network: leaves p_agent-out'])
    const leave = plan.steps.filter((it) => it.operation.op === 'disconnect-network').map(({ id }) => id)
    expect(plan.steps.find((it) => it.operation.op === 'remove-network')?.needs).toEqual(expect.arrayContaining(leave))
  })

  test("egress that lost a network of a role is put back on it; one of somebody else's is no matter", () => {
    const all = want(before)
    const networks = { p_control: '10.0.0.3', p_outside: '10.0.1.3', elsewhere: '11.22.33.2' }
    expect(about(reconcile(all, running(all, { [EGRESS]: { networks } }), keep), EGRESS)).toEqual(['connect-network: joins p_agent-out'])
  })
})
