/** Secrets of the file: where their values come from, and where the files lie that workloads are given. */
import { posix } from 'node:path'
import { type Context, pathOf } from './context.ts'
import { found } from './describe.ts'
import { DEFAULTS, type Secret, type SecretUse } from './model.ts'
import { pointAt, tidy } from './mounts.ts'
import { child, itemsOf, type MapNode, type Node, textOf } from './tree.ts'
import * as values from './values.ts'
import { absent, readOr } from './workload.ts'

const SOURCES = ['file', 'environment', 'command'] as const
/** Keys that say how the command runs. */
const OF_COMMANDS = ['timeout', 'max_size', 'pass_env', 'working_dir'] as const
const LONGEST_MS = 600_000
const MOST_ID = 2_147_483_647

export function secretOf(name: string, node: MapNode, context: Context): Secret {
  const given = SOURCES.filter((key) => node.entries.has(key))
  if (given.length > 1)
    context.report(
      'AG1005',
      node.entries.get(given[1] ?? '')?.key ?? node.span,
      `expected exactly one of the keys file, environment and command for secret "${name}", got ${given.join(' and ')}`,
    )
  const lost = given[0] === 'command' ? undefined : OF_COMMANDS.find((key) => node.entries.has(key))
  if (lost !== undefined)
    context.report('AG1005', node.entries.get(lost)?.key ?? node.span, `${lost} of secret "${name}" is for a command, and it has none`, {
      help: 'add command: [PROGRAM, ARGUMENT, …], or remove the key',
    })
  const file = child(node, 'file')
  if (file !== undefined) return { name, kind: 'file', path: pathOf(textOf(file), context, file.span) }
  const command = child(node, 'command')
  return command === undefined
    ? { name, kind: 'environment', variable: textOf(child(node, 'environment')) }
    : commandOf(name, node, command, context)
}

function commandOf(name: string, node: MapNode, command: Node, context: Context): Secret {
  const [first, ...rest] = itemsOf(command)
  const program = textOf(first)
  // The form has spoken about a list without a program.
  if (first !== undefined && program === '')
    context.report('AG1005', first.span, `the program of secret "${name}" is empty`, { help: 'write a path, or a name that is on PATH' })
  const folder = child(node, 'working_dir')
  return {
    name,
    kind: 'command',
    argv: [first !== undefined && /[/~]/.test(program) ? pathOf(program, context, first.span) : program, ...rest.map(textOf)],
    timeout_ms: timeoutOf(child(node, 'timeout'), context),
    max_size: sizeOf(child(node, 'max_size'), context),
    pass_env: itemsOf(child(node, 'pass_env')).map(textOf),
    working_dir: absent(folder) ? context.folder : pathOf(textOf(folder), context, folder.span),
  }
}

function timeoutOf(node: Node | undefined, context: Context): number {
  const otherwise = DEFAULTS.secret.timeout_ms
  if (absent(node)) return otherwise
  const ms = readOr(values.duration(textOf(node)), node, context, otherwise)
  if (ms >= 1 && ms <= LONGEST_MS) return ms
  context.report('AG1005', node.span, `expected a timeout from 1ms to 10m, got ${found(node)}`)
  return otherwise
}

function sizeOf(node: Node | undefined, context: Context): number {
  const most = DEFAULTS.secret.max_size
  if (absent(node)) return most
  const bytes = readOr(values.size(textOf(node)), node, context, most)
  if (bytes >= 1 && bytes <= most) return bytes
  context.report('AG1005', node.span, `expected a size from 1 to ${most} bytes, got ${found(node)}`, {
    help: 'pass larger files by a volume',
  })
  return most
}

const FOLDER = '/run/secrets'

/** `secrets` of an agent or a service, short and long form. */
export function secretsOf(node: MapNode, at: string, context: Context): readonly SecretUse[] {
  return itemsOf(child(node, 'secrets')).map((item, index) => {
    context.mark(`${at}.secrets.${index}`, pointAt(item))
    if (item.kind !== 'map') return { source: textOf(item), target: textOf(item) }
    const source = textOf(child(item, 'source'))
    const id = (key: 'uid' | 'gid'): { readonly [key: string]: number } => {
      const number = idOf(child(item, key), context)
      return number === null ? {} : { [key]: number }
    }
    const mode = modeOf(child(item, 'mode'), context)
    return {
      source,
      target: targetOf(child(item, 'target'), source, context),
      ...id('uid'),
      ...id('gid'),
      ...(mode === null ? {} : { mode }),
    }
  })
}

function targetOf(node: Node | undefined, source: string, context: Context): string {
  if (absent(node) || textOf(node) === '') return source
  const text = textOf(node)
  const path = text.startsWith('/') ? tidy(text) : text
  const target = posix.dirname(path) === FOLDER ? posix.basename(path) : path
  if (target.startsWith('/') && !target.startsWith(`${FOLDER}/`) && target !== FOLDER) {
    if (target !== '/' && !text.endsWith('/')) return target
  } else if (/^[A-Za-z0-9_.-]{1,128}$/.test(target) && !/^\.+$/.test(target)) return target
  context.report('AG1005', node.span, `expected a file name below ${FOLDER} or an absolute path, got ${found(node)}`)
  return text
}

function idOf(node: Node | undefined, context: Context): number | null {
  if (absent(node)) return null
  const text = textOf(node)
  if (/^\d{1,10}$/.test(text) && Number(text) <= MOST_ID) return Number(text)
  context.report('AG1005', node.span, `expected a numeric id up to ${MOST_ID}, got ${found(node)}`)
  return null
}

/** In YAML 1.2 `0440` is the number 440: what is written counts. Without the 0 it would be read as octal here and as decimal elsewhere. */
function modeOf(node: Node | undefined, context: Context): number | null {
  if (absent(node)) return null
  const text = node.kind === 'scalar' && typeof node.value === 'number' ? node.text : textOf(node)
  const digits = /^0o?([0-7]{3})$/.exec(text)?.[1]
  if (digits !== undefined) return Number.parseInt(digits, 8)
  context.report('AG1005', node.span, `expected permissions in octal like 0440, got ${found(node)}`, {
    help: /^[0-7]{3}$/.test(text) ? `write 0${text}` : null,
  })
  return null
}
