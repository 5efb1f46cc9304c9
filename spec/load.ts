/** Text → checked project. The only place that knows the order of the phases; every problem of the file comes back at once. */
import { posix } from 'node:path'
import { check } from './check.ts'
import type { Section } from './checking.ts'
import type { Diagnostic, Place } from './diagnostic.ts'
import { type Environment, interpolate } from './interpolate.ts'
import type { Project } from './model.ts'
import { normalize } from './normalize.ts'
import { parse } from './parse.ts'
import { collector, type Report } from './problems.ts'
import { refuseStrays } from './references.ts'
import { checkForm } from './schema.ts'
import { makeSource, placeOf, type Source, type Span } from './source.ts'
import { child, type Node, walk } from './tree.ts'

export interface LoadOptions {
  /** Absolute; one for now. */
  readonly files: readonly string[]
  /** Throws what the file system throws: `code` says why. */
  readonly readFile: (path: string) => string
  readonly environment: Environment
  /** -p: wins over `name` and the folder. */
  readonly projectName?: string
  /** Where relative paths start; default: the folder of the file. */
  readonly folder?: string
}

export interface Loaded {
  /** null when there is an error among the diagnostics. */
  readonly project: Project | null
  /** In the order of the file; warnings too. */
  readonly diagnostics: readonly Diagnostic[]
  /** By the `file` of a place: for excerpts. */
  readonly sources: ReadonlyMap<string, Source>
  /** Where things stand, for problems that show later: "agents.x", "agents.x.mounts.0", "agents.x.handler", "secrets.serp", "services.y.ports.1". */
  readonly places: ReadonlyMap<string, Place>
  /** Variables that the file mentions. */
  readonly variables: readonly string[]
}

/** Hand-written files are a few KB. */
const MAX_FILE_CHARACTERS = 1_048_576

export function load(options: LoadOptions): Loaded {
  const { report, diagnostics } = collector()
  const sources = new Map<string, Source>()
  const done = (project: Project | null, spans: ReadonlyMap<string, Span>, variables: readonly string[]): Loaded => {
    const found = hideValues(diagnostics(), variables, options.environment)
    const failed = found.some((diagnostic) => diagnostic.severity === 'error')
    return {
      project: failed ? null : project,
      diagnostics: found,
      sources,
      places: new Map([...spans].map(([path, span]) => [path, placeOf(span)])),
      variables,
    }
  }
  const nothing = (): Loaded => done(null, new Map(), [])

  const file = options.files[0]
  if (file === undefined || options.files.length > 1) {
    report('AG1009', null, file === undefined ? 'no project file was given' : 'more than one project file is not supported yet', {
      help: 'name one file with -f',
    })
    return nothing()
  }
  const source = read(file, options, report)
  if (source === null) return nothing()
  sources.set(file, source)
  const parsed = parse(source, report)
  if (parsed === null) return nothing()
  const { root: filled, used } = interpolate(parsed, options.environment, report)
  const root = refuseStrays(filled, report)

  const spans = new Map<string, Span>([...walk(root)].map(({ path, span }) => [path.join('.'), span]))
  const written = new Set(spans.keys())
  const form = checkForm(root, report)
  if (form.root.kind !== 'map') return nothing()
  const context = {
    folder: options.folder ?? posix.dirname(file),
    environment: options.environment,
    report,
    mark: (path: string, span: Span) => void spans.set(path, span),
  }
  const project = normalize(form.root, context, options.projectName)
  check({
    project,
    report,
    clean: form.clean,
    at: (path) => nearest(spans, path, root),
    written: (path) => written.has(path),
    declared: (section, name) => written.has(`${section}.${name}`) || isUnread(root, section),
  })
  return done(project, spans, used)
}

/** `secrets: ["${API_KEY}"]` is an easy slip: a variable's value never appears in a message. Shorter ones hide nothing and match everywhere. */
const LEAST_HIDDEN = 6

function hideValues(diagnostics: readonly Diagnostic[], variables: readonly string[], environment: Environment): readonly Diagnostic[] {
  const values = variables.map((name) => [name, environment[name] ?? ''] as const).filter(([, value]) => value.length >= LEAST_HIDDEN)
  if (values.length === 0) return diagnostics
  const hide = (text: string): string => values.reduce((shown, [name, value]) => shown.replaceAll(value, () => `\${${name}}`), text)
  return diagnostics.map((each) => ({
    ...each,
    message: hide(each.message),
    help: each.help === null ? null : hide(each.help),
    notes: each.notes.map((note) => ({ ...note, message: hide(note.message) })),
  }))
}

const isUnread = (root: Node, section: Section): boolean => (child(root, section) ?? { kind: 'map' }).kind !== 'map'

function nearest(spans: ReadonlyMap<string, Span>, path: string, root: Node): Span {
  for (let at = path; at !== ''; at = at.slice(0, Math.max(0, at.lastIndexOf('.')))) {
    const span = spans.get(at)
    if (span !== undefined) return span
  }
  return root.span
}

const REASONS: { readonly [code: string]: string } = {
  ENOENT: 'there is no such file',
  EACCES: 'you have no permission to read it',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of its path is no folder',
  ELOOP: 'its links go in a circle',
}

function read(file: string, options: LoadOptions, report: Report): Source | null {
  try {
    // A byte order mark is no content, and columns are counted without it.
    const text = options.readFile(file).replace(/^\uFEFF/, '')
    if (text.length <= MAX_FILE_CHARACTERS) return makeSource(file, text)
    report('AG1001', null, `${file} is larger than 1 MiB: expected a project file`, { help: 'check the path' })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    report('AG1001', null, `cannot read ${file}: ${REASONS[code] ?? (error instanceof Error ? error.message : String(error))}`, {
      help: 'check the path and its permissions, or name a file with -f',
    })
  }
  return null
}
