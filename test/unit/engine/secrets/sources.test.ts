/** On real files and real programs: where values come from, and what is said when there is none. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readSources, type Values } from '../../../../engine/secrets/sources.ts'
import { load } from '../../../../spec/load.ts'

let folder = ''
let notes: string[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sources-'))
  notes = []
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const file = (path: string, content: string, mode = 0o644): void => {
  writeFileSync(join(folder, path), content)
  chmodSync(join(folder, path), mode)
}
const program = (path: string, body: string): void => file(path, `#!/bin/sh\n${body}\n`, 0o755)

async function read(text: string, environment: { [name: string]: string } = {}, signal = new AbortController().signal): Promise<Values> {
  const path = join(folder, 'agents.yaml')
  const { project, diagnostics, places } = load({ files: [path], readFile: () => text, environment, projectName: 'p' })
  if (project === null) throw new Error(diagnostics.map((it) => it.message).join('\n'))
  const all = { PATH: `${folder}:${process.env['PATH']}`, ...environment }
  return await readSources(project, { environment: all, places, signal, note: (message) => void notes.push(message) })
}
const shown = ({ values }: Values): unknown =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Buffer.from(value, 'base64').toString()]))
const problems = ({ diagnostics }: Values): readonly string[] =>
  diagnostics.map((it) => `${it.code} ${it.place?.line}:${it.place?.column} ${it.message.replaceAll(folder, 'DIR')}`)

test('values of the secrets in use, from each source, and no other', async () => {
  file('key', 'from a file\n')
  program('vault', 'echo "drei for $*"; echo')
  const found = await read(
    `agents:
  a: { secrets: [one, two, three] }
secrets:
  one: { file: ./key }
  two: { environment: TWO }
  three: { command: [vault, kv, "a b", $$HOME] }
  unused: { file: ./there-is-none }
  never: { command: [./touches] }
`,
    { TWO: 'zwei' },
  )
  expect(found.diagnostics).toEqual([])
  // No shell: words are what they are. One line break goes, the other is the value's.
  expect(shown(found)).toEqual({ one: 'from a file\n', two: 'zwei', three: 'drei for kv a b $HOME\n' })
  expect(notes).toEqual([`secret three comes from ${folder}/vault`])
})

test('a missing file, a variable that is not set, a file that is too large; each at its place, all at once', async () => {
  file('large', 'x'.repeat(512_001))
  const found = await read(`agents:
  a: { secrets: [gone, unset, large, folder] }
secrets:
  gone: { file: ./gone }
  unset: { environment: UNSET_HERE }
  large: { file: ./large }
  folder: { file: . }
`)
  expect(problems(found)).toEqual([
    'AG3003 4:3 the file of secret "gone" cannot be read: there is no such file',
    'AG3003 5:3 secret "unset" reads the environment variable UNSET_HERE, which is not set',
    'AG3003 6:3 the file of secret "large" has 512001 bytes, at most 512000 are allowed',
    'AG3003 7:3 the file of secret "folder" cannot be read: it is a folder',
  ])
  expect(found.diagnostics[0]?.help).toContain(`${folder}/gone`)
  expect(found.values).toEqual({})
})

test('a command that fails is named with its exit code; what it printed is shown nowhere', async () => {
  program('leaks', 'echo hunter2-out; echo hunter2-err >&2; exit 7')
  program('dies', 'kill -9 $$')
  program('silent', 'exit 0')
  file('plain', 'no program', 0o644)
  const found = await read(`agents:
  a: { secrets: [leaks, dies, silent, gone, plain, path] }
secrets:
  leaks: { command: [leaks], pass_env: [OP_TOKEN, HOME] }
  dies: { command: [./dies] }
  silent: { command: [./silent] }
  gone: { command: [there-is-none] }
  plain: { command: [./plain] }
  path: { command: [/there/is/none] }
`)
  expect(problems(found)).toEqual([
    'AG3003 4:3 the command of secret "leaks": leaks (DIR/leaks) exited with 7',
    'AG3003 5:3 the command of secret "dies": DIR/dies was ended by SIGKILL',
    'AG3003 6:3 the command of secret "silent": DIR/silent printed nothing',
    'AG3003 7:3 the command of secret "gone": there is no program "there-is-none" on PATH',
    'AG3003 8:3 the command of secret "plain": DIR/plain is no program that you may run',
    'AG3003 9:3 the command of secret "path": /there/is/none is no program that you may run',
  ])
  expect(found.diagnostics[0]?.help).toBe(`Run it by hand in ${folder} to see what it says. Not set: OP_TOKEN, HOME.`)
  expect(JSON.stringify(found)).not.toContain('hunter2')
})

test('a command gets PATH, HOME, USER and what pass_env names, an empty stdin, its folder, and nothing else', async () => {
  program('shows', 'cat >stdin; env | cut -d= -f1 | grep -v "^_$" | sort | tr "\\n" " "; pwd')
  const found = await read(
    `agents: { a: { secrets: [all] } }
secrets: { all: { command: [./shows], pass_env: [OP_TOKEN, NOT_SET], working_dir: . } }
`,
    { HOME: '/home/user', USER: 'user', OP_TOKEN: 'x', OTHER_SECRET: 'y' },
  )
  expect(found.diagnostics).toEqual([])
  expect(shown(found)).toEqual({ all: expect.stringMatching(new RegExp(`^HOME OP_TOKEN PATH PWD USER ${folder}$`)) })
  expect(readFileSync(join(folder, 'stdin'), 'utf8')).toBe('')
})

test('a command that takes too long, or prints too much, is ended with all that it has started', async () => {
  program('slow', 'sleep 60 & echo $! >child; echo half; wait')
  program('large', 'yes secret-part | head -c 100000; sleep 60')
  const begin = Date.now()
  const found = await read(`agents: { a: { secrets: [slow, large] } }
secrets:
  slow: { command: [./slow], timeout: 300ms }
  large: { command: [./large], max_size: 1k }
`)
  expect(problems(found)).toEqual([
    'AG3003 3:3 the command of secret "slow": DIR/slow has not ended within 0.3 s',
    'AG3003 4:3 the command of secret "large": DIR/large printed more than 1024 bytes',
  ])
  expect(Date.now() - begin).toBeLessThan(10_000)
  const child = Number(readFileSync(join(folder, 'child'), 'utf8'))
  // Ended; where nobody reaps orphans it is still listed.
  const state = (): string =>
    existsSync(`/proc/${child}/stat`) ? (readFileSync(`/proc/${child}/stat`, 'utf8').split(' ')[2] ?? '') : 'gone'
  await expect.poll(state).toMatch(/^(gone|Z|X)$/)
})

test('an interrupt ends a command', async () => {
  program('slow', 'sleep 60')
  const found = await read('agents: { a: { secrets: [s] } }\nsecrets: { s: { command: [./slow] } }\n', {}, AbortSignal.timeout(100))
  expect(problems(found)).toEqual(['AG3003 2:12 the command of secret "s": DIR/slow was interrupted'])
})

test('a program is looked for in absolute folders of PATH alone', async () => {
  program('tool', 'echo local')
  const found = await read('agents: { a: { secrets: [s] } }\nsecrets: { s: { command: [tool] } }\n', { PATH: ':.:/nowhere' })
  expect(problems(found)).toEqual(['AG3003 2:12 the command of secret "s": there is no program "tool" on PATH'])
})

test('the value of a secret in what inspect would show is refused, with the way; words and short values may stand there', async () => {
  const environment = { KEY: 'c0rrect-horse', WORD: 'postgres', PIN: '1234567', GIVEN: 'another/value 1' }
  const found = await read(
    `agents:
  a:
    secrets: [key, { source: given, target: own }]
    environment: { URL: "https://\${KEY}@example.com", USER: postgres, N: "1234567" }
    labels: { note: "x \${GIVEN}" }
    healthcheck: { test: ["CMD", "curl", "-u", "a:b:${encodeURIComponent('another/value 1')}"] }
services:
  s: { image: i, secrets: [word, pin], command: ["--password", "\${KEY}"], environment: ["AUTH=${Buffer.from('me:c0rrect-horse').toString('base64')}"] }
secrets:
  key: { environment: KEY }
  word: { environment: WORD }
  pin: { environment: PIN }
  given: { environment: GIVEN }
`,
    environment,
  )
  expect(problems(found)).toEqual([
    expect.stringMatching(/^AG3010 4:20 the variable URL of agent "a" holds the value of secret "key"/),
    expect.stringMatching(/^AG3010 5:15 the label "note" of agent "a" holds the value of secret "given"/),
    expect.stringMatching(/^AG3010 6:5 the healthcheck of agent "a" holds the value of secret "given"/),
    expect.stringMatching(/^AG3010 8:\d+ the variable AUTH of service "s" holds the value of secret "key"/),
    expect.stringMatching(/^AG3010 8:\d+ the command of service "s" holds the value of secret "key"/),
  ])
  expect(found.diagnostics.map((it) => it.help)).toEqual([
    'Take it out and read /run/secrets/key in the container instead.',
    'Take it out and read /run/secrets/own in the container instead.',
    'Take it out and read /run/secrets/own in the container instead.',
    'Take it out and read /run/secrets/key in the container instead; give it with `secrets: [key]`.',
    'Take it out and read /run/secrets/key in the container instead; give it with `secrets: [key]`.',
  ])
  expect(JSON.stringify(found.diagnostics)).not.toContain('c0rrect')
})
