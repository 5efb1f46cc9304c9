/** Tree → problems of form, by agentfile.schema.json. The schema avoids anyOf, so that every ajv error is one that a person can act on. */
import { Ajv2020, type AnySchemaObject, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js'
import schema from '../agentfile.schema.json' with { type: 'json' }
import { found, subject } from './describe.ts'
import type { Report } from './problems.ts'
import { didYouMean } from './suggest.ts'
import { type Entry, type Node, nodeAt, type Path, toJson, walk } from './tree.ts'

/** Keywords of ours in the schema, which editors ignore. */
const KEYWORDS = [
  /** What a person should write there. */
  'x-expected',
  /** Keys or values that are understood and refused by name. */
  'x-later',
  'x-later-string',
  /** Keys that will not come here, and why. */
  'x-never',
  /** Keys of Compose that have another way here, and which. */
  'x-instead',
  /** A value that is never shown. */
  'x-hidden',
]

let compiled: ValidateFunction | null = null
function validator(): ValidateFunction {
  if (compiled !== null) return compiled
  // Without the check against the meta-schema (a test does it): compiling that costs more than our own.
  const ajv = new Ajv2020({
    meta: false,
    validateSchema: false,
    allErrors: true,
    verbose: true,
    allowUnionTypes: true,
    strict: true,
    validateFormats: false,
    ownProperties: true,
    // It is compiled for one file: shorter code would cost more than it saves.
    code: { optimize: false },
  })
  ajv.addVocabulary(KEYWORDS)
  compiled = ajv.compile(schema as AnySchemaObject)
  return compiled
}

/** Reports every problem of form; `clean`: there was none. Gives the tree without the parts that have one, so that later phases can go on with the rest. */
export function checkForm(root: Node, report: Report): { readonly root: Node; readonly clean: boolean } {
  const bad = new Set<string>()
  for (const { path, node } of walk(root)) if (node.kind === 'scalar' && node.broken) bad.add(pointer(path))
  const validate = validator()
  const clean = validate(toJson(root))
  if (!clean) {
    for (const error of useful(validate.errors ?? [])) {
      const path = split(error.instancePath)
      const broken = nodeAt(root, path).node
      if (broken?.kind !== 'scalar' || !broken.broken) explain(error, path, root, report)
      const gone = removal(error, path)
      if (gone !== null) bad.add(pointer(gone))
    }
  }
  return { root: bad.size === 0 ? root : without(root, bad, []), clean }
}

const pointer = (path: Path): string => path.map((step) => `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
const split = (text: string): Path =>
  text
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'))

/** One error per place: a wrong type makes every other complaint about that value noise. */
function useful(errors: readonly ErrorObject[]): readonly ErrorObject[] {
  const kept = new Map<string, ErrorObject>()
  for (const error of errors) {
    // The inner error of propertyNames; the outer one names the key.
    if (error.propertyName !== undefined && error.keyword !== 'propertyNames') continue
    const own = error.params as { additionalProperty?: string; missingProperty?: string; propertyName?: string }
    const key = `${error.instancePath} ${own.additionalProperty ?? ''} ${own.missingProperty ?? ''} ${own.propertyName ?? ''}`
    const before = kept.get(key)
    if (before === undefined || (error.keyword === 'type' && before.keyword !== 'type')) kept.set(key, error)
  }
  return [...kept.values()]
}

function explain(error: ErrorObject, path: Path, root: Node, report: Report): void {
  const parent = (error.parentSchema ?? {}) as AnySchemaObject
  const { node, span } = nodeAt(root, path)
  const what = subject(path)
  switch (error.keyword) {
    case 'additionalProperties':
      return unknownKey(String(error.params['additionalProperty']), parent, path, root, report)
    case 'required':
      return report('AG1007', span, `${what} needs the key "${error.params['missingProperty']}"`, {
        help: exampleOf(parent, String(error.params['missingProperty'])),
      })
    case 'propertyNames': {
      const name = String(error.params['propertyName'])
      return report(
        'AG1005',
        nodeKey(root, path, name),
        `expected ${(parent['propertyNames'] as AnySchemaObject)['x-expected']} for the name "${name}" in ${what}`,
      )
    }
    case 'uniqueItems': {
      const place = nodeAt(root, [...path, Math.max(Number(error.params['i']), Number(error.params['j']))])
      return report('AG2003', place.span, `${found(place.node)} stands twice in ${what}`, { help: 'remove one of the two' })
    }
  }
  const text = node?.kind === 'scalar' && typeof node.value === 'string' ? node.value : null
  const later = (parent['x-later'] ?? []) as readonly string[]
  if (text !== null && later.includes(text))
    return report('AG1006', span, `"${text}" is not supported yet for ${what}`, { help: `write ${expectation(parent)}` })
  if (text !== null && parent['x-later-string'] !== undefined)
    return report('AG1006', span, `${parent['x-later-string']} is not supported yet (${what})`, { help: 'write its jobs here' })
  const allowed = (parent['enum'] ?? []) as readonly unknown[]
  report(
    'AG1005',
    span,
    `expected ${expectation(parent)} for ${what}, got ${parent['x-hidden'] === true && text !== null ? 'a string that is not shown' : found(node)}`,
    {
      help: text === null ? null : didYouMean(text, allowed.map(String)),
    },
  )
}

const TYPES: { readonly [type: string]: string } = {
  object: 'a mapping',
  array: 'a list',
  string: 'a string',
  integer: 'an integer',
  number: 'a number',
  boolean: 'true or false',
  null: 'nothing',
}

function expectation(parent: AnySchemaObject): string {
  if (typeof parent['x-expected'] === 'string') return parent['x-expected']
  if (Array.isArray(parent['enum'])) return parent['enum'].map((value) => `"${value}"`).join(' or ')
  const types: readonly string[] = [parent['type'] ?? []].flat()
  if (parent['minLength'] !== undefined && types.length === 1 && types[0] === 'string') return 'a string that is not empty'
  return (
    types
      .map((type) => TYPES[type] ?? type)
      .filter((type) => type !== 'nothing')
      .join(' or ') || 'another value'
  )
}

function unknownKey(key: string, parent: AnySchemaObject, path: Path, root: Node, report: Report): void {
  const span = nodeKey(root, path, key)
  const where = path.length === 0 ? 'at the top of the file' : `in ${subject(path)}`
  const never = (parent['x-never'] ?? {}) as { readonly [key: string]: string }
  const later = (parent['x-later'] ?? []) as readonly string[]
  const instead = (parent['x-instead'] ?? {}) as { readonly [key: string]: string }
  if (Object.hasOwn(instead, key))
    return report('AG1006', span, `the key "${key}" is not supported ${where}`, { help: instead[key] ?? null })
  if (Object.hasOwn(never, key)) return report('AG3001', span, `the key "${key}" is refused ${where}: ${never[key]}`, { help: 'remove it' })
  if (later.includes(key))
    return report('AG1006', span, `the key "${key}" is not supported yet ${where}`, { help: 'remove it; a later version supports it' })
  const keys = Object.keys((parent['properties'] ?? {}) as object)
  const guess = elsewhere(key) ?? didYouMean(key, keys) ?? inJob(key)
  report('AG1004', span, `unknown key "${key}" ${where}`, {
    help: guess ?? (keys.length > 0 ? `known keys: ${keys.join(', ')}` : 'remove it'),
  })
}

/** A key at the wrong level is the second most common slip after a typing error. */
function elsewhere(key: string): string | null {
  const has = (part: unknown): boolean => hasProperty(part, key)
  if (has(schema)) return `"${key}" stands at the top of the file`
  if (has(schema.$defs.agent)) return `"${key}" belongs to an agent`
  if (has(schema.$defs.service)) return `"${key}" belongs to a service`
  return null
}

const inJob = (key: string): string | null => (hasProperty(schema.$defs.job, key) ? `"${key}" belongs to a job of a pipeline` : null)
const hasProperty = (part: unknown, key: string): boolean => Object.hasOwn((part as { readonly properties: object }).properties, key)

function exampleOf(parent: AnySchemaObject, key: string): string | null {
  let property = (parent['properties'] as { readonly [key: string]: AnySchemaObject } | undefined)?.[key]
  const name = /^#\/\$defs\/(.+)$/.exec(String(property?.['$ref'] ?? ''))?.[1]
  if (name !== undefined) property = (schema.$defs as unknown as { readonly [name: string]: AnySchemaObject })[name]
  const example = (property?.['examples'] as readonly unknown[] | undefined)?.[0]
  return example === undefined ? null : `for example ${key}: ${typeof example === 'string' ? example : JSON.stringify(example)}`
}

function nodeKey(root: Node, path: Path, key: string): Entry['key'] {
  const { node, span } = nodeAt(root, path)
  return (node?.kind === 'map' ? node.entries.get(key)?.key : undefined) ?? span
}

/** What to leave out so that the rest can be looked at. */
function removal(error: ErrorObject, path: Path): Path | null {
  if (error.keyword === 'additionalProperties') return [...path, String(error.params['additionalProperty'])]
  if (error.keyword === 'propertyNames') return null
  if (error.keyword === 'required' || error.keyword === 'uniqueItems' || error.keyword === 'minProperties') return null
  return path
}

/** Sections of things that others refer to by name. */
const DECLARING = new Set(['agents', 'services', 'secrets', 'volumes', 'egress', 'pipelines'])

function without(node: Node, bad: ReadonlySet<string>, path: Path): Node {
  const isBad = (step: string | number): boolean => bad.has(pointer([...path, step]))
  if (node.kind === 'list')
    return { ...node, items: node.items.flatMap((item, index) => (isBad(index) ? [] : [without(item, bad, [...path, index])])) }
  if (node.kind === 'scalar') return bad.has(pointer(path)) ? { ...node, value: null } : node
  const entries = new Map<string, Entry>()
  for (const [name, entry] of node.entries) {
    if (!isBad(name)) entries.set(name, { ...entry, value: without(entry.value, bad, [...path, name]) })
    // An agent with a mistake in it is still declared: references to it are right.
    else if (path.length === 1 && DECLARING.has(String(path[0])))
      entries.set(name, { ...entry, value: { kind: 'map', entries: new Map(), span: entry.value.span } })
  }
  return { ...node, entries }
}
