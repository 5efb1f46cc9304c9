/** Cycles of a graph: one per strongly connected component (Tarjan, without recursion), the shortest through its first node. */

export type Edges = ReadonlyMap<string, readonly string[]>

export function cycles(edges: Edges): readonly (readonly string[])[] {
  return components(edges)
    .map((members) => shortest(members, edges))
    .filter((cycle) => cycle.length > 0)
}

interface Frame {
  readonly node: string
  next: number
}

function components(edges: Edges): readonly (readonly string[])[] {
  const index = new Map<string, number>()
  const low = new Map<string, number>()
  const open: string[] = []
  const isOpen = new Set<string>()
  const found: string[][] = []
  const lower = (node: string, to: number): void => void low.set(node, Math.min(low.get(node) ?? to, to))
  const enter = (node: string): Frame => {
    index.set(node, index.size)
    low.set(node, index.size - 1)
    open.push(node)
    isOpen.add(node)
    return { node, next: 0 }
  }
  const leave = (node: string): void => {
    if (low.get(node) !== index.get(node)) return
    const members = open.splice(open.indexOf(node))
    for (const member of members) isOpen.delete(member)
    found.push(members)
  }
  for (const start of edges.keys()) {
    if (index.has(start)) continue
    const frames = [enter(start)]
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const next = edges.get(frame.node)?.[frame.next]
      frame.next += 1
      if (next === undefined) {
        leave(frame.node)
        frames.pop()
        const parent = frames.at(-1)
        if (parent !== undefined) lower(parent.node, low.get(frame.node) ?? 0)
      } else if (!index.has(next)) frames.push(enter(next))
      else if (isOpen.has(next)) lower(frame.node, index.get(next) ?? 0)
    }
  }
  return found
}

/** a → … → a within one component; empty when its only member has no edge to itself. */
function shortest(members: readonly string[], edges: Edges): readonly string[] {
  const inside = new Set(members)
  const start = members[0] ?? ''
  const cameFrom = new Map<string, string>()
  const queue = [start]
  for (let at = 0; at < queue.length; at++) {
    const node = queue[at] ?? ''
    for (const next of edges.get(node) ?? []) {
      if (next === start) return [...unwind(node, start, cameFrom), start]
      if (!inside.has(next) || cameFrom.has(next)) continue
      cameFrom.set(next, node)
      queue.push(next)
    }
  }
  return []
}

function unwind(node: string, start: string, cameFrom: ReadonlyMap<string, string>): readonly string[] {
  const path = [node]
  for (let at = node; at !== start; path.unshift(at)) at = cameFrom.get(at) ?? start
  return path
}
