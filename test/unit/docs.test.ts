/** What the docs say is there is there: links, project files, and the pages that are generated. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadText, problems } from './spec/loading.ts'

const ROOT = join(import.meta.dirname, '../..')
const PAGES: readonly string[] = [
  'README.md',
  'compose/README.md',
  'examples/README.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
  ...readdirSync(join(ROOT, 'examples'))
    .map((name) => `examples/${name}/README.md`)
    .filter((path) => existsSync(join(ROOT, path))),
]
const textOf = (page: string): string => readFileSync(join(ROOT, page), 'utf8')
const withoutCode = (text: string): string => text.replaceAll(/^```[\s\S]*?^```$/gm, '').replaceAll(/`[^`\n]*`/g, '')

/** GitHub's anchors: lower case, punctuation out, spaces to dashes. */
const anchors = (text: string): readonly string[] =>
  [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )

describe.each(PAGES)('%s', (page) => {
  const text = textOf(page)

  test('each relative link leads somewhere', () => {
    const links = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link).filter((link) => !/^[a-z]+:/.test(link))
    for (const link of links) {
      const [path = '', anchor] = link.split('#')
      const file = path === '' ? page : join(dirname(page), path)
      expect(existsSync(join(ROOT, file)), link).toBe(true)
      if (anchor !== undefined) expect(anchors(textOf(file)), link).toContain(anchor)
    }
  })

  test('each file of the sources that it names exists', () => {
    const named = [...text.matchAll(/`((?:spec|engine|agents|examples|compose|test|bench|docs|\.ci)\/[\w./-]+\.\w+)`/g)].map(
      ([, path = '']) => path,
    )
    for (const path of named) expect(existsSync(join(ROOT, path)), path).toBe(true)
  })

  test('each project file in it loads without a problem', () => {
    for (const [, block = ''] of text.matchAll(/^```yaml agents\.yaml\n([\s\S]*?)^```$/gm))
      expect(problems(loadText(block)), block).toEqual([])
  })

  test('names no machine and no registry host', () => {
    expect(text).not.toMatch(/(?<!\w)\/(?:work|home|root)\/|\bghcr\.io|registry\.npmjs\.org|index\.docker\.io/)
  })
})

test('each test that a claim of a table names exists', () => {
  const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.test.ts'))
  const tests = files.map((path) => readFileSync(join(ROOT, 'test', path), 'utf8')).join('\n')
  const rows = ['README.md', 'docs/security.md'].flatMap((page) => textOf(page).match(/^\|.*\|$/gm) ?? [])
  const named = rows.flatMap((row) => [...row.matchAll(/(?<!\*)\*([a-z][^*]+)\*(?!\*)/g)].map(([, name = '']) => name.replace(/ ?…$/, '')))
  expect(named.length).toBeGreaterThan(20)
  for (const name of named) expect(tests.includes(`test('${name}`) || tests.includes(`test("${name}`), name).toBe(true)
})

test('docs/file.md and docs/errors.md are what the schema and the codes say', () => {
  execFileSync(process.execPath, ['.ci/docs.mjs', '--check'], { cwd: ROOT })
})
