import { expect, test } from 'vitest'
import { parseMilliseconds } from '../../../engine/cli/arguments.ts'
import { plain } from '../../../engine/cli/io.ts'
import { renderApproval, renderApprovals } from '../../../engine/cli/views/approvals.ts'
import { renderDeadLetter, renderDeadLetters } from '../../../engine/cli/views/dlq.ts'
import { renderExplanations, renderRunExplanation } from '../../../engine/cli/views/explain.ts'
import { durationText, renderArtifacts, renderRun, renderRuns, sizeText } from '../../../engine/cli/views/work.ts'

const AT = '2026-01-01T00:00:00.000Z'
const artifact = { name: 'report.pdf', digest: `sha256:${'a'.repeat(64)}`, size: 1_536, type: 'application/pdf', task: 'run_1.make.0' }

test('a run shows of each job how long it waited and ran, its sizes, and what it stored', () => {
  const job = { agent: 'coder', attempts: 1, result: null, error: null }
  const text = renderRun(
    {
      run: 'run_1',
      pipeline: 'build',
      status: 'running',
      inputs: {},
      result: null,
      trace_id: null,
      retry_of: 'run_0',
      jobs: [
        {
          ...job,
          id: 'make',
          status: 'completed',
          times: {
            created_at: AT,
            started_at: '2026-01-01T00:00:01.500Z',
            ended_at: '2026-01-01T00:03:13.500Z',
            input_bytes: 12,
            result_bytes: 2_048,
          },
        },
        {
          ...job,
          id: 'test',
          status: 'running',
          attempts: 2,
          times: { created_at: AT, started_at: AT, ended_at: null, input_bytes: 0, result_bytes: null },
        },
        { ...job, id: 'ship', status: 'queued', attempts: 0 },
      ],
      artifacts: [artifact],
    },
    plain,
  )
  expect(text).toBe(
    [
      '• running run_1  build  repeats run_0',
      '  JOB   AGENT  STATUS     ATTEMPTS  WAITED  RAN    INPUT  RESULT',
      '  make  coder  completed  1         1.5s    3m12s  12 B   2.0 KiB',
      '  test  coder  running    2         0ms     -      0 B    -',
      '  ship  coder  queued     0         -       -      -      -',
      'artifacts:',
      '  NAME        SIZE     TYPE             TASK    DIGEST',
      `  report.pdf  1.5 KiB  application/pdf  make.0  ${artifact.digest}`,
      '',
    ].join('\n'),
  )
})

test('a list of runs says how to see older ones', () => {
  const runs = [{ run: 'run_2', pipeline: null, status: 'failed', created_at: AT, ended_at: null }] as const
  expect(renderRuns({ runs, next: 'run_2' })).toContain('older ones: agentctl runs ls --before run_2\n')
  expect(renderRuns({ runs, next: null })).not.toContain('older')
})

test('durations and sizes', () => {
  expect([0, 999, 1_500, 61_000, 7_500_000].map(durationText)).toEqual(['0ms', '999ms', '1.5s', '1m01s', '2h05m'])
  expect([0, 1_023, 1_024, 1_048_576, 3 * 2 ** 30].map(sizeText)).toEqual(['0 B', '1023 B', '1.0 KiB', '1.0 MiB', '3.0 GiB'])
  expect(['1', '1.5', '500ms', '90s', '5m', '1h30m', '2d'].map((it) => parseMilliseconds('--x', it))).toEqual([
    1_000, 1_500, 500, 90_000, 300_000, 5_400_000, 172_800_000,
  ])
})

test('reasons are lines below their task', () => {
  const view = {
    id: 'run_1.a.0',
    agent: 'coder',
    status: 'queued',
    reasons: [
      { code: 'slots_busy', message: 'all slots are in use' },
      { code: 'behind', message: '3 task(s) are\u001b[2J before it' },
    ],
  } as const
  expect(renderExplanations([view])).toBe(
    'run_1.a.0  coder  queued\n  slots_busy: all slots are in use\n  behind: 3 task(s) are�[2J before it\n',
  )
  const run = { run: 'run_1', status: 'running', tasks: [{ ...view, reasons: [] }], next: 'run_1.a.0' } as const
  expect(renderRunExplanation(run)).toBe('run_1.a.0  coder  queued\n  nothing holds it back\n… and more of it has not ended\n')
  expect(renderRunExplanation({ ...run, status: 'failed', tasks: [], next: null })).toContain('it has ended')
})

const letter = {
  id: 'run_1.a.0',
  run: 'run_1',
  agent: 'coder',
  type: 'task',
  status: 'dead',
  attempts: 3,
  error: { code: 'agent_died', message: 'its agent died 3 times\nwhile it worked' },
  ended_at: AT,
  trace_id: null,
} as const

test('dead letters are a table, one is all that is known of it', () => {
  expect(renderDeadLetters([])).toBe('no dead letters')
  expect(renderDeadLetters([letter])).toBe(
    `TASK       AGENT  STATUS  ATTEMPTS  ENDED                     ERROR\nrun_1.a.0  coder  dead    3         ${AT}  agent_died: its agent died 3 times\n`,
  )
  const one = renderDeadLetter(
    {
      ...letter,
      input: { command: 'make' },
      history: [
        {
          attempt: 1,
          replica: 'coder.2',
          started_at: AT,
          ended_at: AT,
          error: { code: 'agent_died', message: 'its agent died' },
          log: 'one\ntwo\u0007\n',
        },
      ],
      events: [{ at: AT, task: 'run_1.a.0', agent: 'coder', event: 'queued' }],
    },
    plain,
  )
  expect(one).toContain('✘ dead run_1.a.0  coder  3 execution(s), ended 2026')
  expect(one).toContain('input:\n  command: make\n')
  expect(one).toContain(`  1. coder.2  ${AT} to ${AT}  agent_died: its agent died\n       one\n       two�\n`)
  expect(one).toContain(`events:\n  ${AT} coder a.0 queued\n`)
})

test('approvals: a table of what is asked, and one with its data and the answer', () => {
  const view = {
    id: 'run_1.a.0.ab',
    task: 'run_1.a.0',
    agent: 'coder',
    key: 'go',
    message: `May I?\n${'x'.repeat(100)}`,
    data: { cost: 5 },
    status: 'approved',
    created_at: AT,
    decided_at: AT,
    comment: 'once',
  } as const
  expect(renderApprovals([view])).toBe(
    `ID            AGENT  STATUS    ASKED                     MESSAGE\nrun_1.a.0.ab  coder  approved  ${AT}  May I?\n`,
  )
  expect(renderApproval(view, plain)).toContain('✔ approved run_1.a.0.ab  coder\nMay I?')
  expect(renderApproval(view, plain)).toContain('  cost: 5\ncomment: once\n')
  expect(renderApprovals([])).toBe('no approvals')
  expect(renderArtifacts([])).toBe('')
})
