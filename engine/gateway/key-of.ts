/** The key by which tasks of an agent are kept fair: `concurrency.key`, a path into the task. */
import { createHash } from 'node:crypto'
import type { Json } from '../../spec/protocol.ts'
import { inputOf, type Task } from './work.ts'

/** A longer one is told by its hash: it stands in each task's head. */
const MAX_KEY = 128

/** Tasks without a value there share one key. */
export function keyOf(path: readonly string[], task: Pick<Task, 'run' | 'type'>, data: string): string {
  const [first, ...rest] = path
  if (first === 'run') return task.run
  if (first === 'type') return task.type
  let value: Json | undefined = JSON.parse(inputOf(data)) as Json
  for (const name of rest) value = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined
  const text = typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value)
  return text.length <= MAX_KEY ? text : `sha256:${createHash('sha256').update(text).digest('hex')}`
}

const isObject = (value: Json | undefined): value is { readonly [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
