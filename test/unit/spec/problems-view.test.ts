import { expect, test } from 'vitest'
import { excerpt, printable, width } from '../../../engine/cli/views/excerpt.ts'
import { problemsView, renderProblems } from '../../../engine/cli/views/problems.ts'
import { loadText } from './loading.ts'

const BAD = 'agents:\n  a: { nope: 1, uses: [x] }\n'

test('the JSON view is that of the contract, with paths relative to the working folder', () => {
  expect(problemsView(loadText(BAD).diagnostics, '/home/user')).toEqual({
    diagnostics: [
      {
        code: 'AG1004',
        severity: 'error',
        message: 'unknown key "nope" in agent "a"',
        file: 'demo/agents.yaml',
        line: 2,
        column: 8,
        end_line: 2,
        end_column: 12,
        help: expect.any(String),
        notes: [],
      },
      {
        code: 'AG2001',
        severity: 'error',
        message: 'agent "a" uses "x", which is not declared',
        file: 'demo/agents.yaml',
        line: 2,
        column: 24,
        end_line: 2,
        end_column: 25,
        help: 'no services are declared',
        notes: [],
      },
    ],
  })
})

test('without a terminal each problem starts with its place, and there is no colour', () => {
  const { diagnostics, sources } = loadText(BAD)
  const text = renderProblems(problemsView(diagnostics, '/home/user/demo'), sources, { color: false, tty: false, cwd: '/home/user/demo' })
  expect(text.split('\n')[0]).toBe('agents.yaml:2:8: error AG1004: unknown key "nope" in agent "a"')
  expect(text).not.toContain('\x1b')
  expect(text).toContain('2 errors\n')
})

test('colour wraps, it does not change the text', () => {
  const { diagnostics, sources } = loadText(BAD)
  const render = (color: boolean): string => renderProblems(problemsView(diagnostics), sources, { color, tty: true })
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are escape sequences
  expect(render(true).replaceAll(/\x1b\[[0-9;]*m/g, '')).toBe(render(false))
  expect(render(true)).not.toBe(render(false))
})

test('nothing to say is an empty text', () => {
  expect(renderProblems({ diagnostics: [] }, new Map(), { color: false, tty: false })).toBe('')
})

test('the caret stands under what is meant, in columns of a terminal', () => {
  const shown = excerpt('\tkey: "日本" bad', 12, 15)
  expect(shown).toEqual({ text: '  key: "日本" bad', caret: `${' '.repeat(14)}~~~`, trimmed: false })
  expect(width('e\u0301')).toBe(1)
  expect(width('👩‍💻')).toBe(2)
})

test('a long line is trimmed around the caret', () => {
  const shown = excerpt(`${'a'.repeat(500)}HERE${'b'.repeat(500)}`, 501, 505)
  expect(shown.text.length).toBeLessThanOrEqual(101)
  expect(shown.text.indexOf('HERE')).toBe(shown.caret.indexOf('~'))
})

test('what a terminal would act on is shown, not sent', () => {
  expect(printable('\x1b[31m\x07\u202e')).toBe('\\x1b[31m\\x07\\x202e')
})
