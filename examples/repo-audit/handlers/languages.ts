/** Which language a file is written in, by name, extension or `#!` line. */

/** How branches look; `null`: the complexity measure does not apply. */
export type Family = 'c' | 'python' | 'shell' | 'ruby' | 'lisp' | 'sql'

const NAMES: Readonly<Record<string, readonly string[]>> = {
  Assembly: ['asm', 's'],
  Batch: ['bat', 'cmd'],
  C: ['c'],
  'C header': ['h'],
  'C#': ['cs'],
  'C++': ['cc', 'cpp', 'cxx', 'hh', 'hpp', 'hxx'],
  CSS: ['css'],
  CSV: ['csv', 'tsv'],
  Clojure: ['clj', 'cljs', 'edn'],
  Dart: ['dart'],
  Diff: ['diff', 'patch'],
  Elixir: ['ex', 'exs'],
  Erlang: ['erl', 'hrl'],
  'F#': ['fs', 'fsx'],
  Go: ['go'],
  GraphQL: ['graphql', 'gql'],
  HTML: ['html', 'htm', 'xhtml'],
  Haskell: ['hs'],
  INI: ['ini', 'cfg', 'conf', 'properties', 'env'],
  JSON: ['json', 'json5', 'jsonc', 'webmanifest'],
  'JSON Lines': ['jsonl', 'ndjson'],
  Java: ['java'],
  JavaScript: ['js', 'mjs', 'cjs', 'jsx'],
  Julia: ['jl'],
  Kotlin: ['kt', 'kts'],
  Less: ['less'],
  Lisp: ['el', 'lisp', 'scm'],
  Lua: ['lua'],
  Markdown: ['md', 'mdx', 'markdown'],
  Nix: ['nix'],
  'Objective-C': ['m', 'mm'],
  PHP: ['php'],
  Perl: ['pl', 'pm'],
  PowerShell: ['ps1', 'psm1'],
  'Protocol Buffers': ['proto'],
  Python: ['py', 'pyi'],
  R: ['r'],
  Ruby: ['rb', 'gemspec'],
  Rust: ['rs'],
  SQL: ['sql'],
  SVG: ['svg'],
  Sass: ['scss', 'sass'],
  Scala: ['scala'],
  Shell: ['sh', 'bash', 'zsh'],
  'Source map': ['map'],
  Svelte: ['svelte'],
  Swift: ['swift'],
  TOML: ['toml'],
  Terraform: ['tf'],
  Text: ['txt', 'rst'],
  TypeScript: ['ts', 'mts', 'cts', 'tsx'],
  Vue: ['vue'],
  'WebAssembly text': ['wat'],
  XML: ['xml', 'xsd', 'xsl'],
  YAML: ['yaml', 'yml'],
  Zig: ['zig'],
}
const BY_EXTENSION: ReadonlyMap<string, string> = new Map(
  Object.entries(NAMES).flatMap(([language, list]) => list.map((extension) => [extension, language] as const)),
)
const BY_NAME: ReadonlyMap<string, string> = new Map([
  ['dockerfile', 'Dockerfile'],
  ['containerfile', 'Dockerfile'],
  ['makefile', 'Makefile'],
  ['gnumakefile', 'Makefile'],
  ['cmakelists.txt', 'CMake'],
  ['gemfile', 'Ruby'],
  ['rakefile', 'Ruby'],
  ['.npmrc', 'INI'],
  ['.editorconfig', 'INI'],
  ['.gitconfig', 'INI'],
  ['.env', 'INI'],
  ['.bashrc', 'Shell'],
  ['.profile', 'Shell'],
])
const BY_INTERPRETER: readonly (readonly [RegExp, string])[] = [
  [/\b(?:ba|da|z|k)?sh\b/, 'Shell'],
  [/\bpython[\d.]*\b/, 'Python'],
  [/\b(?:node|deno|bun)\b/, 'JavaScript'],
  [/\bruby\b/, 'Ruby'],
  [/\bperl\b/, 'Perl'],
]
const FAMILY: ReadonlyMap<string, Family> = new Map(
  Object.entries({
    c: [
      'C',
      'C header',
      'C#',
      'C++',
      'Dart',
      'Go',
      'Java',
      'JavaScript',
      'Kotlin',
      'Objective-C',
      'PHP',
      'Perl',
      'Rust',
      'Scala',
      'Svelte',
      'Swift',
      'TypeScript',
      'Vue',
      'Zig',
    ],
    python: ['Python'],
    shell: ['Shell', 'PowerShell', 'Batch'],
    ruby: ['Ruby', 'Lua', 'Elixir', 'Julia', 'R'],
    lisp: ['Clojure', 'Lisp'],
    sql: ['SQL'],
  }).flatMap(([family, list]) => list.map((language) => [language, family as Family] as const)),
)

export const BINARY = 'Binary'
export const OTHER = 'Other text'
export const UNREADABLE = 'Unreadable'
/** Every name that a row of the language table can have; the table is bounded by it. */
export const LANGUAGES: readonly string[] = [...new Set([...BY_EXTENSION.values(), ...BY_NAME.values(), BINARY, OTHER, UNREADABLE])].sort()

export function languageOf(path: string, firstLine: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase()
  const named = BY_NAME.get(name) ?? (name.startsWith('dockerfile.') ? 'Dockerfile' : name.startsWith('.env.') ? 'INI' : undefined)
  if (named !== undefined) return named
  const dot = name.lastIndexOf('.')
  const known = dot > 0 ? BY_EXTENSION.get(name.slice(dot + 1)) : undefined
  if (known !== undefined) return known
  if (firstLine.startsWith('#!')) return BY_INTERPRETER.find(([pattern]) => pattern.test(firstLine))?.[1] ?? OTHER
  return OTHER
}

const BRANCHES: Readonly<Record<Family, RegExp>> = {
  // `?.`, `??` (counted once by its own alternative), `?:` of an optional property are no conditional expression.
  c: /\b(?:if|for|while|case|catch|match|guard)\b|&&|\|\||\?\?|\?(?![?.:)\],;>=])/g,
  python: /\b(?:if|elif|for|while|except|case|and|or)\b/g,
  shell: /\b(?:if|elif|elseif|for|foreach|while|until)\b|&&|\|\||;;/gi,
  ruby: /\b(?:if|elsif|elseif|unless|for|while|until|when|rescue|and|or)\b|&&|\|\|/g,
  lisp: /\((?:if|when|unless|cond|case|and|or|loop|for)\b/g,
  sql: /\b(?:case|when|where|having|and|or|if)\b/gi,
}

/** The branches that one line of code may take, counted by their words and signs: comments and strings count too, on purpose simple. */
export function branchPattern(language: string): RegExp | null {
  const family = FAMILY.get(language)
  return family === undefined ? null : BRANCHES[family]
}
