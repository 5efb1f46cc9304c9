/** Sizes that the engine's own defaults do not carry: more networks than its address pools give, more containers than one burst starts. */
import { expect, test } from 'vitest'
import { eventually, leftovers } from '../support/docker.ts'
import { type Stack, stack } from '../support/stack.ts'

const ROLES = 30
const REPLICAS = 100
const LIMITS = 'mem_limit: 64m, pids_limit: 32'

const connected = async ({ control }: Stack): Promise<readonly string[]> =>
  (await control.replicas()).flatMap((it) => (it.connected ? [`${it.agent}:${it.replica}`] : [])).sort()

test('two projects of 30 roles each: 60 networks of their own, every role connected, all gone afterwards', async () => {
  const roles = Array.from({ length: ROLES }, (_, index) => `r${String(index).padStart(2, '0')}`)
  const file = `agents:\n${roles.map((role) => `  ${role}: { ${LIMITS} }\n`).join('')}`
  const names: string[] = []
  {
    await using first = await stack('t-scale-a', { 'agents.yaml': file })
    await using second = await stack('t-scale-b', { 'agents.yaml': file })
    for (const project of [first, second]) {
      names.push(project.name)
      expect(await connected(project)).toEqual(roles.map((role) => `${role}:1`))
      const view = await project.ended(await project.submit({ agent: 'r29', type: 'task', tasks: [{ command: 'echo here' }] }))
      expect(view.status).toBe('completed')
    }
    const networks = (await Promise.all(names.map(async (name) => await first.runtime.networks(name)))).flat()
    expect(networks.length).toBeGreaterThanOrEqual(2 * ROLES)
    const subnets = networks.flatMap((network) => network.subnets)
    expect(new Set(subnets).size).toBe(networks.length)
  }
  for (const name of names) expect(await leftovers(name)).toEqual([])
}, 150_000)

test('one role of 100 replicas: all connected, all get work, all gone afterwards', async () => {
  let name: string
  {
    await using project = await stack('t-scale-c', { 'agents.yaml': `agents:\n  many: { replicas: ${REPLICAS}, ${LIMITS} }\n` })
    name = project.name
    const replicas = Array.from({ length: REPLICAS }, (_, index) => `many:${index + 1}`)
    expect(await connected(project)).toEqual([...replicas].sort())
    // Each gets work once its posture is proved: some thirty a second.
    await eventually(async () => (await project.control.replicas({ unproved: true })).length === 0, 60_000, 'all are proved')
    // Long enough that no replica is free for a second one before all have theirs.
    const tasks = replicas.map(() => ({ command: 'hostname; sleep 3' }))
    const view = await project.ended(await project.submit({ agent: 'many', type: 'task', tasks }), 60_000)
    expect(view.status).toBe('completed')
    const hosts = view.jobs.map((it) => (it.result as { readonly stdout: string }).stdout)
    expect(new Set(hosts).size).toBe(REPLICAS)
  }
  expect(await leftovers(name)).toEqual([])
}, 150_000)
