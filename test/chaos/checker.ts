/** Nine invariants over one history (docs/operations.md "Chaos"). Pure: a verdict is repeatable, and each is shown to find what it is for. */
import { type Json, MAX_DEATHS, TERMINAL } from '../../spec/protocol.ts'
import type { Execution, Fault, History, LedgerTask } from './history.ts'

export interface Verdict {
  readonly invariant: string
  readonly says: string
  /** How many things it looked at: 0 proves nothing. */
  readonly checked: number
  readonly violations: readonly string[]
}

export function check(history: History): readonly Verdict[] {
  const facts = factsOf(history)
  return [I1, I2, I3, I4, I5, I6, I7, I8, I9].flatMap((invariant) => invariant(history, facts))
}

/** An agent that was killed or cut off before this attempt may be the reason for it; so long a silence can go unnoticed. */
const BLAME_MS = 30_000
/** What the gateway or Redis went through is over by then: a new gateway is there after some 6 s, and gives adopted sessions 10 s. */
const CORE_BLAME_MS = 20_000
/** AGENT.REPLICA; parts are containers. */
const AGENT_TARGET = /^[a-z0-9_-]+\.\d+$/

interface Facts {
  readonly byTask: ReadonlyMap<string, readonly Execution[]>
  readonly byId: ReadonlyMap<string, Execution>
  readonly tasks: ReadonlyMap<string, LedgerTask>
  readonly children: ReadonlyMap<string, readonly LedgerTask[]>
}

function factsOf({ executions, tasks }: History): Facts {
  return {
    byTask: Map.groupBy(executions, (it) => it.task),
    byId: new Map(executions.map((it) => [it.execution, it])),
    tasks: new Map(tasks.map((it) => [it.id, it])),
    children: Map.groupBy(
      tasks.filter((it) => it.parent !== null),
      (it) => it.parent as string,
    ),
  }
}

type Invariant = (history: History, facts: Facts) => readonly Verdict[]
const verdict = (invariant: string, says: string, checked: number, violations: readonly (string | false)[]): readonly Verdict[] => [
  { invariant, says, checked, violations: violations.filter((it) => it !== false) },
]

/** The execution that a result names. */
export function executionOf(result: Json): string | null {
  if (typeof result !== 'object' || result === null || Array.isArray(result)) return null
  const { execution } = result as { readonly execution?: Json }
  return typeof execution === 'string' ? execution : null
}

const I1: Invariant = ({ submitted, runs, tasks, mayLose }) => {
  const known = new Map(runs.map((it) => [it.run, it]))
  const rootsOf = Map.groupBy(
    tasks.filter((it) => it.parent === null),
    (it) => it.run,
  )
  const deadOf = Map.groupBy(
    tasks.filter((it) => it.status === 'dead'),
    (it) => it.run,
  )
  const acked = submitted.filter((it) => it.acked)
  const ofRuns = acked.flatMap((submit) => {
    const run = known.get(submit.run)
    if (run === undefined) return [`${submit.run} was accepted and is gone`]
    if (!TERMINAL.has(run.status)) return [`${submit.run} never ended: ${run.status}`]
    if (run.lost && mayLose) return []
    const mayBeCancelled = submit.cancel !== null
    // A task that saw three agents die is dead, and fails those who wait for it: under so many faults that may happen.
    const isPoisoned = ['failed', 'dead'].includes(run.status) && (deadOf.get(submit.run) ?? []).some((it) => it.attempts >= MAX_DEATHS)
    if (!submit.ends.includes(run.status) && !(mayBeCancelled && run.status === 'cancelled') && !isPoisoned)
      return [`${submit.run} ended ${run.status}, expected ${submit.ends.join(' or ')}: ${run.errors.join('; ')}`]
    const roots = rootsOf.get(submit.run)?.length ?? 0
    if (submit.tasks !== null && roots !== submit.tasks && run.status !== 'cancelled')
      return [`${submit.run} has ${roots} tasks, ${submit.tasks} were submitted`]
    return []
  })
  const ofTasks = tasks.filter((it) => !TERMINAL.has(it.status)).map((it) => `${it.id} never ended: ${it.status}`)
  return verdict('I1', 'each accepted submit, and each of its tasks, ends', acked.length + tasks.length, [...ofRuns, ...ofTasks])
}

const I2: Invariant = ({ runs, executions, tasks, mayLose }, { byId, byTask, tasks: known }) => {
  const violations: string[] = []
  for (const { run, answers, lost } of runs)
    if (answers.length > 1 && !(lost && mayLose))
      violations.push(`${run} showed ${answers.length} different ends: ${answers.map((it) => it.slice(0, 200)).join(' | ')}`)
  for (const { shown } of runs)
    for (const [id, result] of Object.entries(shown)) {
      const task = known.get(id)
      if (task?.status === 'completed' && !same(task.result, result))
        violations.push(`${id}: the run shows ${JSON.stringify(result)}, the queue holds ${JSON.stringify(task.result)}`)
    }
  for (const task of tasks) {
    if (task.status !== 'completed') continue
    const name = executionOf(task.result)
    const winner = name === null ? undefined : byId.get(name)
    if (winner === undefined) violations.push(`${task.id} shows a result that no execution reported: ${JSON.stringify(task.result)}`)
    else if (winner.task !== task.id) violations.push(`${task.id} shows the result of ${winner.task}`)
    else if (winner.attempt !== task.attempts)
      violations.push(`${task.id} shows the result of execution ${winner.attempt}, and the ledger counts ${task.attempts}`)
    else if (winner.outcome?.status === 'completed' && !same(winner.outcome.result, task.result))
      violations.push(
        `${task.id} shows ${JSON.stringify(task.result)}, execution ${winner.execution} reported ${JSON.stringify(winner.outcome.result)}`,
      )
  }
  // What an agent was told that it stands must be what stands.
  for (const it of executions) {
    if (it.acked !== true || it.outcome?.status !== 'completed') continue
    const task = known.get(it.task)
    if (task === undefined) violations.push(`${it.task}: execution ${it.execution} was acknowledged, and the task is gone`)
    else if (task.status === 'completed' && executionOf(task.result) !== it.execution)
      violations.push(`${it.task}: execution ${it.execution} was acknowledged, and another is visible`)
    else if (task.status !== 'completed' && task.status !== 'cancelled')
      violations.push(`${it.task}: execution ${it.execution} was acknowledged, and the task is ${task.status}`)
  }
  for (const [task, all] of byTask) {
    const attempts = all.map((it) => it.attempt)
    if (new Set(attempts).size !== attempts.length) violations.push(`${task}: the same execution began twice (${attempts.join(', ')})`)
  }
  const children = Map.groupBy(
    executions.filter((it) => it.parent !== null),
    (it) => `${it.parent} ${it.child_key}`,
  )
  for (const [key, all] of children) {
    const ids = new Set(all.map((it) => it.task))
    if (ids.size > 1) violations.push(`child ${key} exists ${ids.size} times: ${[...ids].join(', ')}`)
  }
  const completed = tasks.filter((it) => it.status === 'completed').length
  return verdict(
    'I2',
    'a task has one visible result, that of the execution that won; no child exists twice',
    completed + children.size,
    violations,
  )
}

const I3: Invariant = (_, { tasks, children }) => {
  const parents = [...children].filter(([id]) => tasks.get(id)?.status === 'completed')
  const violations = parents.flatMap(([id, all]) =>
    all.filter((it) => it.status !== 'completed').map((it) => `${id} completed, and its child ${it.id} is ${it.status}`),
  )
  return verdict('I3', 'nothing completed whose child did not', parents.length, violations)
}

const I4: Invariant = ({ queues, open, runs }, { tasks, children }) => {
  const cancelled = new Set(runs.filter((it) => it.status === 'cancelled').map((it) => it.run))
  const stuck = [...children].flatMap(([id, all]) => {
    const parent = tasks.get(id)
    // A task that waited when its run was cancelled is removed, also one that had a child in an execution before.
    if (parent === undefined && all.every((it) => cancelled.has(it.run))) return []
    if (parent === undefined) return [`${all.length} children of ${id}, which the ledger does not know`]
    return TERMINAL.has(parent.status) || !all.every((it) => TERMINAL.has(it.status))
      ? []
      : [`${id} waits, and all its children have ended`]
  })
  const left = queues.flatMap((queue) =>
    (['waiting', 'active', 'delayed', 'prioritized'] as const)
      .filter((set) => queue[set] > 0)
      .map((set) => `queue ${queue.name} still has ${queue[set]} ${set}`),
  )
  return verdict('I4', 'no parent waits for children that have ended; the queues are empty', children.size + queues.length, [
    ...stuck,
    ...left,
    ...open.map((run) => `${run} is still on the list of open runs`),
  ])
}

/** A fault of an agent is a reason only for what that agent did; one of the gateway, of Redis or of all only shortly. */
function isReason(fault: Fault, again: Execution, before: Execution, isNext: boolean): boolean {
  const ofAgent = AGENT_TARGET.test(fault.target)
  if (isNext && ofAgent && fault.target !== before.replica) return false
  return fault.at <= again.begin && (fault.until ?? fault.at) >= before.begin - (ofAgent ? BLAME_MS : CORE_BLAME_MS)
}

const strikes = ({ target, at, until }: Fault, { replica, begin, end }: Execution): boolean =>
  (target === replica || target === 'project') && at <= (end ?? begin) + BLAME_MS && (until ?? at) >= begin

const I5: Invariant = ({ faults }, { byTask, tasks }) => {
  const violations: string[] = []
  for (const task of tasks.values()) {
    if (task.status !== 'dead') continue
    const executions = byTask.get(task.id) ?? []
    const deaths = executions.filter((it) => it.end === null || faults.some((fault) => strikes(fault, it)))
    // One that died before it could write has left nothing.
    if (deaths.length + Math.max(0, task.attempts - executions.length) < MAX_DEATHS)
      violations.push(`${task.id} is dead, and only ${deaths.length} of its ${executions.length} executions can have died`)
  }
  for (const [id, all] of byTask) {
    const task = tasks.get(id)
    const ordered = [...all].sort((a, b) => a.attempt - b.attempt)
    const last = ordered.at(-1)
    if (task !== undefined && last !== undefined && last.attempt > task.attempts)
      violations.push(`${id}: execution ${last.attempt} began, the ledger counts ${task.attempts}`)
    for (const [index, it] of ordered.entries()) {
      const before = ordered[index - 1]
      if (before === undefined || (before.outcome?.status === 'failed' && before.outcome.retryable)) continue
      if (before.outcome?.status === 'failed' && before.acked === true)
        violations.push(`${id} failed for good in execution ${before.attempt} and ran again`)
      // With one in between that left nothing, nobody knows whose agent that was.
      const isNext = it.attempt === before.attempt + 1
      if (!faults.some((fault) => isReason(fault, it, before, isNext)))
        violations.push(`${id}: execution ${it.attempt} follows ${before.attempt} without a failure or a fault`)
    }
  }
  return verdict(
    'I5',
    'no execution without a reason (a failure that may be retried, or a fault), and none dead without three',
    byTask.size,
    violations,
  )
}

const I6: Invariant = ({ roots }) =>
  roots === null
    ? []
    : verdict(
        'I6',
        'the trace of a run has one root',
        Object.keys(roots).length,
        Object.entries(roots)
          .filter(([, count]) => count > 1)
          .map(([run, count]) => `${run} has ${count} roots`),
      )

const I7: Invariant = ({ containers, strayKeys, queues }) => [
  ...verdict('I7', 'no container, key or lock is left over', queues.length + (containers === null ? 0 : 1), [
    ...(containers ?? []),
    ...strayKeys.map((key) => `stray key ${key}`),
    ...queues.filter((queue) => queue.locks > 0).map((queue) => `queue ${queue.name} has ${queue.locks} locks and nothing active`),
  ]),
]

/**
 * Only executions that won count: fencing says that their lease was alive from begin to end. One that lost may have gone on for long
 * after its lease was another's, and that is no violation.
 */
const I8: Invariant = ({ perKey }, { byId, tasks }) => {
  if (perKey === null) return []
  const winners = [...tasks.values()].flatMap((task) => {
    const winner = task.status === 'completed' ? byId.get(executionOf(task.result) ?? '') : undefined
    return winner === undefined || winner.key === null || winner.end === null ? [] : [winner]
  })
  const violations: string[] = []
  for (const [key, all] of Map.groupBy(winners, (it) => it.key as string)) {
    const edges = all.flatMap((it) => [
      { at: it.begin, by: 1, it },
      { at: it.end as number, by: -1, it },
    ])
    edges.sort((a, b) => a.at - b.at || a.by - b.by)
    let now = 0
    for (const { by, it } of edges) {
      now += by
      if (now > perKey && by > 0) violations.push(`key ${key}: ${now} at once when ${it.execution} began, at most ${perKey} may`)
    }
  }
  return verdict('I8', 'concurrency per key is never exceeded', winners.length, violations)
}

const I9: Invariant = ({ submitted, executions, runs }, { tasks }) => {
  const status = new Map(runs.map((it) => [it.run, it.status]))
  const cancelled = submitted.filter((it) => it.cancel !== null && status.get(it.run) === 'cancelled')
  const since = new Map(cancelled.map((it) => [it.run, it.cancel?.acked ?? null]))
  const violations = executions.flatMap((it) => {
    const at = since.get(it.run)
    if (at === undefined || at === null || it.begin <= at) return []
    const task = tasks.get(it.task)
    return task?.status === 'completed' && executionOf(task.result) === it.execution
      ? [`${it.task} began after its run was cancelled, and its result is visible`]
      : []
  })
  const unfinished = [...tasks.values()]
    .filter((it) => since.has(it.run) && !['completed', 'cancelled', 'failed', 'dead'].includes(it.status))
    .map((it) => `${it.id} of a cancelled run is ${it.status}`)
  return verdict('I9', 'what was cancelled has no later visible effect', cancelled.length, [...violations, ...unfinished])
}

/** Key order does not matter: the ledger may have parsed and written it. */
const same = (a: Json, b: Json): boolean => canonical(a) === canonical(b)
const canonical = (value: Json): string =>
  JSON.stringify(value, (_, it: Json) =>
    typeof it === 'object' && it !== null && !Array.isArray(it)
      ? Object.fromEntries(Object.entries(it).sort(([a], [b]) => (a < b ? -1 : 1)))
      : it,
  )
