// Writes .oxlintrc.json from the table of allowed imports; `--check` only says whether the file is up to date.
import { readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { closedTo, families, modules, packages, places, waysTo } from './imports.mjs'

const FILE = new URL('../.oxlintrc.json', import.meta.url)
const SELF = '@agentctl/cli'
const quote = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&').replaceAll('\\/', '/')

const TABLE = 'see .ci/imports.json'

function folderPatterns(module, place) {
  const closed = closedTo(module)
  const whole = closed.filter(({ exceptions }) => exceptions.length === 0)
  const starts = whole.flatMap(({ target }) =>
    waysTo(place, target.folder).map((way) => `${quote(way)}${target.isShallow ? '[^/]+$' : ''}`),
  )
  const parts = closed.filter(({ exceptions }) => exceptions.length > 0)
  return [
    { regex: `^(${starts.join('|')})`, message: `${module.name} may not import this part: ${TABLE}` },
    ...parts.map(({ target, exceptions }) => {
      const ways = waysTo(place, target.folder)
      const open = exceptions.flatMap((file) => ways.map((way) => `!${way}${file.slice(target.folder.length + 1)}`))
      return {
        group: [...ways.map((way) => `${way}**`), ...open],
        message: `${module.name} may import only ${exceptions.join(', ')} of ${target.name}: ${TABLE}`,
      }
    }),
  ]
}

function packagePatterns(module) {
  const message = `${module.name} may not import this package: ${TABLE}`
  const closed = packages.filter((name) => !module.packages.includes(name) && !families.some((family) => name.startsWith(`${family}/`)))
  const open = module.packages.filter((name) => families.some((family) => name.startsWith(`${family}/`)))
  const self = `^${quote(SELF)}(/|$)`
  return [
    { regex: `^(${closed.map(quote).join('|')})(/|$)`, message },
    { group: [...families.map((family) => `${family}/**`), ...open.flatMap((name) => [`!${name}`, `!${name}/**`])], message },
    module.types.length === 0
      ? { regex: self, message }
      : { regex: self, message: `only types come from ${module.types.join(', ')}: use import type`, allowTypeImports: true },
  ]
}

const DETOURS = { regex: '[^./]/\\.\\.?/|^\\./\\.\\.?/', message: 'write the shortest path: the import rules compare paths' }

function overrides() {
  return modules.flatMap((module) => {
    const shared = packagePatterns(module)
    return places(module).map((place) => ({
      files: [place.glob],
      rules: {
        'no-restricted-imports': ['error', { patterns: [...folderPatterns(module, place), ...shared, DETOURS] }],
        'no-console': module.speaks ? 'off' : 'error',
        'unicorn/no-process-exit': module.speaks ? 'off' : 'error',
      },
    }))
  })
}

export function config() {
  return {
    $schema: './node_modules/oxlint/configuration_schema.json',
    plugins: ['typescript', 'unicorn', 'oxc', 'import', 'node', 'vitest'],
    categories: { correctness: 'error' },
    ignorePatterns: ['dist/**', 'test/fixtures/**'],
    rules: {
      'import/no-cycle': 'error',
      'import/no-self-import': 'error',
      'typescript/no-floating-promises': 'error',
      'typescript/no-misused-promises': ['error', { checksVoidReturn: { arguments: false, properties: false } }],
      'typescript/await-thenable': 'error',
      'typescript/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      'typescript/no-explicit-any': 'error',
      'typescript/only-throw-error': 'error',
      'typescript/return-await': ['error', 'error-handling-correctness-only'],
      'typescript/consistent-type-imports': ['error', { disallowTypeAnnotations: true, fixStyle: 'inline-type-imports' }],
      // What types already say, or what a test does on purpose.
      'typescript/restrict-template-expressions': 'off',
      'typescript/unbound-method': 'off',
      'typescript/no-redundant-type-constituents': 'off',
      'typescript/no-misused-spread': 'off',
      'typescript/no-meaningless-void-operator': 'off',
      'typescript/require-array-sort-compare': ['error', { ignoreStringArrays: true }],
      'unicorn/no-thenable': 'off',
      'unicorn/no-new-array': 'off',
      'no-control-regex': 'off',
      'typescript/no-base-to-string': 'off',
      'unicorn/no-useless-spread': 'off',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' }],
      'vitest/expect-expect': 'off',
      'vitest/no-standalone-expect': 'off',
      'vitest/valid-expect': ['error', { maxArgs: 2 }],
      'vitest/require-mock-type-parameters': 'off',
      'vitest/no-conditional-tests': 'off',
      'vitest/no-conditional-expect': 'off',
      'vitest/require-to-throw-message': 'off',
      'vitest/valid-title': 'off',
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'no-else-return': 'off',
    },
    overrides: [
      ...overrides(),
      { files: ['engine/cli/bin.js', '.ci/*.cjs'], rules: { 'no-var': 'off', 'unicorn/prefer-node-protocol': 'off' } },
    ],
  }
}

/** One line for each override: a change of the table is then a change of a few lines. */
export function render(data) {
  const { overrides: rows, ...rest } = data
  const head = JSON.stringify(rest, null, 2).replace(/\n\}$/, '')
  return `${head},\n  "overrides": [\n${rows.map((row) => `    ${JSON.stringify(row)}`).join(',\n')}\n  ]\n}\n`
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const wanted = render(config())
  if (!process.argv.includes('--check')) writeFileSync(FILE, wanted)
  else if (readFileSync(FILE, 'utf8') !== wanted) {
    process.stderr.write('.oxlintrc.json is not what .ci/imports.json says: run npm run lint:config\n')
    process.exitCode = 1
  }
}
