/** Ctrl-C in the middle of `up`, and while `up` follows the logs. */
import { afterAll, expect, test } from 'vitest'
import { agentctl, leftovers, projectFolder, start } from './cli-process.ts'

const make = () =>
  projectFolder('int', (name) => ({ 'agents.yaml': `name: ${name}\nagents:\n  shell: { handler: exec, replicas: 4, mem_limit: 64m }\n` }))
const projects: string[] = []

afterAll(async () => {
  for (const name of projects) {
    await agentctl(['-p', name, 'down', '-v'])
    expect(await leftovers(name)).toEqual([])
  }
}, 180_000)

test('an interrupted up says what goes on; the next one completes it', async () => {
  const { name, folder } = make()
  projects.push(name)
  const up = start(['up', '-d'], { cwd: folder })
  await up.shows(/container .*-shell-\d {2}created/, 170_000)
  up.signal('SIGINT')
  const { code, stderr } = await up.result
  expect(code).toBe(130)
  expect(stderr).toContain('error AG7002')
  expect(stderr).toContain('`agentctl up` completes it')
  const again = await agentctl(['up', '-d', '--format', 'json'], { cwd: folder })
  expect([again.code, again.json()]).toMatchObject([0, { ok: true, status: 'running' }])
})

test('up follows the logs; the first Ctrl-C stops the project, down removes it', async () => {
  const { name, folder } = make()
  projects.push(name)
  const up = start(['up', '--format', 'json'], { cwd: folder })
  await up.shows('"status":"running"', 170_000)
  up.signal('SIGINT')
  const { code, stdout } = await up.result
  expect(code).toBe(130)
  for (const line of stdout.trim().split('\n')) JSON.parse(line)
  const { containers } = (await agentctl(['-p', name, 'ps', '-a', '--format', 'json'])).json()
  expect(containers.filter((it: { kind: string }) => it.kind === 'agent').map((it: { status: string }) => it.status)).toEqual([
    'exited',
    'exited',
    'exited',
    'exited',
  ])
  const down = await agentctl(['-p', name, 'down', '-v', '--format', 'json'])
  expect([down.code, down.json().ok]).toEqual([0, true])
  expect(await leftovers(name)).toEqual([])
})

test('up --wait-timeout: too late is exit 3 and AG4008', async () => {
  const { name, folder } = make()
  projects.push(name)
  const up = await agentctl(['up', '-d', '--wait-timeout', '0.3', '--format', 'json'], { cwd: folder })
  expect([up.code, up.json().error.code]).toEqual([3, 'AG4008'])
})
