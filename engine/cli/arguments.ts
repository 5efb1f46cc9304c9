/** Values on the command line: K=V pairs, counts, durations. Everything wrong is AG7001. */
import type { Json } from '../../spec/protocol.ts'
import { usage } from './failure.ts'

/** `coder=3 tester=0`. */
export function parseScale(pairs: readonly string[]): { readonly [name: string]: number } {
  const scale: Record<string, number> = {}
  for (const pair of pairs) {
    const match = /^([^=]+)=(\d{1,4})$/.exec(pair)
    if (match?.[1] === undefined) throw usage(`expected AGENT=COUNT like "coder=3", got "${pair}"`)
    if (match[1] in scale) throw usage(`"${match[1]}" was given two counts`)
    scale[match[1]] = Number(match[2])
  }
  return scale
}

/** The value as JSON where it is JSON, else as a string; the gateway checks it against the pipeline's input type. */
export function parseInputs(
  pairs: readonly string[],
  types: { readonly [name: string]: { readonly type: string } } = {},
): { readonly [name: string]: Json } {
  const inputs: Record<string, Json> = {}
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    if (at < 1) throw usage(`--input expects NAME=VALUE, got "${pair}"`)
    const name = pair.slice(0, at)
    if (Object.hasOwn(inputs, name)) throw usage(`--input ${name} was given twice`)
    inputs[name] = inputValue(pair.slice(at + 1), types[name]?.type)
  }
  return inputs
}

/** A declared string stays one ("007", "true"); without a declaration JSON is tried. */
function inputValue(text: string, type: string | undefined): Json {
  if (type === 'string') return text
  try {
    return JSON.parse(text) as Json
  } catch {
    return text
  }
}

export function parseJson(what: string, text: string): Json {
  try {
    return JSON.parse(text) as Json
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${what} is not JSON: ${why}`, `Quote it for the shell: '{"command": "ls -la"}'.`)
  }
}

export function parseCount(flag: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw usage(`${flag} expects a whole number, got "${text}"`)
  return Number(text)
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Seconds, as Compose's --timeout, or "90s", "2m". */
export function parseSeconds(flag: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  if (match === null) throw usage(`${flag} expects seconds like 30 or "2m", got "${text}"`)
  return (Number(match[1]) * (UNITS[match[2] ?? 's'] ?? 1_000)) / 1_000
}

/** "500ms", "90s", "1h30m"; a bare number is seconds. */
export function parseMilliseconds(flag: string, text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1_000)
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) throw usage(`${flag} expects a duration like 30s, 5m or 1h30m, got "${text}"`)
  let total = 0
  for (const [, count, unit = 's'] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) total += Number(count) * (UNITS[unit] ?? 1_000)
  return Math.round(total)
}

/** A project's name as Compose takes it. */
export function checkProjectName(name: string, source: string): string {
  if (/^[a-z0-9][a-z0-9_-]{0,62}$/.test(name)) return name
  throw usage(
    `${source} "${name}" is not a project name: expected lower-case letters, digits, "-" and "_", beginning with a letter or digit`,
  )
}
