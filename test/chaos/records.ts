/** The agents' own records, one JSON line per begin and per end, as executions. */
import type { Json } from '../../spec/protocol.ts'
import type { Execution, Fault, Outcome } from './history.ts'

interface Begin {
  readonly e: string
  readonly t: string
  readonly r: string
  readonly a: number
  readonly w: string
  readonly p: string | null
  readonly c: string | null
  readonly k: string | null
  readonly b: number
}
interface End {
  readonly e: string
  readonly d: number
  readonly ok?: Json
  readonly code?: string
  readonly retryable?: boolean
}

interface Crash {
  readonly w: string
  readonly x: number
}

/** Agents that killed themselves over a task, and with it all else that they were at. */
export const crashesOf = (text: string): readonly Fault[] =>
  text.split('\n').flatMap((line) => {
    const entry = parsed(line)
    return entry === null || !('x' in entry)
      ? []
      : [{ kind: 'crash by a task', target: entry.w, at: entry.x, until: entry.x, missed: false }]
  })

export function executionsOf(text: string): readonly Execution[] {
  const begins: Begin[] = []
  const ends = new Map<string, End>()
  for (const line of text.split('\n')) {
    const entry = parsed(line)
    if (entry === null || 'x' in entry) continue
    if ('b' in entry) begins.push(entry)
    else ends.set(entry.e, entry)
  }
  return begins.map((it) => {
    const end = ends.get(it.e)
    return {
      task: it.t,
      run: it.r,
      attempt: it.a,
      execution: it.e,
      replica: it.w,
      parent: it.p,
      child_key: it.c,
      key: it.k,
      begin: it.b,
      end: end?.d ?? null,
      outcome: end === undefined ? null : outcomeOf(end),
      acked: null,
    }
  })
}

const outcomeOf = (end: End): Outcome =>
  end.ok === undefined
    ? { status: 'failed', code: end.code ?? 'error', retryable: end.retryable === true }
    : { status: 'completed', result: end.ok }

/** The last line of a process that was killed in mid write may be cut. */
function parsed(line: string): Begin | End | Crash | null {
  if (line === '') return null
  try {
    return JSON.parse(line) as Begin | End | Crash
  } catch {
    return null
  }
}
