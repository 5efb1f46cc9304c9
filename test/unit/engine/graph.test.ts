import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Node, walk } from '../../../engine/graph.ts'

const dag = fc
  .array(fc.array(fc.nat(30), { maxLength: 4 }), { minLength: 1, maxLength: 30 })
  .map((rows) =>
    rows.map((needs, index): Node => ({ id: index + 1, needs: needs.map((need) => need + 1).filter((need) => need <= index) })),
  )
const run = async (nodes: readonly Node[], visit: (node: Node) => Promise<boolean>) =>
  await walk(nodes, { limit: 4, signal: new AbortController().signal, visit })

test('every node runs once, after all that it needs', async () => {
  await fc.assert(
    fc.asyncProperty(dag, async (nodes) => {
      const done: number[] = []
      await run(nodes, async (node) => {
        expect(node.needs.every((need) => done.includes(need))).toBe(true)
        await Promise.resolve()
        done.push(node.id)
        return true
      })
      expect([...done].sort((a, b) => a - b)).toEqual(nodes.map((node) => node.id))
    }),
  )
})

test('what needs a failed node is skipped, and nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(dag, fc.nat(29), async (nodes, pick) => {
      const bad = (pick % nodes.length) + 1
      const outcome = await run(nodes, async (node) => node.id !== bad)
      const doomed = new Set([bad])
      for (const node of nodes) if (node.needs.some((need) => doomed.has(need))) doomed.add(node.id)
      for (const node of nodes) expect(outcome.get(node.id)).toBe(node.id === bad ? 'failed' : doomed.has(node.id) ? 'skipped' : 'done')
    }),
  )
})

test('after an abort nothing new starts', async () => {
  const abort = new AbortController()
  const seen: number[] = []
  const outcome = await walk(
    [
      { id: 1, needs: [] },
      { id: 2, needs: [1] },
    ],
    {
      limit: 1,
      signal: abort.signal,
      visit: async (node) => {
        seen.push(node.id)
        abort.abort()
        return true
      },
    },
  )
  expect(seen).toEqual([1])
  expect(outcome.get(2)).toBe('skipped')
})
