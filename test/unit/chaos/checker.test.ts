/** The checker of the chaos suite finds what it is for: each invariant is broken once in a history that is otherwise right. */
import { expect, test } from 'vitest'
import { check } from '../../chaos/checker.ts'
import type { Execution, History, LedgerTask } from '../../chaos/history.ts'

const RUN = 'run_1'
const execution = (task: string, attempt = 1, change: Partial<Execution> = {}): Execution => {
  const name = `${task}#${attempt}`
  return {
    task,
    run: RUN,
    attempt,
    execution: name,
    replica: 'work.1',
    parent: null,
    child_key: null,
    key: null,
    begin: 1_000 * attempt,
    end: 1_000 * attempt + 500,
    outcome: { status: 'completed', result: { value: 1, execution: name } },
    acked: true,
    ...change,
  }
}
const task = (id: string, change: Partial<LedgerTask> = {}): LedgerTask => ({
  id,
  run: RUN,
  agent: 'work',
  parent: null,
  status: 'completed',
  attempts: 1,
  result: { execution: `${id}#1`, value: 1 },
  ...change,
})
const right: History = {
  submitted: [{ run: RUN, acked: true, tasks: 2, ends: ['completed'], cancel: null }],
  executions: [execution('a'), execution('b'), execution('c', 1, { parent: 'a', child_key: 'k' })],
  runs: [
    { run: RUN, status: 'completed', answers: ['one'], shown: { a: { value: 1, execution: 'a#1' } }, roots: [], lost: false, errors: [] },
  ],
  tasks: [task('a'), task('b'), task('c', { parent: 'a' })],
  queues: [{ name: 'work', waiting: 0, active: 0, delayed: 0, prioritized: 0, locks: 0 }],
  open: [],
  strayKeys: [],
  faults: [],
  mayLose: false,
  perKey: 1,
  roots: { [RUN]: 1 },
  containers: [],
}
const broken = (change: Partial<History>): readonly string[] =>
  check({ ...right, ...change })
    .filter((it) => it.violations.length > 0)
    .map((it) => it.invariant)
const tasks = (change: Partial<LedgerTask>): History['tasks'] => [task('a', change), ...right.tasks.slice(1)]
const executions = (...more: readonly Execution[]): History['executions'] => [...right.executions, ...more]

test('a right history has no violation, and every invariant looked at something', () => {
  const verdicts = check({ ...right, executions: right.executions.map((it) => ({ ...it, key: it.task })) })
  expect(verdicts.flatMap((it) => it.violations)).toEqual([])
  expect(verdicts.map((it) => it.invariant)).toEqual(['I1', 'I2', 'I3', 'I4', 'I5', 'I6', 'I7', 'I8', 'I9'])
  expect(verdicts.filter((it) => it.checked === 0).map((it) => it.invariant)).toEqual(['I9'])
})

test.each<[string, string, Partial<History>]>([
  ['I1', 'an accepted run is gone', { runs: [] }],
  ['I1', 'a run never ended', { runs: [{ run: RUN, status: 'running', answers: [], shown: {}, roots: [], lost: false, errors: [] }] }],
  [
    'I1',
    'a run ended otherwise than it could',
    { runs: [{ run: RUN, status: 'failed', answers: ['one'], shown: {}, roots: [], lost: false, errors: [] }] },
  ],
  [
    'I1',
    'a submitted task is gone',
    { tasks: [task('a'), task('c', { parent: 'a' })], executions: right.executions.filter((it) => it.task !== 'b') },
  ],
  [
    'I2',
    'two answers about one run',
    { runs: [{ run: RUN, status: 'completed', answers: ['one', 'two'], shown: {}, roots: [], lost: false, errors: [] }] },
  ],
  ['I2', 'a result that nobody reported', { tasks: tasks({ result: { execution: 'z#1', value: 1 } }) }],
  ['I2', 'the result of another task', { tasks: tasks({ result: { execution: 'b#1', value: 1 } }) }],
  [
    'I2',
    'a value that was not reported',
    {
      tasks: tasks({ result: { execution: 'a#1', value: 2 } }),
      runs: [{ run: RUN, status: 'completed', answers: ['one'], shown: {}, roots: [], lost: false, errors: [] }],
    },
  ],
  [
    'I2',
    'the run shows another result than the queue holds',
    { runs: [{ run: RUN, status: 'completed', answers: ['one'], shown: { a: { value: 9 } }, roots: [], lost: false, errors: [] }] },
  ],
  [
    'I2',
    'the result of an execution that was fenced out',
    { tasks: tasks({ attempts: 2 }), faults: [{ kind: 'kill', target: 'work.1', at: 1_900, until: null, missed: false }] },
  ],
  [
    'I2',
    'an acknowledged result was overwritten',
    {
      executions: executions(execution('a', 2)),
      tasks: tasks({ attempts: 2, result: { execution: 'a#2', value: 1 } }),
      runs: [{ run: RUN, status: 'completed', answers: ['one'], shown: {}, roots: [], lost: false, errors: [] }],
      faults: [{ kind: 'kill', target: 'work.1', at: 1_900, until: null, missed: false }],
    },
  ],
  ['I2', 'one execution began twice', { executions: executions(execution('b', 1, { execution: 'b#1 again', acked: null })) }],
  [
    'I2',
    'a child twice',
    { executions: executions(execution('d', 1, { parent: 'a', child_key: 'k' })), tasks: [...right.tasks, task('d', { parent: 'a' })] },
  ],
  [
    'I3',
    'a parent completed over a failed child',
    {
      tasks: [task('a'), task('b'), task('c', { parent: 'a', status: 'failed', result: null })],
      executions: executions().filter((it) => it.task !== 'c'),
    },
  ],
  ['I4', 'a task is left in a queue', { queues: [{ name: 'work', waiting: 1, active: 0, delayed: 0, prioritized: 0, locks: 0 }] }],
  ['I4', 'a run is left open', { open: [RUN] }],
  [
    'I5',
    'run again without a reason',
    {
      executions: executions(execution('b', 2, { acked: false })),
      tasks: [task('a'), task('b', { attempts: 2, result: { execution: 'b#2', value: 1 } }), task('c', { parent: 'a' })],
    },
  ],
  [
    'I5',
    'more executions than the ledger knows',
    {
      executions: executions(execution('b', 2, { acked: false })),
      faults: [{ kind: 'kill', target: 'work.1', at: 1_900, until: null, missed: false }],
    },
  ],
  ['I6', 'a trace with two roots', { roots: { [RUN]: 2 } }],
  ['I7', 'a container too many', { containers: ['p-work-9 should not be'] }],
  ['I7', 'a lock that holds nothing', { queues: [{ name: 'work', waiting: 0, active: 0, delayed: 0, prioritized: 0, locks: 1 }] }],
  ['I7', 'a key that nothing explains', { strayKeys: ['x'] }],
  ['I8', 'two at once with one key', { executions: right.executions.map((it) => ({ ...it, key: 'tenant' })) }],
])('%s is broken by: %s', (invariant, _, change) => {
  expect(broken(change)).toContain(invariant)
})

test('I4 is broken by a parent that waits for children that have ended; I1 sees that it never ended', () => {
  expect(broken({ tasks: tasks({ status: 'queued', result: null }) })).toEqual(expect.arrayContaining(['I1', 'I4']))
})

test('I9 is broken by a result of an execution that began after the cancel was answered', () => {
  const cancelled: Partial<History> = {
    submitted: [{ run: RUN, acked: true, tasks: 2, ends: ['completed'], cancel: { sent: 100, acked: 1_200 } }],
    runs: [{ run: RUN, status: 'cancelled', answers: ['one'], shown: {}, roots: [], lost: false, errors: [] }],
  }
  expect(broken(cancelled)).toEqual([])
  expect(broken({ ...cancelled, executions: right.executions.map((it) => ({ ...it, begin: 1_300 })) })).toEqual(['I9'])
})

test('an execution that lost does not count towards its key: its lease had gone to another', () => {
  const faults = [{ kind: 'freeze', target: 'work.1', at: 1_100, until: 1_900, missed: false }]
  const lost = execution('b', 1, { key: 'tenant', acked: false, end: 9_000 })
  const won = execution('b', 2, { key: 'tenant' })
  const history = { ...right, faults, executions: [lost, won, ...right.executions.filter((it) => it.task !== 'b')] }
  const visible = task('b', { attempts: 2, result: { execution: 'b#2', value: 1 } })
  expect(broken({ ...history, tasks: [task('a'), visible, task('c', { parent: 'a' })] })).toEqual([])
})

test('a run that the gateway says is lost is no violation where the broker may lose, and is one where it may not', () => {
  const lost = { run: RUN, status: 'failed' as const, answers: ['one', 'lost'], shown: {}, roots: [], lost: true, errors: ['lost'] }
  const change = { runs: [lost], tasks: [], executions: [] }
  expect(broken({ ...change, mayLose: true })).toEqual([])
  expect(broken(change)).toEqual(['I1', 'I2'])
  expect(broken({ ...change, mayLose: true, runs: [{ ...lost, lost: false }] })).toEqual(['I1', 'I2'])
})

test('a task is dead for a reason: each of three agents died in an execution of it', () => {
  const died = [1, 2, 3].map((attempt) => execution('a', attempt, { end: null, outcome: null, acked: null }))
  const faults = [{ kind: 'kill', target: 'work.1', at: 1_500, until: 3_500, missed: false }]
  const change = {
    faults,
    submitted: [{ run: RUN, acked: true, tasks: 2, ends: ['completed', 'dead'] as const, cancel: null }],
    runs: [{ run: RUN, status: 'dead' as const, answers: ['one'], shown: {}, roots: [], lost: false, errors: [] }],
    tasks: [task('a', { status: 'dead', attempts: 3, result: null }), task('b')],
  }
  expect(broken({ ...change, executions: [...died, execution('b')] })).toEqual([])
  const healthy = { ...change, faults: [{ ...faults[0], kind: 'kill', target: 'work.9', at: 1_500, until: 3_500, missed: false }] }
  expect(broken({ ...healthy, executions: [execution('a', 1), ...died.slice(1), execution('b')] })).toContain('I5')
})
