import { expect, test } from 'vitest'
import { agent, project, service, want } from '../../support/project.ts'

test('a service called gateway does not take the place of our door', () => {
  const all = want(project({ agents: [agent('a', { uses: ['gateway'] }), agent('b')], services: [service('gateway')] }))
  const spec = (name: string) => all.containers.find((it) => it.spec.name === name)?.spec
  const a = spec('p-a-1')
  expect(a?.environment['AGENTCTL_GATEWAY']).toBe('http://agentctl-gateway:7070')
  const role = a?.endpoints[0]?.address?.replace(/\.\d+$/, '.2')
  expect(a?.extra_hosts['agentctl-gateway']).toBe(role)
  expect(a?.extra_hosts['gateway']).not.toBe(role)
  expect(spec('p-b-1')?.environment['AGENTCTL_GATEWAY']).toBe('http://gateway:7070')
})

test('filling the workspace is not what kills an agent: tmpfs stays below its memory', () => {
  const all = want(project({ agents: [agent('a', { mem_limit: 64 * 1024 ** 2 })] }))
  const tmpfs = all.containers.find((it) => it.group === 'a')?.spec.tmpfs ?? []
  expect(tmpfs.reduce((sum, it) => sum + it.size, 0)).toBeLessThan(64 * 1024 ** 2)
})

test('who writes a volume owns it, whatever the order of names', () => {
  const mount = (read_only: boolean) => [{ type: 'volume', source: 'v', target: '/v', read_only } as const]
  const all = want(
    project({ agents: [agent('a', { mounts: mount(true) }), agent('b', { user: '2000:2000', mounts: mount(false) })], volumes: ['v'] }),
  )
  expect(all.owners['p_v']).toEqual({ uid: 2000, gid: 2000 })
})
