/** The part of JSON Schema (2020-12) that the control API is described in, and the check of what comes in by it. */

export interface Schema {
  readonly $ref?: string
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly enum?: readonly (string | number | boolean | null)[]
  readonly const?: string | number | boolean | null
  readonly default?: string | number | boolean | null
  readonly format?: string
  readonly pattern?: string
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly properties?: { readonly [name: string]: Schema }
  readonly required?: readonly string[]
  /** Absent: others are taken (an answer may gain fields); false: refused. */
  readonly additionalProperties?: boolean | Schema
  readonly items?: Schema
  readonly minItems?: number
  readonly maxItems?: number
  readonly oneOf?: readonly Schema[]
}

export const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` })
export const orNull = (schema: Schema): Schema => ({ ...schema, type: [schema.type ?? 'object', 'null'].flat() })
/** All of its properties are required but those that are named optional; others are taken too. */
export const object = (
  properties: { readonly [name: string]: Schema },
  optional: readonly string[] = [],
  description?: string,
): Schema => ({
  type: 'object',
  ...(description === undefined ? {} : { description }),
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
  properties,
})

/** What is wrong with a value, or null. `where` names the value; the first problem is enough. */
export function problem(schema: Schema, value: unknown, where: string): string | null {
  if (schema.enum !== undefined && !schema.enum.includes(value as string))
    return `${where} must be one of ${schema.enum.join(', ')}, got ${shown(value)}`
  const types = schema.type === undefined ? null : [schema.type].flat()
  if (types !== null && !types.some((type) => isOf(type, value)))
    return `${where} must be ${types.map(words).join(' or ')}${range(schema)}, got ${shown(value)}`
  if (typeof value === 'string') return textProblem(schema, value, where)
  if (typeof value === 'number') {
    const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = schema
    return value < minimum || value > maximum ? `${where} must be ${words(types?.[0] ?? 'number')}${range(schema)}, got ${value}` : null
  }
  if (Array.isArray(value)) return listProblem(schema, value, where)
  return typeof value === 'object' && value !== null ? fieldsProblem(schema, value as { readonly [name: string]: unknown }, where) : null
}

function textProblem(
  { pattern, minLength = 0, maxLength = Number.POSITIVE_INFINITY, description }: Schema,
  value: string,
  where: string,
): string | null {
  if (value.length < minLength || value.length > maxLength)
    return `${where} must have ${minLength} to ${maxLength} characters, got ${value.length}`
  if (pattern !== undefined && !new RegExp(pattern, 'u').test(value))
    return `${where} must be ${description ?? `of the form ${pattern}`}, got ${shown(value)}`
  return null
}

function listProblem(
  { items, minItems = 0, maxItems = Number.POSITIVE_INFINITY }: Schema,
  value: readonly unknown[],
  where: string,
): string | null {
  if (value.length < minItems || value.length > maxItems)
    return `${where} must have ${minItems} to ${maxItems} elements, got ${value.length}`
  // Any JSON: nothing to look at.
  if (items === undefined || Object.keys(items).length === 0) return null
  for (const [index, item] of value.entries()) {
    const found = problem(items, item, `${where}[${index}]`)
    if (found !== null) return found
  }
  return null
}

function fieldsProblem(schema: Schema, value: { readonly [name: string]: unknown }, where: string): string | null {
  const { properties = {}, required = [], additionalProperties } = schema
  for (const name of required) if (value[name] === undefined) return `${where}: "${name}" is missing`
  for (const [name, field] of Object.entries(value)) {
    const known = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (known === undefined) {
      if (additionalProperties === false)
        return `${where} has no field "${name.slice(0, 100)}": expected ${Object.keys(properties).join(', ') || 'none'}`
      continue
    }
    const found = problem(known, field, `"${name}"`)
    if (found !== null) return found
  }
  return null
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case 'integer':
      return Number.isSafeInteger(value)
    case 'array':
      return Array.isArray(value)
    case 'null':
      return value === null
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value)
    default:
      return typeof value === type
  }
}

const WORDS: Readonly<Record<string, string>> = {
  integer: 'a whole number',
  number: 'a number',
  string: 'a string',
  boolean: 'true or false',
  object: 'an object',
  array: 'a list',
}
const words = (type: string): string => WORDS[type] ?? type
const range = ({ minimum, maximum }: Schema): string =>
  minimum === undefined ? '' : maximum === undefined ? ` of at least ${minimum}` : ` from ${minimum} to ${maximum}`
const shown = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 60)
