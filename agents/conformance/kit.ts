/** Runs the rules against an agent, several at a time, and reports. */
import type { Json } from '../../spec/protocol.ts'
import type { Target } from './agent.ts'
import { RULES, type Rule } from './rules.ts'
import { Broken, NotApplicable, Stage } from './stage.ts'

const PATIENCE_MS = 15_000
const AT_ONCE = 4

export interface ConformanceOptions {
  readonly target: Target
  /** A task that the agent completes at once, with some text in it. */
  readonly input: Json
  /** One that takes it a minute or longer; null: the rules about that are left out. */
  readonly slow?: Json
  /** One that it cannot do. */
  readonly bad?: Json
  /** Rules by their id; default: all. */
  readonly only?: readonly string[]
  readonly patienceMs?: number
  readonly atOnce?: number
  readonly signal?: AbortSignal
  readonly onRule?: (report: RuleReport) => void
}

export interface RuleReport {
  readonly id: string
  readonly rule: string
  readonly status: 'kept' | 'broken' | 'not_applicable'
  /** Why it is not kept; else null. */
  readonly detail: string | null
  /** What the agent wrote, when the rule is broken. */
  readonly output: string | null
}
export interface ConformanceReport {
  readonly ok: boolean
  readonly session: boolean
  readonly rules: readonly RuleReport[]
}

interface Played {
  readonly report: RuleReport
  readonly problem: string | null
  readonly isSession: boolean
}

async function play({ id, text, play: run }: Rule, options: ConformanceOptions): Promise<Played> {
  const { target, input, slow = null, bad = null, patienceMs = PATIENCE_MS, signal = new AbortController().signal } = options
  const stage = new Stage({ target, inputs: { input, slow, bad }, patienceMs, signal })
  let report: RuleReport = { id, rule: text, status: 'kept', detail: null, output: null }
  try {
    await run(stage)
  } catch (error) {
    if (error instanceof NotApplicable) report = { ...report, status: 'not_applicable', detail: error.message }
    else if (error instanceof Broken) report = { ...report, status: 'broken', detail: error.message, output: stage.output }
    else throw error
  } finally {
    await stage.end()
  }
  return { report, problem: stage.gateway.problems[0] ?? null, isSession: stage.gateway.isSession }
}

export const RULE_IDS: readonly string[] = RULES.map(({ id }) => id)

export async function runConformance(options: ConformanceOptions): Promise<ConformanceReport> {
  const { only, atOnce = AT_ONCE, onRule = () => {} } = options
  const rules = RULES.filter(({ id }) => only === undefined || only.includes(id))
  const played: Played[] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let index = next++; index < rules.length; index = next++) {
      const rule = rules[index]
      if (rule === undefined) return
      const one = await play(rule, options)
      played[index] = one
      onRule(one.report)
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, rules.length) }, work))
  // What is malformed in any play counts.
  const problem = played.find((one) => one.problem !== null)?.problem ?? null
  const reports = played.map(({ report }) =>
    report.id === 'well_formed' && report.status === 'kept' && problem !== null
      ? ({ ...report, status: 'broken', detail: problem } as const)
      : report,
  )
  return { ok: reports.every(({ status }) => status !== 'broken'), session: played.some((it) => it.isSession), rules: reports }
}

/** For people: a line per rule, and the reasons. */
export function conformanceTable({ ok, session, rules }: ConformanceReport): string {
  const word = { kept: 'kept', broken: 'BROKEN', not_applicable: 'not applicable' }
  const width = Math.max(...rules.map(({ id }) => id.length))
  const lines = rules.flatMap(({ id, rule, status, detail, output }) => [
    `${id.padEnd(width)}  ${word[status].padEnd(14)}  ${rule}`,
    ...(detail === null ? [] : [`${' '.repeat(width)}  ${' '.repeat(14)}  → ${detail}`]),
    ...(output === null || output === ''
      ? []
      : output
          .trimEnd()
          .split('\n')
          .slice(-5)
          .map((line) => `${' '.repeat(width + 18)}| ${line}`)),
  ])
  const broken = rules.filter(({ status }) => status === 'broken').length
  const verdict = ok ? 'it speaks the protocol' : `${broken} of ${rules.length} rules are broken`
  return `${lines.join('\n')}\n\n${session ? 'with a session' : 'without a session'}: ${verdict}`
}
