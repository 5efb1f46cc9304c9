import { expect, test } from 'vitest'
import { plain } from '../../../engine/cli/io.ts'
import { progressLine } from '../../../engine/cli/progress.ts'
import { namesOf, renderPs } from '../../../engine/cli/views/ps.ts'
import { logRenderer } from '../../../engine/cli/views/logs.ts'
import { renderRun, renderRuns, renderTask } from '../../../engine/cli/views/work.ts'
import type { PsContainer } from '../../../engine/progress.ts'

const container = (over: Partial<PsContainer>): PsContainer => ({
  name: 'demo-coder-1',
  kind: 'agent',
  agent: 'coder',
  service: null,
  replica: 1,
  status: 'running',
  health: null,
  ready: true,
  exit_code: null,
  image: 'agentctl/agent:1',
  started_at: null,
  tasks: 2,
  ...over,
})

test('ps is a table', () => {
  const view = {
    project: 'demo',
    status: 'partial',
    containers: [
      container({}),
      container({ name: 'demo-coder-2', status: 'exited', exit_code: 137, ready: false, tasks: 0 }),
      container({ name: 'demo-db-1', kind: 'service', health: 'healthy', tasks: null, image: 'db' }),
    ],
  } as const
  expect(renderPs(view)).toBe(
    [
      'NAME          KIND     STATUS             READY  TASKS  IMAGE',
      'demo-coder-1  agent    running            yes    2      agentctl/agent:1',
      'demo-coder-2  agent    exited (137)       no     0      agentctl/agent:1',
      'demo-db-1     service  running (healthy)  yes           db',
      'project demo: partial',
    ].join('\n'),
  )
  expect(namesOf(view)).toBe('demo-coder-1\ndemo-coder-2\ndemo-db-1')
})

test('progress lines name what was done, to what, how long it took', () => {
  const step = {
    kind: 'step',
    id: 1,
    total: 2,
    op: 'start-container',
    target: 'container:demo-coder-1',
    cause: 'x',
    state: 'done',
    ms: 421,
  } as const
  expect(progressLine(step, plain)).toBe(' ✔ container demo-coder-1  started  0.4s')
  expect(progressLine({ ...step, state: 'failed', message: 'port in use' }, plain)).toBe(
    ' ✘ container demo-coder-1  failed to start: port in use  0.4s',
  )
  expect(progressLine({ ...step, state: 'start' }, plain)).toBeNull()
  expect(progressLine({ kind: 'note', message: 'building' }, plain)).toBe('building')
})

test('a task shows its result, blocks for text of several lines', () => {
  const view = {
    id: 'run_1.task.0',
    agent: 'coder',
    type: 'task',
    status: 'completed',
    attempts: 2,
    error: null,
    trace_id: null,
    result: { exit_code: 0, stdout: 'a\nb\n', list: [1, { x: true }], none: null },
  } as const
  expect(renderTask(view, plain)).toBe(
    '✔ completed run_1.task.0  coder  2 attempts\nexit_code: 0\nstdout:\n  a\n  b\nlist:\n  - 1\n  - x: true\nnone: null\n',
  )
})

test('escape sequences of an agent do not reach the terminal', () => {
  const view = {
    id: 't',
    agent: 'a',
    type: 'task',
    status: 'failed',
    attempts: 1,
    error: { code: 'x', message: 'bad \u001b]0;title\u0007' },
    trace_id: null,
    result: null,
  } as const
  expect(renderTask(view, plain)).toBe('✘ failed t  a\nerror x: bad �]0;title�\n')
  const line = {
    container: 'demo-a-1',
    agent: 'a',
    service: null,
    replica: 1,
    stream: 'stdout',
    time: null,
    line: '\u001b[31mred\u001b[0m \u001b[2J',
  } as const
  expect(logRenderer({ prefix: true, timestamps: false })(line, plain)).toBe('a-1  | \u001b[31mred\u001b[0m �[2J\n')
})

test('a run shows its jobs, errors and result', () => {
  const view = {
    run: 'run_1',
    pipeline: 'audit',
    status: 'failed',
    inputs: {},
    result: null,
    trace_id: 'abc',
    jobs: [
      { id: 'scan', agent: 'scanner', status: 'completed', attempts: 1, result: 1, error: null },
      { id: 'report', agent: 'reporter', status: 'failed', attempts: 3, result: null, error: { code: 'boom', message: 'no disk' } },
    ],
  } as const
  expect(renderRun(view, plain)).toBe(
    '✘ failed run_1  audit\n  JOB     AGENT     STATUS     ATTEMPTS\n  scan    scanner   completed  1\n  report  reporter  failed     3\n  report: error boom: no disk\ntrace abc\n',
  )
  expect(renderRuns({ runs: [] })).toBe('no runs')
})

test('log lines line up under the widest name so far', () => {
  const render = logRenderer({ prefix: true, timestamps: true })
  const line = {
    container: 'c',
    agent: 'coder',
    service: null,
    replica: 2,
    stream: 'stdout',
    time: '2026-01-01T00:00:00Z',
    line: 'hi',
  } as const
  expect(render(line, plain)).toBe('coder-2  | 2026-01-01T00:00:00Z hi\n')
  expect(render({ ...line, agent: null, container: 'demo-agentctl-gateway-1' }, plain)).toBe(
    'agentctl-gateway  | 2026-01-01T00:00:00Z hi\n',
  )
})
