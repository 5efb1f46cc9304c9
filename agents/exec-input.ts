/** The input of an `exec` task: checked by hand (no schema library in the agent), every problem said in one sentence. */
import { resolve } from 'node:path'
import type { Json } from '../spec/protocol.ts'

export interface ExecInput {
  readonly argv: readonly string[]
  readonly cwd: string
  readonly env: { readonly [name: string]: string }
  readonly stdin: string | null
  readonly timeoutMs: number
  readonly check: boolean
}

export const DEFAULT_TIMEOUT_MS = 600_000
/** Longest delay of a timer; a longer timeout is as good as this one. */
const MAX_TIMER_MS = 2_147_483_647
const KEYS = ['command', 'cwd', 'env', 'stdin', 'timeout', 'check']
const UNIT_MS: { readonly [unit: string]: number } = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

export class InputError extends Error {}

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return `${text.length > 60 ? `${text.slice(0, 60)}…` : text} (${value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value})`
}

/** Seconds as a number, or "500ms", "10s", "1m30s", "2h". */
export function parseTimeout(value: unknown): number {
  const wrong = (): InputError => new InputError(`timeout: expected seconds or a duration like "10s", got ${show(value)}`)
  if (typeof value === 'number') {
    if (!(value > 0)) throw wrong()
    return Math.min(Math.ceil(value * 1_000), MAX_TIMER_MS)
  }
  if (typeof value !== 'string' || !/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(value)) throw wrong()
  let total = 0
  for (const [, amount, , unit = 's'] of value.matchAll(/(\d+(\.\d+)?)(ms|s|m|h)/g)) total += Number(amount) * (UNIT_MS[unit] ?? 1)
  if (!(total > 0)) throw wrong()
  return Math.min(Math.ceil(total), MAX_TIMER_MS)
}

function parseCommand(value: unknown): readonly string[] {
  const wrong = (): InputError => new InputError(`command: expected a string or a list of strings with a program first, got ${show(value)}`)
  const argv = typeof value === 'string' ? ['/bin/sh', '-c', value] : value
  if (!Array.isArray(argv) || !argv.every((part) => typeof part === 'string') || argv[0] === '' || argv.length === 0 || value === '')
    throw wrong()
  if (argv.some((part) => part.includes('\0'))) throw new InputError('command: a command cannot hold the character U+0000')
  return argv
}

function parseEnv(value: unknown): ExecInput['env'] {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new InputError(`env: expected a mapping of names to strings, got ${show(value)}`)
  const env: Record<string, string> = {}
  for (const [name, text] of Object.entries(value)) {
    if (name === '' || /[=\0]/.test(name)) throw new InputError(`env: ${show(name)} cannot be the name of a variable`)
    if (typeof text !== 'string' && typeof text !== 'number' && typeof text !== 'boolean')
      throw new InputError(`env.${name}: expected a string, got ${show(text)}`)
    if (String(text).includes('\0')) throw new InputError(`env.${name}: a variable cannot hold the character U+0000`)
    env[name] = String(text)
  }
  return env
}

export function parseExecInput(input: Json, workspace: string): ExecInput {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw new InputError(`expected an input like {"command": "ls -l"}, got ${show(input)}`)
  }
  const { command, cwd, env, stdin, timeout, check, type: _, ...rest } = input as { readonly [key: string]: unknown }
  const unknown = Object.keys(rest)
  if (unknown.length > 0)
    throw new InputError(`unknown key ${unknown.map((key) => `"${key}"`).join(', ')}; an exec task has ${KEYS.join(', ')}`)
  if (command === undefined) throw new InputError('command: it is required, a string (for the shell) or a list of strings')
  if (cwd !== undefined && (typeof cwd !== 'string' || cwd.includes('\0'))) throw new InputError(`cwd: expected a path, got ${show(cwd)}`)
  if (stdin !== undefined && stdin !== null && typeof stdin !== 'string')
    throw new InputError(`stdin: expected a string, got ${show(stdin)}`)
  if (check !== undefined && typeof check !== 'boolean') throw new InputError(`check: expected true or false, got ${show(check)}`)
  return {
    argv: parseCommand(command),
    cwd: resolve(workspace, cwd ?? '.'),
    env: env === undefined || env === null ? {} : parseEnv(env),
    stdin: stdin ?? null,
    timeoutMs: timeout === undefined || timeout === null ? DEFAULT_TIMEOUT_MS : parseTimeout(timeout),
    check: check ?? false,
  }
}
