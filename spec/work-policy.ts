/** `concurrency`, `rate_limit`, `retry`, `timeouts`, `stall` and `max_queue` of an agent, normalised. */
import { DEFAULT_WORK, DEFAULTS, type RetryPolicy, type StallPolicy, type Timeouts, type WorkPolicy } from './model.ts'
import type { Context } from './context.ts'
import { found } from './describe.ts'
import { parseReference } from './references.ts'
import { child, itemsOf, type MapNode, type Node, textOf } from './tree.ts'
import { count, duration, rate } from './values.ts'
import { absent, integer, readOr } from './workload.ts'

const MOST_TASKS = 1_000_000
const MOST_PER_REPLICA = 1_000

export function workOf(node: MapNode, context: Context): { readonly concurrency: number; readonly work: WorkPolicy } {
  const given = child(node, 'concurrency')
  const many = given?.kind === 'map' ? given : undefined
  const limit = (key: string): number | null => {
    const value = child(many, key)
    return absent(value) ? null : integer(value, 1, 1, MOST_TASKS, context)
  }
  const per_key = limit('per_key')
  const key = keyOf(child(many, 'key'), context)
  if (per_key !== null && absent(child(many, 'key')))
    context.report('AG1007', child(many, 'per_key')?.span ?? node.span, 'per_key has no key to count by', {
      help: 'add key: ${{ input.NAME }} or ${{ run }}, or use total',
    })
  return {
    concurrency: integer(many === undefined ? given : child(many, 'per_replica'), DEFAULTS.agent.concurrency, 1, MOST_PER_REPLICA, context),
    work: {
      total: limit('total'),
      key,
      per_key: key === null ? null : per_key,
      rate: rateOf(child(node, 'rate_limit'), context),
      retry: retryOf(child(node, 'retry'), context),
      timeouts: timeoutsOf(child(node, 'timeouts'), context),
      stall: stallOf(child(node, 'stall'), context),
      max_queue: maxQueueOf(child(node, 'max_queue'), context),
    },
  }
}

function keyOf(node: Node | undefined, context: Context): readonly string[] | null {
  if (absent(node)) return null
  const names = parseReference(textOf(node))
  if (names?.[0] === 'run' && names.length === 1) return names
  if (names?.[0] === 'input' && names.length > 1) return names
  context.report('AG2004', node.span, `expected \${{ input.KEY }} or \${{ run }} as the key, got ${found(node)}`, {
    help: 'input is what the task is given: ${{ input.tenant }}',
  })
  return null
}

/** A duration of at least a millisecond: zero would be a limit that nothing can keep. */
function time(parent: Node | undefined, key: string, otherwise: number, context: Context): number {
  const node = child(parent, key)
  if (absent(node)) return otherwise
  const ms = readOr(duration(textOf(node)), node, context, otherwise)
  if (ms > 0) return ms
  context.report('AG1005', node.span, `expected a duration of at least 1ms for ${key}, got ${found(node)}`, {
    help: 'leave the key out for no limit',
  })
  return otherwise
}

function rateOf(node: Node | undefined, context: Context): WorkPolicy['rate'] {
  if (absent(node)) return null
  if (node.kind !== 'map') return readOr(rate(textOf(node)), node, context, null)
  if (absent(child(node, 'max')) || absent(child(node, 'per'))) return null
  return { max: integer(child(node, 'max'), 1, 1, MOST_TASKS, context), per_ms: time(node, 'per', 1000, context) }
}

function retryOf(node: Node | undefined, context: Context): RetryPolicy {
  const otherwise = DEFAULT_WORK.retry
  const backoff = textOf(child(node, 'backoff'))
  const on = child(node, 'on')
  const delay_ms = zeroOr(node, 'delay', otherwise.delay_ms, context)
  const max_delay_ms = zeroOr(node, 'max_delay', Math.max(otherwise.max_delay_ms, delay_ms), context)
  const most = child(node, 'max_delay')
  if (delay_ms > max_delay_ms && most !== undefined)
    context.report('AG1005', most.span, 'the longest delay of a retry is below its first one', { help: 'raise max_delay, or lower delay' })
  return {
    attempts: integer(child(node, 'attempts'), otherwise.attempts, 1, 1_000, context),
    delay_ms,
    max_delay_ms,
    backoff: backoff === 'fixed' || backoff === 'exponential' ? backoff : otherwise.backoff,
    jitter: shareOf(child(node, 'jitter'), otherwise.jitter, context),
    on: absent(on) ? otherwise.on : itemsOf(on).map(textOf),
  }
}

function zeroOr(parent: Node | undefined, key: string, otherwise: number, context: Context): number {
  const node = child(parent, key)
  return absent(node) ? otherwise : readOr(duration(textOf(node)), node, context, otherwise)
}

function shareOf(node: Node | undefined, otherwise: number, context: Context): number {
  if (absent(node)) return otherwise
  const text = textOf(node)
  const share = Number(text)
  if (text !== '' && share >= 0 && share <= 1) return share
  context.report('AG1005', node.span, `expected a number from 0 to 1, got ${found(node)}`)
  return otherwise
}

function timeoutsOf(node: Node | undefined, context: Context): Timeouts {
  const limit = (key: string): number | null => (absent(child(node, key)) ? null : time(node, key, 1, context))
  const timeouts = {
    schedule_to_start_ms: limit('schedule_to_start'),
    start_to_close_ms: limit('start_to_close'),
    schedule_to_close_ms: limit('schedule_to_close'),
    heartbeat_ms: limit('heartbeat'),
  }
  const within = (inner: 'schedule_to_start' | 'start_to_close' | 'heartbeat', outer: 'start_to_close' | 'schedule_to_close'): void => {
    const [less, more] = [timeouts[`${inner}_ms`], timeouts[`${outer}_ms`]]
    const place = child(node, inner)
    if (less === null || more === null || less <= more || place === undefined) return
    context.report('AG1005', place.span, `${inner} is longer than ${outer}: it would never be reached`, {
      help: `lower ${inner}, or raise ${outer}`,
    })
  }
  within('schedule_to_start', 'schedule_to_close')
  within('start_to_close', 'schedule_to_close')
  within('heartbeat', 'start_to_close')
  return timeouts
}

const NEVER: StallPolicy = { repeats: null, steps: null, tokens: null }

function stallOf(node: Node | undefined, context: Context): StallPolicy {
  if (absent(node)) return DEFAULT_WORK.stall
  if (node.kind !== 'map') return textOf(node) === 'false' ? NEVER : DEFAULT_WORK.stall
  const rule = (key: keyof StallPolicy, most: number): number | null => {
    const value = child(node, key)
    return absent(value) ? DEFAULT_WORK.stall[key] : integer(value, 0, 0, most, context) || null
  }
  return { repeats: rule('repeats', 1_000_000), steps: rule('steps', 1_000_000_000), tokens: rule('tokens', 1_000_000_000_000) }
}

function maxQueueOf(node: Node | undefined, context: Context): number {
  if (absent(node)) return DEFAULT_WORK.max_queue
  const tasks = readOr(count(textOf(node)), node, context, DEFAULT_WORK.max_queue)
  if (tasks >= 1 && tasks <= 10_000_000) return tasks
  context.report('AG1005', node.span, `expected a number of tasks from 1 to 10m, got ${found(node)}`)
  return DEFAULT_WORK.max_queue
}
