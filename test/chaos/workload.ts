/** What is submitted, drawn from the seed: pure, so that a seed gives the same work whatever breaks meanwhile. */
import type { SubmitRequest, WorkStatus } from '../../spec/protocol.ts'
import { leaves, tasksOf } from './project.ts'
import type { Random } from './random.ts'

export interface Work {
  readonly kind: string
  readonly request: SubmitRequest
  /** Roots; null: a pipeline's. */
  readonly roots: number | null
  /** Roots and children. */
  readonly tasks: number
  readonly ends: readonly WorkStatus[]
  /** Values of the roots, in order, if it completes. */
  readonly values: readonly number[]
  /** Cancel so long after the submit. */
  readonly cancel_ms: number | null
  /** Submits of the same id at once. */
  readonly copies: number
}

export function workload(random: Random, tasks: number): readonly Work[] {
  const all: Work[] = []
  for (let count = 0, n = 1; count < tasks; n++) {
    const made = one(random, n)
    all.push(made)
    count += made.tasks
  }
  return all
}

const KINDS = ['plain', 'plain', 'plain', 'plain', 'keyed', 'keyed', 'lead', 'lead', 'pipeline', 'flaky', 'crash', 'bad'] as const

function one(random: Random, n: number): Work {
  const kind = random.pick(KINDS)
  const ms = (): number => random.whole(50, 500)
  const cancel_ms = ['plain', 'keyed', 'lead'].includes(kind) && random.chance(0.12) ? random.whole(0, 1_500) : null
  const more = {
    kind,
    cancel_ms,
    copies: random.chance(0.15) ? random.whole(2, 4) : 1,
  }
  const options = random.chance(0.2) ? { priority: random.whole(-9, 9) } : {}
  const of = (agent: string, inputs: readonly { readonly [key: string]: number | string | boolean }[]): SubmitRequest => ({
    agent,
    type: 'task',
    tasks: inputs,
    ...options,
  })
  const many = (length: number, extra: () => { readonly [key: string]: number | string | boolean }) =>
    Array.from({ length }, (_, index) => ({ n: n + index, ms: ms(), ...extra() }))
  const plain = (agent: string, inputs: readonly { readonly n: number }[], ends: readonly WorkStatus[] = ['completed']): Work => ({
    ...more,
    request: of(agent, inputs),
    roots: inputs.length,
    tasks: inputs.length,
    ends,
    values: inputs.map((it) => it.n * 2),
  })
  switch (kind) {
    case 'plain':
      return plain(
        'work',
        many(random.whole(1, 20), () => ({})),
      )
    case 'keyed':
      return plain(
        'keyed',
        many(random.whole(2, 12), () => ({ key: `key-${random.whole(0, 4)}` })),
      )
    case 'flaky':
      return plain(
        'work',
        many(random.whole(1, 3), () => ({ fails: random.whole(1, 2) })),
      )
    // Its agent dies with it, once: well below the number of deaths that make a task dead.
    case 'crash':
      return plain(
        'work',
        many(1, () => ({ crash: 1 })),
      )
    case 'bad':
      return plain(
        'work',
        many(random.whole(1, 2), () => ({ bad: true })),
        ['failed'],
      )
    case 'lead': {
      const [depth, width] = [random.whole(1, 3), random.whole(1, 3)]
      return {
        ...more,
        request: of('lead', [{ n, ms: ms(), depth, width }]),
        roots: 1,
        tasks: tasksOf(depth, width),
        ends: ['completed'],
        values: [n * 2 * leaves(depth, width)],
      }
    }
    case 'pipeline':
      return {
        ...more,
        request: { pipeline: 'two', inputs: { n, ms: ms() }, ...options },
        roots: null,
        tasks: 2,
        ends: ['completed'],
        values: [n * 4],
      }
  }
}
