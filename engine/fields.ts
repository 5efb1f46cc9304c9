/** Reads the engine's JSON without trusting its shape: a missing field is empty, never a TypeError. */

export type Fields = { readonly [key: string]: unknown }

export const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {})
export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
export const text = (value: unknown): string => (typeof value === 'string' ? value : '')
export const number = (value: unknown): number => (typeof value === 'number' ? value : 0)

export function texts(value: unknown): { readonly [name: string]: string } {
  const pairs = Object.entries(fields(value)).filter((pair): pair is [string, string] => typeof pair[1] === 'string')
  return Object.fromEntries(pairs)
}
