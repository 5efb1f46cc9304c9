import fc from 'fast-check'
import { expect, test } from 'vitest'
import { cycles } from '../../../spec/cycles.ts'
import { forbiddenHostPath } from '../../../spec/host-paths.ts'
import { distance, nearest } from '../../../spec/suggest.ts'
import { loadText, problems } from './loading.ts'

test('a name of Object.prototype is not declared by itself', () => {
  expect(
    problems(
      loadText(
        'agents: { a: { uses: [constructor], delegates_to: [toString], depends_on: [valueOf] } }\npipelines: { p: { jobs: { j: { agent: hasOwnProperty, needs: [toString], with: "${{ inputs.constructor }}" } } } }\n',
      ),
    ),
  ).toHaveLength(6)
})

test('a service that cannot be read is still declared', () => {
  expect(
    problems(
      loadText(
        'agents: { a: { uses: [s], depends_on: { s: { condition: service_healthy } } } }\nservices: { s: { image: "x:1", healthcheck: 5 } }\n',
      ),
    ),
  ).toEqual(['2:45 AG1005 expected a mapping for healthcheck of service "s", got 5 (number)'])
  expect(problems(loadText('agents: { a: { uses: [s] } }\nservices: 5\n'))).toHaveLength(1)
})

test('an agent can be waited for as healthy without a healthcheck', () => {
  expect(problems(loadText('agents: { a: { depends_on: { b: { condition: service_healthy } } }, b: }\n'))).toEqual([])
})

test('a long chain of dependencies is no cycle and no stack overflow', () => {
  const names = Array.from({ length: 3000 }, (_, n) => `a${n}`)
  const text = `agents:\n${names.map((name, n) => `  ${name}: { depends_on: [${names[n + 1] ?? ''}] }`).join('\n')}\n`
  expect(problems(loadText(text))).toEqual([])
})

test('many overlapping cycles are one problem per component', () => {
  const names = Array.from({ length: 40 }, (_, n) => `a${n}`)
  const found = problems(
    loadText(
      `agents:\n${names.map((name) => `  ${name}: { depends_on: [${names.filter((each) => each !== name).join(', ')}] }`).join('\n')}\n`,
    ),
  )
  expect(found).toHaveLength(1)
})

const graphs = fc
  .integer({ min: 1, max: 8 })
  .chain((size) =>
    fc
      .array(fc.tuple(fc.nat(size - 1), fc.nat(size - 1)), { maxLength: 16 })
      .map(
        (pairs) =>
          new Map(Array.from({ length: size }, (_, n) => [`n${n}`, pairs.filter(([from]) => from === n).map(([, to]) => `n${to}`)])),
      ),
  )

test('a cycle is found exactly where the nodes cannot be sorted, and it is made of edges', () => {
  fc.assert(
    fc.property(graphs, (edges) => {
      const rest = new Map(edges)
      for (let gone = true; gone; ) {
        gone = false
        for (const [node, targets] of rest) if (targets.every((target) => !rest.has(target))) gone = rest.delete(node)
      }
      const found = cycles(edges)
      expect(found.length > 0).toBe(rest.size > 0)
      for (const cycle of found) {
        expect(cycle[0]).toBe(cycle.at(-1))
        for (const [index, to] of cycle.slice(1).entries()) expect(edges.get(cycle[index] ?? '')).toContain(to)
      }
    }),
    { seed: 2, numRuns: 500 },
  )
})

test.each([
  '/',
  '//',
  '/etc',
  '/etc/',
  '/etc/passwd',
  '/proc/1',
  '/sys',
  '/dev/shm',
  '/boot',
  '/root',
  '/run/user/1000/x',
  '/var/run/docker.sock',
  '/var',
  '/var/lib',
  '/var/lib/docker/volumes',
  '/home/me/docker.sock',
  '/data/../etc',
  '/usr',
  '/lib',
  '/var/log',
  '/home/me/.ssh',
  '/home/me/.aws/credentials',
  '/home/me/.docker/run',
])('%s is closed to agents', (path) => {
  expect(forbiddenHostPath(path)).not.toBeNull()
})
test.each([
  '/root/project',
  '/home/me',
  '/home',
  '/opt/data',
  '/srv',
  '/etcetera',
  '/tmp/run',
  '/var/lib/dockerish',
  '/var/data',
  '/usr/local/src/project',
  '/home/me/.config',
])('%s is open', (path) => {
  expect(forbiddenHostPath(path)).toBeNull()
})

test('suggestions', () => {
  expect(distance('replcias', 'replicas')).toBe(1)
  expect(nearest('memLimit', ['mem_limit', 'cpus'])).toBe('mem_limit')
  expect(nearest('zzz', ['mem_limit', 'cpus'])).toBeNull()
  expect(nearest('x'.repeat(1000), ['cpus'])).toBeNull()
})
