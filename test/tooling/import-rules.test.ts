import { execFile, execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'

interface Row {
  readonly path: string
  readonly imports: readonly string[]
  readonly packages: readonly string[]
  readonly types?: readonly string[]
  readonly speaks?: boolean
}

interface Finding {
  readonly code: string
  readonly filename: string
  readonly labels: readonly { readonly span: { readonly line: number } }[]
}

const TABLE = JSON.parse(readFileSync('.ci/imports.json', 'utf8')) as { modules: Record<string, Row>; free: readonly string[] }
const ROWS = Object.entries(TABLE.modules).map(([name, row]) => ({ name, ...row }))
const PACKAGES = [
  'ajv',
  'bullmq',
  'commander',
  'dockerode',
  'ioredis',
  'yaml',
  '@opentelemetry/api',
  '@opentelemetry/sdk-node',
  '@opentelemetry/sdk-trace',
]

type Planted = { readonly file: string; readonly line: string; readonly isAllowed: boolean }

const isFile = (path: string): boolean => path.endsWith('.ts')
const folderOf = (path: string): string => (isFile(path) ? dirname(path) : path.replace('/*', ''))
const sampleOf = (path: string): string => (isFile(path) ? path : `${folderOf(path)}/sample.ts`)

/** The files of a row at each depth, to plant imports in. */
const seats = (row: Row): string[] =>
  isFile(row.path)
    ? [row.path]
    : (row.path.endsWith('/*') ? [''] : ['', 'a/', 'a/b/']).map((below) => `${row.path.replace('/*', '')}/${below}planted.ts`)

function specifier(from: string, to: string): string {
  const path = relative(dirname(from), to)
  return path.startsWith('.') ? path : `./${path}`
}

/** Every row against every other row, every package and every file that is open by exception. */
function plant(): Planted[] {
  const planted: Planted[] = []
  for (const row of ROWS) {
    for (const file of seats(row)) {
      for (const target of ROWS.filter((other) => other.name !== row.name && !isFile(other.path))) {
        const isWhole = isFile(row.path) && folderOf(row.path) === folderOf(target.path)
        const isAllowed = row.imports.includes(target.name) || isWhole
        planted.push({ file, line: `import '${specifier(file, sampleOf(target.path))}'`, isAllowed })
      }
      for (const open of row.imports.filter(isFile)) planted.push({ file, line: `import '${specifier(file, open)}'`, isAllowed: true })
      for (const folder of TABLE.free) planted.push({ file, line: `import '${specifier(file, `${folder}/sample.ts`)}'`, isAllowed: false })
      for (const name of PACKAGES) planted.push({ file, line: `import '${name}'`, isAllowed: row.packages.includes(name) })
      planted.push({ file, line: "import { AgentError } from '@agentctl/cli/agent'", isAllowed: false })
      planted.push({ file, line: "import type { Context } from '@agentctl/cli/agent'", isAllowed: row.types !== undefined })
      planted.push({ file, line: "console.log('spoken')", isAllowed: row.speaks === true })
      planted.push({ file, line: 'process.exit(1)', isAllowed: row.speaks === true })
    }
  }
  return planted
}

async function lint(files: ReadonlyMap<string, string>, args: readonly string[] = []): Promise<Finding[]> {
  const dir = mkdtempSync(join(tmpdir(), 'agentctl-lint-'))
  try {
    cpSync('.oxlintrc.json', join(dir, '.oxlintrc.json'))
    for (const [file, text] of files) {
      mkdirSync(dirname(join(dir, file)), { recursive: true })
      writeFileSync(join(dir, file), text)
    }
    const stdout = await new Promise<string>((resolve, reject) =>
      execFile(
        process.execPath,
        [join(process.cwd(), 'node_modules/oxlint/bin/oxlint'), '-f', 'json', ...args],
        { cwd: dir, env: TOOLS, maxBuffer: 1 << 26 },
        (error, out) => (out.startsWith('{') ? resolve(out) : reject(new Error(`oxlint: ${out}`, { cause: error }))),
      ),
    )
    return (JSON.parse(stdout) as { diagnostics: Finding[] }).diagnostics
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** oxlint looks for its type-aware half in node_modules, which the temporary folder has not, and on PATH. */
const TOOLS = { ...process.env, PATH: `${join(process.cwd(), 'node_modules/.bin')}:${process.env['PATH'] ?? ''}` }
const CODES = /no-restricted-imports|no-console|no-process-exit/

test('the lint rules are what the table says', () => {
  execFileSync(process.execPath, ['.ci/lint-config.mjs', '--check'])
})

test('each forbidden import is reported, each allowed one is not', async () => {
  const planted = plant()
  const files = new Map<string, string>()
  const place = planted.map((it) => {
    const text = `${files.get(it.file) ?? ''}${it.line}\n`
    files.set(it.file, text)
    return { ...it, number: text.split('\n').length - 1 }
  })
  const findings = await lint(files)
  const reported = new Set(findings.filter((it) => CODES.test(it.code)).map((it) => `${it.filename}:${it.labels[0]?.span.line}`))
  const wrong = place.filter((it) => reported.has(`${it.file}:${it.number}`) === it.isAllowed)
  expect(wrong.map((it) => `${it.file}: ${it.line} should be ${it.isAllowed ? 'allowed' : 'reported'}`)).toEqual([])
  expect(planted.filter((it) => !it.isAllowed).length).toBeGreaterThan(500)
})

// The table could be wrong together with the rules made from it; these are the sentences of docs/architecture.md.
test.each([
  ['spec/a.ts', '../engine/names.ts'],
  ['engine/plan.ts', './runtimes/docker/runtime.ts'],
  ['engine/plan.ts', './cli/main.ts'],
  ['engine/plan.ts', 'dockerode'],
  ['engine/broker/a.ts', '../runtimes/docker/runtime.ts'],
  ['engine/runtimes/docker/a.ts', '../../broker/bullmq.ts'],
  ['engine/runtimes/docker/a.ts', 'ioredis'],
  ['engine/gateway/a.ts', 'bullmq'],
  ['engine/gateway/a.ts', '../runtimes/docker/runtime.ts'],
  ['engine/controller/a.ts', '../broker/bullmq.ts'],
  ['engine/controller/a.ts', '../cli/main.ts'],
  ['engine/a.ts', '../agents/context.ts'],
  ['engine/a.ts', '@opentelemetry/sdk-trace'],
  ['agents/a.ts', '../engine/names.ts'],
  ['agents/a.ts', '../spec/load.ts'],
  ['agents/a.ts', 'ioredis'],
  ['examples/x/a.ts', '../../spec/protocol.ts'],
  ['engine/gateway/a.ts', '../../engine/runtimes/docker/runtime.ts'],
  ['engine/gateway/a.ts', './x/../../broker/bullmq.ts'],
])('%s may not import %s, in any form', async (file, specifierText) => {
  const forms = ["import 'X'", "import { a } from 'X'", "export * from 'X'", "export const b = import('X')"]
  const findings = await lint(
    new Map([[file, `${forms.map((form) => form.replace('X', specifierText)).join('\n')}\nexport const c = a\n`]]),
  )
  expect(findings.filter((it) => it.code.includes('no-restricted-imports')).map((it) => it.labels[0]?.span.line)).toEqual([1, 2, 3, 4])
})

test('cycles and promises that nobody waits for are reported', async () => {
  const files = new Map([
    [
      'tsconfig.json',
      '{ "compilerOptions": { "strict": true, "module": "nodenext", "noEmit": true, "allowImportingTsExtensions": true } }',
    ],
    ['engine/a.ts', "import { b } from './b.ts'\nexport const a = (): number => b()\n"],
    ['engine/b.ts', "import { a } from './a.ts'\nexport const b = (): number => a()\n"],
    ['engine/c.ts', 'const wait = async (): Promise<number> => 1\nexport function c(): void {\n  wait()\n}\n'],
  ])
  const codes = (await lint(files, ['--type-aware'])).map((it) => `${it.filename} ${it.code}`)
  expect(codes).toContain('engine/a.ts import(no-cycle)')
  expect(codes).toContain('engine/c.ts typescript(no-floating-promises)')
})

test('every source file belongs to a row of the table', () => {
  const files = globSync(['spec/**/*.ts', 'engine/**/*.ts', 'agents/**/*.ts', 'examples/**/*.ts'])
  const known = (file: string): boolean =>
    ROWS.some(
      (row) =>
        file === row.path ||
        (dirname(file) === folderOf(row.path) && !isFile(row.path)) ||
        (!row.path.endsWith('/*') && file.startsWith(`${row.path}/`)),
    )
  expect(files.filter((file) => !known(file))).toEqual([])
  expect(files.filter((file) => file.split('/').length > 6)).toEqual([])
})
