import { expect, test } from 'vitest'
import { InputError, parseExecInput, parseTimeout } from '../../../agents/exec-input.ts'
import { commandEnv, commandResult, execHandler } from '../../../agents/exec.ts'
import type { Outcome } from '../../../agents/messages.ts'
import { Tail } from '../../../agents/tail.ts'
import { type Json, MAX_PAYLOAD_BYTES } from '../../../spec/protocol.ts'

const WORKSPACE = import.meta.dirname

const problem = (input: Json): string => {
  try {
    parseExecInput(input, WORKSPACE)
  } catch (error) {
    if (error instanceof InputError) return error.message
    throw error
  }
  return 'none'
}

function run(input: Json): { readonly ended: Promise<Outcome>; readonly abort: (reason: string) => void } {
  let abort: (reason: string) => void = () => {}
  const ended = new Promise<Outcome>((resolve) => {
    const leased = { lease: 'l', id: 't', run: 'r', agent: 'a', type: 'task', input, attempt: 1, deadline: null, traceparent: null }
    const execution = execHandler(WORKSPACE, () => {}).start({ n: 1, leased, trace: null, done: resolve })
    abort = (reason) => execution.abort(reason)
  })
  return { ended, abort }
}
const result = async (input: Json): Promise<Record<string, Json>> => {
  const outcome = await run(input).ended
  if (!outcome.ok) throw new Error(`${outcome.error.code}: ${outcome.error.message}`)
  return JSON.parse(outcome.json)
}
const failure = async (input: Json): Promise<string> => {
  const outcome = await run(input).ended
  return outcome.ok ? outcome.json : `${outcome.error.code}: ${outcome.error.message}`
}

test('a bad input is named with what was expected', () => {
  expect(problem('ls')).toBe('expected an input like {"command": "ls -l"}, got "ls" (string)')
  expect(problem({})).toBe('command: it is required, a string (for the shell) or a list of strings')
  expect(problem({ command: [] })).toBe('command: expected a string or a list of strings with a program first, got [] (list)')
  expect(problem({ command: ['ls', 1] })).toMatch(/^command: expected/)
  expect(problem({ command: 'ls', timout: 1 })).toBe('unknown key "timout"; an exec task has command, cwd, env, stdin, timeout, check')
  expect(problem({ command: 'ls', env: { A: [] } })).toBe('env.A: expected a string, got [] (list)')
  expect(problem({ command: 'ls', timeout: 'soon' })).toBe('timeout: expected seconds or a duration like "10s", got "soon" (string)')
  expect(problem({ command: 'ls', timeout: 0 })).toMatch(/^timeout: expected/)
  expect(problem({ command: 'ls', check: 'yes' })).toBe('check: expected true or false, got "yes" (string)')
  expect(problem({ type: 'exec', command: 'pwd' })).toBe('none')
})

test('timeouts are seconds or durations', () => {
  expect([0.5, 10, '10s', '500ms', '1m30s', '2h'].map(parseTimeout)).toEqual([500, 10_000, 10_000, 500, 90_000, 7_200_000])
})

test('a string goes through the shell, a list does not', async () => {
  expect(await result({ command: 'echo $((1 + 2)); echo no >&2; exit 3' })).toEqual({
    exit_code: 3,
    stdout: '3\n',
    stderr: 'no\n',
    truncated: false,
  })
  expect(await result({ command: ['printf', '%s', '$HOME;'] })).toEqual({ exit_code: 0, stdout: '$HOME;', stderr: '', truncated: false })
})

test('stdin, env and cwd reach the command; our own variables do not', async () => {
  expect(await result({ command: 'cat', stdin: 'grüß\n' })).toMatchObject({ stdout: 'grüß\n' })
  expect(await result({ command: 'cat' })).toMatchObject({ stdout: '' })
  expect(await result({ command: 'echo $A; pwd', env: { A: 'x y' }, cwd: '/' })).toMatchObject({ stdout: 'x y\n/\n' })
  expect(await result({ command: 'pwd' })).toMatchObject({ stdout: `${WORKSPACE}\n` })
  expect(commandEnv({ PATH: '/bin', AGENTCTL_GATEWAY: 'x', AGENTCTL_TOKEN_FILE: 'y' }, { B: '1' })).toEqual({ PATH: '/bin', B: '1' })
})

test('a command that does not read its stdin still completes', async () => {
  expect(await result({ command: 'exit 0', stdin: 'x'.repeat(60_000) })).toMatchObject({ exit_code: 0 })
})

test('check makes a non-zero exit a failure with the last line of stderr', async () => {
  expect(await failure({ command: 'echo one >&2; echo two >&2; exit 4', check: true })).toBe('exit_code: the command exited with 4: two')
  expect(await result({ command: 'true', check: true })).toMatchObject({ exit_code: 0 })
})

test('a command killed by a signal has the exit code of a shell', async () => {
  expect(await result({ command: 'kill -9 $$' })).toMatchObject({ exit_code: 137 })
})

test('what cannot start says why', async () => {
  expect(await failure({ command: ['no-such-program'] })).toBe('spawn_failed: the program "no-such-program" was not found in the agent')
  expect(await failure({ command: ['/etc/passwd'] })).toBe(
    'spawn_failed: the program "/etc/passwd" may not be executed by the agent\'s user',
  )
  expect(await failure({ command: 'ls', cwd: '/no/such' })).toBe('bad_input: cwd: there is no directory "/no/such" in the agent')
  expect(await failure({ command: 'ls', cwd: '/etc/hostname' })).toBe('bad_input: cwd: "/etc/hostname" is not a directory')
})

test('a timeout ends the whole group and fails the task', async () => {
  const outcome = await run({ command: 'sleep 300 & sleep 300', timeout: 0.1 }).ended
  expect(outcome).toEqual({ ok: false, error: { code: 'timeout', message: 'the command did not end within 0.1 s', retryable: false } })
})

test('a stopped command may clean up before it ends', async () => {
  const marker = `/tmp/agentctl-term-${process.pid}`
  const { ended, abort } = run({ command: `trap 'echo done > ${marker}; exit 0' TERM; sleep 300 & wait` })
  setTimeout(() => abort('cancelled'), 200)
  expect(await ended).toMatchObject({ ok: false, error: { code: 'cancelled' } })
  const { readFileSync, rmSync } = await import('node:fs')
  expect(readFileSync(marker, 'utf8')).toBe('done\n')
  rmSync(marker)
})

test('background processes end with the command and do not hold it up', async () => {
  const started = Date.now()
  const { stdout } = await result({ command: 'sleep 300 & echo $!' })
  expect(Date.now() - started).toBeLessThan(5_000)
  expect(
    await result({
      command: `sleep 0.3; kill -0 ${String(stdout).trim()} 2>/dev/null && grep -q '^State:.[^ZX]' /proc/${String(stdout).trim()}/status; echo $?`,
    }),
  ).not.toMatchObject({ stdout: '0\n' })
})

test('the last 16 KiB of each stream are kept, cut between characters', async () => {
  const { stdout, stderr, truncated } = await result({ command: 'yes 0123456789 | head -n 100000; echo end; echo short >&2' })
  expect([String(stdout).length, String(stdout).endsWith('0123456789\nend\n'), stderr, truncated]).toEqual([16_384, true, 'short\n', true])
  const tail = new Tail(5)
  for (const part of ['aé', 'é', 'éb']) tail.push(Buffer.from(part))
  expect([tail.text(), tail.truncated]).toEqual(['ééb', true])
  const cut = new Tail(4)
  cut.push(Buffer.from('ééb'))
  expect(cut.text()).toBe('éb')
})

test('output that escapes to more than a result may hold is cut further', () => {
  const noise = new Tail()
  noise.push(Buffer.alloc(20_000))
  const json = commandResult(0, noise, noise)
  expect(Buffer.byteLength(json)).toBeLessThanOrEqual(MAX_PAYLOAD_BYTES)
  expect(JSON.parse(json)).toMatchObject({ truncated: true })
})
