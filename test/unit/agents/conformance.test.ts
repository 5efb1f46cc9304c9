import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import {
  type ConformanceOptions,
  type ConformanceReport,
  conformanceTable,
  RULE_IDS,
  runConformance,
} from '../../../agents/conformance/kit.ts'

vi.setConfig({ testTimeout: 180_000 })

const ROOT = join(import.meta.dirname, '../../..')
const play = (command: readonly string[], options: Omit<ConformanceOptions, 'target'>, env: { readonly [name: string]: string } = {}) =>
  runConformance({ target: { command, env }, ...options })
const said = (report: ConformanceReport): string => `${conformanceTable(report)}\n`

const WORDS = { input: { text: 'to be or "not" to be' }, slow: { text: 'a b', seconds: 60 } }

describe('who speaks the protocol', () => {
  test.each([
    ['our runtime', [process.execPath, 'agents/main.ts'], { input: { command: 'echo ok' }, slow: { command: 'sleep 60' } }, true],
    ['examples/shell-agent', ['sh', 'examples/shell-agent/app/agent.sh'], WORDS, false],
    ['examples/python-agent', ['python3', 'examples/python-agent/app/agent.py'], WORDS, false],
    [
      'the agent of these tests',
      [process.execPath, 'test/unit/agents/broken-agent.ts'],
      { input: { text: 'x' }, slow: { slow: true } },
      true,
    ],
  ] as const)('%s keeps all rules', async (_, [program, file], inputs, session) => {
    const report = await play([program, join(ROOT, file)], inputs)
    expect(report, said(report)).toMatchObject({ ok: true, session })
    expect(report.rules.map(({ id, status }) => [id, status])).toEqual(RULE_IDS.map((id) => [id, 'kept']))
  })
})

test('each rule is broken by the agent that breaks it, with a reason', async () => {
  const broken = [process.execPath, join(ROOT, 'test/unit/agents/broken-agent.ts')]
  const results = new Map<string, ConformanceReport>()
  const rest = [...RULE_IDS]
  const worker = async (): Promise<void> => {
    for (let id = rest.shift(); id !== undefined; id = rest.shift())
      results.set(id, await play(broken, { input: { text: 'xü漢' }, slow: { slow: true }, only: [id], patienceMs: 3_000 }, { BREAK: id }))
  }
  await Promise.all([worker(), worker(), worker(), worker()])
  for (const id of RULE_IDS) {
    const report = results.get(id)
    expect(report?.ok, id).toBe(false)
    expect(report?.rules, id).toEqual([expect.objectContaining({ id, status: 'broken', detail: expect.stringMatching(/\w+ \w+/) })])
  }
})

test('rules about long work do not apply where no such input is given; a command that does not exist breaks them all', async () => {
  const broken = [process.execPath, join(ROOT, 'test/unit/agents/broken-agent.ts')]
  const report = await play(broken, { input: { text: 'x' }, only: ['cancel', 'connects'] })
  expect(report.rules.map(({ id, status }) => [id, status])).toEqual([
    ['connects', 'kept'],
    ['cancel', 'not_applicable'],
  ])
  const none = await play(['/no/such/program'], { input: null, only: ['settles_once'], patienceMs: 500 })
  expect(none.rules).toMatchObject([
    { status: 'broken', detail: 'it ended before it made a POST /v1/lease', output: expect.stringContaining('ENOENT') },
  ])
  expect(conformanceTable(none)).toContain('1 of 1 rules are broken')
})
