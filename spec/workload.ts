/** What agents and services have in common: Compose's keys in Compose's ways of writing them. */
import { found } from './describe.ts'
import type { Condition, Healthcheck, Workload } from './model.ts'
import type { Context } from './context.ts'
import { child, entriesOf, type MapNode, type Node, textOf } from './tree.ts'
import * as values from './values.ts'

type Defaults = { readonly mem_limit: number; readonly cpus: number; readonly pids_limit: number; readonly replicas: number }
type Common = Omit<Workload, 'user' | 'mounts' | 'secrets'>

/** The engine refuses to make a container with less. */
const LEAST_MEMORY = 6 * 2 ** 20
const MOST_REPLICAS = 232

export function workload(name: string, node: MapNode, at: string, context: Context, defaults: Defaults): Common {
  const get = (key: string): Node | undefined => child(node, key)
  return {
    name,
    image: textOf(get('image')) === '' ? null : textOf(get('image')),
    command: commandOf(get('command'), context),
    entrypoint: commandOf(get('entrypoint'), context),
    environment: environmentOf(get('environment'), `${at}.environment`, context),
    replicas: integer(get('replicas'), defaults.replicas, 0, MOST_REPLICAS, context),
    depends_on: dependenciesOf(get('depends_on'), `${at}.depends_on`, context),
    healthcheck: healthcheckOf(get('healthcheck'), context),
    mem_limit: memoryOf(get('mem_limit'), defaults.mem_limit, context),
    cpus: cpusOf(get('cpus'), defaults.cpus, context),
    pids_limit: integer(get('pids_limit'), defaults.pids_limit, 1, 4_194_304, context),
    working_dir: textOf(get('working_dir')) === '' ? null : textOf(get('working_dir')),
    labels: labelsOf(get('labels'), `${at}.labels`, context),
  }
}

export function readOr<T>(read: values.Read<T>, node: Node, context: Context, otherwise: T): T {
  if (read.ok) return read.value
  context.report(read.later ? 'AG1006' : 'AG1005', node.span, `${read.why}, got ${found(node)}`)
  return otherwise
}

export const absent = (node: Node | undefined): node is undefined => node === undefined || (node.kind === 'scalar' && node.value === null)

export function integer(node: Node | undefined, otherwise: number, least: number, most: number, context: Context): number {
  if (absent(node)) return otherwise
  const text = textOf(node)
  const number = Number(text)
  if (/^\d+$/.test(text) && number >= least && number <= most) return number
  context.report('AG1005', node.span, `expected an integer from ${least} to ${most}, got ${found(node)}`)
  return otherwise
}

export function flag(node: Node | undefined, otherwise: boolean, context: Context): boolean {
  if (absent(node)) return otherwise
  const text = textOf(node)
  if (text !== 'true' && text !== 'false') context.report('AG1005', node.span, `expected true or false, got ${found(node)}`)
  return text === 'true'
}

function memoryOf(node: Node | undefined, otherwise: number, context: Context): number {
  if (absent(node)) return otherwise
  const bytes = readOr(values.size(textOf(node)), node, context, otherwise)
  if (bytes < LEAST_MEMORY)
    context.report('AG1005', node.span, `expected at least 6m of memory, got ${found(node)}`, {
      help: 'the engine makes no container with less; a number without a unit is bytes',
    })
  return bytes
}

function cpusOf(node: Node | undefined, otherwise: number, context: Context): number {
  if (absent(node)) return otherwise
  const text = textOf(node)
  const number = Number(text)
  // The engine counts in units of 10⁻⁹ CPUs, and takes no less than a hundredth.
  if (text !== '' && number >= 0.01 && number <= 1024) return number
  context.report('AG1005', node.span, `expected a number of CPUs from 0.01 on, got ${found(node)}`)
  return otherwise
}

function commandOf(node: Node | undefined, context: Context): readonly string[] | null {
  if (absent(node)) return null
  if (node.kind === 'list') return node.items.map(textOf)
  return readOr(values.words(textOf(node)), node, context, [])
}

/** A list entry without "=", and a key without a value, take it from the environment; unset there: not set at all. */
function environmentOf(node: Node | undefined, at: string, context: Context): Workload['environment'] {
  const inherit = (name: string): readonly (readonly [string, string])[] => {
    const value = Object.hasOwn(context.environment, name) ? context.environment[name] : undefined
    return value === undefined ? [] : [[name, value]]
  }
  if (node?.kind === 'list') {
    return Object.fromEntries(
      node.items.flatMap((item) => {
        const [, name = '', value] = /^([^=]*)(?:=(.*))?$/s.exec(textOf(item)) ?? []
        context.mark(`${at}.${name}`, item.span)
        return value === undefined ? inherit(name) : [[name, value] as const]
      }),
    )
  }
  for (const [name, entry] of entriesOf(node)) context.mark(`${at}.${name}`, entry.key)
  return Object.fromEntries(
    entriesOf(node).flatMap(([name, entry]) => (absent(entry.value) ? inherit(name) : [[name, textOf(entry.value)] as const])),
  )
}

function labelsOf(node: Node | undefined, at: string, context: Context): Workload['labels'] {
  for (const [name, entry] of entriesOf(node)) context.mark(`${at}.${name}`, entry.key)
  if (node?.kind !== 'list') return Object.fromEntries(entriesOf(node).map(([name, entry]) => [name, textOf(entry.value)]))
  return Object.fromEntries(
    node.items.map((item) => {
      const [, name = '', value = ''] = /^([^=]*)(?:=(.*))?$/s.exec(textOf(item)) ?? []
      context.mark(`${at}.${name}`, item.span)
      return [name, value]
    }),
  )
}

function dependenciesOf(node: Node | undefined, at: string, context: Context): Workload['depends_on'] {
  const started: Condition = 'service_started'
  if (node?.kind === 'list') {
    for (const item of node.items) context.mark(`${at}.${textOf(item)}`, item.span)
    return Object.fromEntries(node.items.map((item) => [textOf(item), { condition: started }]))
  }
  return Object.fromEntries(
    entriesOf(node).map(([name, entry]) => {
      context.mark(`${at}.${name}`, entry.key)
      return [name, { condition: (textOf(child(entry.value, 'condition')) || started) as Condition }]
    }),
  )
}

const DISABLED: Healthcheck = { test: ['NONE'] }

function healthcheckOf(node: Node | undefined, context: Context): Healthcheck | null {
  if (node?.kind !== 'map') return null
  if (flag(child(node, 'disable'), false, context)) return DISABLED
  const test = testOf(child(node, 'test'), node, context)
  if (test === null) return null
  if (test[0] === 'NONE') return DISABLED
  const time = (key: string): number | undefined => {
    const value = child(node, key)
    return absent(value) ? undefined : readOr(values.duration(textOf(value)), value, context, 0)
  }
  const times = { interval_ms: time('interval'), timeout_ms: time('timeout'), start_period_ms: time('start_period') }
  const retries = child(node, 'retries')
  return {
    test,
    ...(times.interval_ms === undefined ? {} : { interval_ms: times.interval_ms }),
    ...(times.timeout_ms === undefined ? {} : { timeout_ms: times.timeout_ms }),
    ...(times.start_period_ms === undefined ? {} : { start_period_ms: times.start_period_ms }),
    ...(absent(retries) ? {} : { retries: integer(retries, 3, 1, 1000, context) }),
  }
}

function testOf(test: Node | undefined, healthcheck: MapNode, context: Context): readonly string[] | null {
  if (absent(test)) {
    context.report('AG1007', healthcheck.span, 'a healthcheck needs the key "test"', {
      help: 'for example test: ["CMD", "agent-health"], or disable: true',
    })
    return null
  }
  if (test.kind !== 'list') return ['CMD-SHELL', textOf(test)]
  const parts = test.items.map(textOf)
  const count = parts.length
  if ((parts[0] === 'NONE' && count === 1) || (parts[0] === 'CMD' && count > 1) || (parts[0] === 'CMD-SHELL' && count === 2)) return parts
  context.report('AG1005', test.span, 'expected a test like ["CMD", COMMAND, …], ["CMD-SHELL", "…"] or ["NONE"]', {
    help: 'a string is run by a shell: test: curl -f http://localhost',
  })
  return null
}
