/** On real files of a temporary folder: what the host lacks is told before anything is made, all at once, each at its place in the file. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { preflight } from '../../../engine/preflight.ts'
import type { Diagnostic } from '../../../spec/diagnostic.ts'
import { seccompProfiles } from '../../../engine/seccomp-files.ts'
import { load } from '../../../spec/load.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'preflight-'))
  chmodSync(folder, 0o755)
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const file = (path: string, content = 'x', mode = 0o644): string => {
  writeFileSync(join(folder, path), content)
  chmodSync(join(folder, path), mode)
  return join(folder, path)
}
const directory = (path: string, mode = 0o755): string => {
  mkdirSync(join(folder, path))
  chmodSync(join(folder, path), mode)
  return join(folder, path)
}

interface Found {
  readonly diagnostics: readonly Diagnostic[]
}

function check(
  text: string,
  { local = true, mountinfo = '' }: { local?: boolean; mountinfo?: string } = {},
): Found & {
  readonly profiles: { readonly [path: string]: string }
} {
  const path = join(folder, 'agents.yaml')
  const { project, diagnostics, places } = load({ files: [path], readFile: () => text, environment: {}, projectName: 'p' })
  if (project === null) throw new Error(diagnostics.map((it) => it.message).join('\n'))
  const seccomp = seccompProfiles(project, places)
  return { diagnostics: [...preflight(project, { places, local, mountinfo }), ...seccomp.diagnostics], profiles: seccomp.profiles }
}
const problems = (found: Found): readonly string[] =>
  found.diagnostics.map((it) => `${it.code} ${it.place?.line}:${it.place?.column} ${it.message.replaceAll(folder, 'DIR')}`)

/** Somebody who is neither the agent nor root; only root can give files away. */
const OTHER = process.getuid?.() === 0 ? 12_345 : (process.getuid?.() ?? 0)
const give = (path: string): void => {
  if (process.getuid?.() === 0) chownSync(path, OTHER, OTHER)
}

test('a bind source that the agent cannot read names both uids and three ways out', () => {
  give(directory('closed', 0o750))
  const { diagnostics } = check(`agents:
  a:
    handler: exec
    volumes: ["./closed:/data:ro"]
`)
  expect(diagnostics).toHaveLength(1)
  expect(diagnostics[0]).toMatchObject({ code: 'AG3002', place: { line: 4 } })
  expect(diagnostics[0]?.message).toBe(
    `bind source of agent "a" ${folder}/closed cannot be read by uid 10001: it belongs to uid ${OTHER}, mode 750`,
  )
  expect(diagnostics[0]?.help).toMatch(new RegExp(`chmod o\\+rx.*user: "${OTHER}".*agentctl cp`))
})

test('an agent with the uid of the owner, or the group, reads it', () => {
  give(directory('closed', 0o750))
  const gid = process.getuid?.() === 0 ? OTHER : (process.getgid?.() ?? 0)
  for (const user of [`"${OTHER}"`, `"4242:${gid}"`])
    expect(problems(check(`agents:\n  a: { handler: exec, user: ${user}, volumes: ["./closed:/data"] }\n`))).toEqual([])
})

test.runIf(process.getuid?.() === 0)('what belongs to root is never to be read by an agent that is root', () => {
  directory('closed', 0o700)
  const [found] = check('agents:\n  a: { handler: exec, volumes: ["./closed:/data"] }\n').diagnostics
  expect(found?.message).toContain('by uid 10001: it belongs to uid 0, mode 700')
  expect(found?.help).toBe('Make it readable (`chmod o+rx`), or copy the data into a volume with `agentctl cp`.')
})

test('a handler that misses, one that the agent cannot read, and one in such a folder', () => {
  give(file('closed.ts', '', 0o600))
  directory('closed', 0o755)
  file('closed/handler.ts')
  chmodSync(join(folder, 'closed'), 0o711)
  const found = check(`agents:
  a: { handler: { module: ./gone.ts } }
  b: { handler: { module: ./closed.ts } }
  c: { handler: { module: ./closed/handler.ts } }
`)
  expect(problems(found).map((it) => it.replace(/it belongs to uid \d+, /, ''))).toEqual([
    expect.stringMatching(/^AG3002 2:\d+ handler of agent "a" DIR\/gone.ts: there is no such file$/),
    expect.stringMatching(/^AG3002 3:\d+ handler of agent "b" DIR\/closed.ts cannot be read by uid 10001: mode 600$/),
    expect.stringMatching(/^AG3002 4:\d+ folder of the handler of agent "c" DIR\/closed cannot be read by uid 10001: mode 711$/),
  ])
})

test('a link that leads out to the system of the host is refused as the path itself would be', () => {
  symlinkSync('/etc', join(folder, 'config'))
  symlinkSync('/', join(folder, 'all'))
  symlinkSync('/etc/hosts', join(folder, 'hosts'))
  const found = check(`agents:
  a:
    handler: exec
    volumes:
      - ./config:/a:ro
      - ./all:/b:ro
      - ./hosts:/c:ro
`)
  expect(problems(found)).toEqual([
    expect.stringMatching(
      /^AG3001 5:\d+ bind source of agent "a" DIR\/config leads to \/etc, which must not be given to an agent: \/etc belongs/,
    ),
    expect.stringMatching(
      /^AG3001 6:\d+ bind source of agent "a" DIR\/all leads to \/, which must not be given to an agent: it is the whole/,
    ),
    expect.stringMatching(/^AG3001 7:\d+ bind source of agent "a" DIR\/hosts leads to \/etc\/hosts, which must not .*: it lies in \/etc/),
  ])
})

test('nor through the folder of a module', () => {
  // A folder is not a socket, but its name will do; nothing of ours lies in the host's system.
  symlinkSync(directory('docker.sock'), join(folder, 'app'))
  file('docker.sock/handler.ts')
  const found = check('agents:\n  a: { handler: { module: ./app/handler.ts } }\n')
  expect(problems(found)).toEqual([
    expect.stringMatching(/^AG3001 2:\d+ folder of the handler of agent "a" DIR\/app leads to DIR\/docker.sock, which must not be given/),
  ])
})

test("files of another machine, the engine's, are not looked at", () => {
  const found = check(
    `agents:
  a: { handler: exec, volumes: ["./nothing-here:/data"] }
`,
    { local: false },
  )
  expect(problems(found)).toEqual([])
})

test("a service's bind source must exist, whoever it belongs to", () => {
  give(directory('closed', 0o700))
  expect(problems(check(`services:\n  s: { image: i, volumes: ["./closed:/a", "${homedir()}/no-such-folder-of-agentctl:/b"] }\n`))).toEqual(
    [expect.stringMatching(/^AG3002 2:\d+ bind source of service "s" .*: there is no such file$/)],
  )
})

test('what is mounted below a read-only source would not come along, so it is told', () => {
  directory('data')
  directory('data/inner')
  const mountinfo = `36 35 98:0 / ${folder}/data/inner rw,noatime - ext3 /dev/root rw\n37 35 98:0 / ${folder}/database rw - ext3 /dev/root rw\n`
  const text = (option: string): string => `agents:\n  a: { handler: exec, volumes: ["./data:/data${option}"] }\n`
  expect(problems(check(text(':ro'), { mountinfo }))).toEqual([
    expect.stringMatching(
      /^AG3002 2:\d+ bind source of agent "a" DIR\/data has another file system mounted below it, at DIR\/data\/inner,/,
    ),
  ])
  expect(problems(check(text(''), { mountinfo }))).toEqual([])
})

test('a seccomp profile of the file is read where it lies, wherever the engine is; one that cannot be used is told at its place', () => {
  file('good.json', '{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [] }')
  file('open.json', '{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [] }')
  const text = (path: string): string => `agents:\n  a:\n    security_opt: ["seccomp=${path}"]\n`
  for (const local of [true, false])
    expect(check(text('./good.json'), { local })).toMatchObject({
      diagnostics: [],
      profiles: { [join(folder, 'good.json')]: '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}' },
    })
  expect(problems(check(text('./open.json')))).toEqual([
    'AG3007 3:20 the seccomp profile DIR/open.json allows what it does not name (defaultAction "SCMP_ACT_ALLOW"): that is unconfined',
  ])
  expect(problems(check(text('./gone.json')))).toEqual([
    'AG3007 3:20 the seccomp profile DIR/gone.json cannot be read: there is no such file',
  ])
})
