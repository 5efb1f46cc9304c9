/**
 * Ids of the next span, for spans that are told after the fact (`recordSpan`): the SDK takes ids from its generator alone.
 * Set and used in one synchronous stretch, hence a plain variable.
 */
import type { TraceIds } from './traceparent.ts'

let forced: TraceIds | null = null

export function withIds<T>(ids: TraceIds, start: () => T): T {
  forced = ids
  try {
    return start()
  } finally {
    forced = null
  }
}

export const forcedIds = (): TraceIds | null => forced
