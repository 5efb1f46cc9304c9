/** A generic DAG over numbered nodes: nothing here knows containers. */

export interface Node {
  readonly id: number
  readonly needs: readonly number[]
}
export type NodeOutcome = 'done' | 'failed' | 'skipped'

/**
 * Runs every node after its needs, as parallel as the graph and `limit` allow. A node whose need did not end well is skipped, not
 * failed: the caller reports the one failure, not its shadow. After an abort no further node starts.
 */
export async function walk<N extends Node>(
  nodes: readonly N[],
  options: {
    limit: number
    signal: AbortSignal
    visit: (node: N) => Promise<boolean>
    skipped?: (node: N, because: readonly number[]) => void
  },
): Promise<ReadonlyMap<number, NodeOutcome>> {
  const outcome = new Map<number, NodeOutcome>()
  const dependents = new Map<number, N[]>()
  const waiting = new Map<number, number>()
  const known = new Set(nodes.map((node) => node.id))
  for (const node of nodes) {
    const needs = new Set(node.needs.filter((id) => known.has(id)))
    waiting.set(node.id, needs.size)
    for (const id of needs) dependents.set(id, [...(dependents.get(id) ?? []), node])
  }
  const ready = nodes.filter((node) => waiting.get(node.id) === 0)
  const running = new Set<Promise<void>>()

  const settle = (node: N, result: NodeOutcome): void => {
    outcome.set(node.id, result)
    for (const next of dependents.get(node.id) ?? []) {
      const left = (waiting.get(next.id) ?? 0) - 1
      waiting.set(next.id, left)
      if (left > 0) continue
      const because = next.needs.filter((id) => outcome.get(id) !== undefined && outcome.get(id) !== 'done')
      if (because.length === 0) ready.push(next)
      else {
        options.skipped?.(next, because)
        settle(next, 'skipped')
      }
    }
  }

  while (ready.length > 0 || running.size > 0) {
    while (ready.length > 0 && running.size < options.limit) {
      const node = ready.shift() as N
      if (options.signal.aborted) {
        options.skipped?.(node, [])
        settle(node, 'skipped')
        continue
      }
      const task: Promise<void> = options
        .visit(node)
        .then(
          (ok) => settle(node, ok ? 'done' : 'failed'),
          () => settle(node, 'failed'),
        )
        .finally(() => running.delete(task))
      running.add(task)
    }
    if (running.size > 0) await Promise.race(running)
  }
  return outcome
}
