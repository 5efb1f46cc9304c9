/** Inputs of the three agents, checked: tasks come from people too (`agentctl task analyst '{…}'`). */
import { folderOf, type RawPath, rawBytes } from './paths.ts'
import type { Part } from './split.ts'

type Fields = Readonly<Record<string, unknown>>

/** Where the tree is mounted in lead and analyst, the reports in the reporter. */
export const SOURCE = '/source'
export const REPORTS = '/reports'

export function fields(input: unknown): Fields {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw new Error(`the input must be an object, got ${JSON.stringify(input)}`)
  return input as Fields
}

export interface Tree {
  readonly path: RawPath
  /** As it was given, for the input of the next agent. */
  readonly given: string
  readonly root: string
  readonly exclude: readonly string[]
}

export function treeOf(input: Fields): Tree {
  const path = folderOf(input['path'] ?? '.')
  const exclude = input['exclude'] ?? []
  if (!Array.isArray(exclude) || !exclude.every((name) => typeof name === 'string'))
    throw new Error(`"exclude" must be a list of folder names such as [".git"], got ${JSON.stringify(exclude)}`)
  const root = rawBytes(path).toString('utf8')
  return {
    path,
    given: root === '' ? '.' : root,
    root: root === '' ? SOURCE : `${SOURCE}/${root}`,
    exclude: [...new Set(exclude as string[])].sort(),
  }
}

const wire = (value: unknown): value is string | null => value === null || typeof value === 'string'
export function partOf(input: unknown): Pick<Part, 'index' | 'from' | 'until'> {
  const { index, from, until } = fields(input)
  if (!Number.isSafeInteger(index) || !wire(from) || !wire(until))
    throw new Error('"part" must be {index, from, until} as the lead makes it; null stands for the ends of the walk')
  return { index: index as number, from, until }
}

export function partBytesOf(input: Fields): number {
  const bytes = input['part_bytes'] ?? 262_144
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 1)
    throw new Error(`"part_bytes" must be a whole number above 0, got ${JSON.stringify(bytes)}`)
  return bytes
}

export function reportNameOf(input: Fields): string {
  const name = input['report'] ?? 'audit'
  if (typeof name !== 'string' || !/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/.test(name))
    throw new Error(`"report" must be a folder name of letters, digits, ".", "_" and "-", got ${JSON.stringify(name)}`)
  return name
}
