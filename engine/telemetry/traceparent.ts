/** W3C trace context as text: what travels through the CLI, the run record, jobs and leases. Needs no SDK and works with tracing off. */
import { createHash, randomBytes } from 'node:crypto'

export interface TraceIds {
  readonly trace_id: string
  readonly span_id: string
}

const FORM = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/

/** null for anything malformed: a bad header starts a new trace and breaks nothing. */
export function parseTraceparent(text: string | null | undefined): TraceIds | null {
  const match = FORM.exec(text ?? '')
  const [, version, trace_id, span_id] = match ?? []
  if (version === undefined || version === 'ff' || trace_id === undefined || span_id === undefined) return null
  return /^0+$/.test(trace_id) || /^0+$/.test(span_id) ? null : { trace_id, span_id }
}

/** Always sampled: runs are few and precious. */
export const formatTraceparent = ({ trace_id, span_id }: TraceIds): string => `00-${trace_id}-${span_id}-01`

/** A fresh span: in the parent's trace, or a new trace. */
export function newTraceparent(parent?: string | null): string {
  const trace_id = parseTraceparent(parent)?.trace_id ?? randomBytes(16).toString('hex')
  return formatTraceparent({ trace_id, span_id: randomBytes(8).toString('hex') })
}

/**
 * A span in the parent's trace whose id follows from `key` ("send|TASK", "process|TASK|ATTEMPT"): whoever comes after a restart finds
 * the same id again, so that children which already refer to it keep their parent and nothing has to be stored.
 */
export function derivedTraceparent(parent: string, key: string): string {
  const trace_id = parseTraceparent(parent)?.trace_id
  if (trace_id === undefined) return newTraceparent()
  return formatTraceparent({ trace_id, span_id: createHash('sha256').update(`${trace_id}|${key}`).digest('hex').slice(0, 16) })
}

export const traceIdOf = (traceparent: string | null | undefined): string | null => parseTraceparent(traceparent)?.trace_id ?? null
