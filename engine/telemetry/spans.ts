/**
 * How the rest of the engine makes spans. Parents are given as traceparent text, never through an ambient context: the gateway
 * interleaves thousands of tasks in one event loop, and an AsyncLocalStorage would tax each of them.
 * Spans carry names, ids, counts and codes. Never a prompt, an input, a result, a secret, or the message of an error.
 */
import {
  ROOT_CONTEXT,
  type Attributes,
  type Context,
  type HrTime,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api'
import { withIds } from './ids.ts'
import { ATTR } from './names.ts'
import { formatTraceparent, newTraceparent, parseTraceparent } from './traceparent.ts'

export type Kind = 'internal' | 'producer' | 'consumer' | 'client' | 'server'
const KIND: { readonly [kind in Kind]: SpanKind } = {
  internal: SpanKind.INTERNAL,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
  client: SpanKind.CLIENT,
  server: SpanKind.SERVER,
}

const tracer = (): ReturnType<typeof trace.getTracer> => trace.getTracer('agentctl')

/** A malformed or missing traceparent is the root. */
export function contextOf(traceparent: string | null | undefined): Context {
  const ids = parseTraceparent(traceparent)
  if (ids === null) return ROOT_CONTEXT
  return trace.setSpanContext(ROOT_CONTEXT, { traceId: ids.trace_id, spanId: ids.span_id, traceFlags: TraceFlags.SAMPLED, isRemote: true })
}

/** null when tracing is off (the API's no-op span has no ids). */
export function traceparentOf(span: Span): string | null {
  const { traceId, spanId } = span.spanContext()
  const text = formatTraceparent({ trace_id: traceId, span_id: spanId })
  return parseTraceparent(text) === null ? null : text
}

/** What may stand in `error.type`: our codes, codes of agents, names of error classes; anything longer or stranger could carry data. */
export function errorType(error: unknown): string {
  const given =
    typeof error === 'object' && error !== null
      ? 'code' in error && typeof error.code === 'string'
        ? error.code
        : error instanceof Error
          ? error.name
          : ''
      : error
  return typeof given === 'string' && /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(given) ? given : 'error'
}

export function failSpan(span: Span, error: unknown): void {
  span.setStatus({ code: SpanStatusCode.ERROR })
  span.setAttribute(ATTR.errorType, errorType(error))
}

export interface SpanOptions {
  readonly parent?: string | null
  readonly kind?: Kind
  readonly attributes?: Attributes
}

/** A span around `fn`; it ends in every case. `fn` gets the traceparent for what it calls: a real one also when tracing is off. */
export async function withSpan<T>(name: string, options: SpanOptions, fn: (traceparent: string, span: Span) => Promise<T>): Promise<T> {
  const { parent, kind = 'internal', attributes = {} } = options
  const span = tracer().startSpan(name, { kind: KIND[kind], attributes }, contextOf(parent))
  try {
    return await fn((span.isRecording() ? traceparentOf(span) : null) ?? newTraceparent(parent), span)
  } catch (error) {
    failSpan(span, error)
    throw error
  } finally {
    span.end()
  }
}

export interface RecordedSpan {
  readonly name: string
  /** Its own ids, from `newTraceparent` or `derivedTraceparent`. */
  readonly traceparent: string
  readonly parent: string | null
  readonly kind?: Kind
  readonly attributes?: Attributes
  /** Unix ms. */
  readonly start: number
  readonly end: number
  /** What went wrong: a code or an error. Absent or null: it went well (status stays unset). */
  readonly error?: unknown
}

/** The SDK takes a small number for time since the process began; a pair is never misread. */
const time = (ms: number): HrTime => [Math.floor(ms / 1_000), Math.round((ms % 1_000) * 1e6)]

/** Tell a span that has ended, from facts: outlives a restart of the process in which it began. No-op with tracing off. */
export function recordSpan(recorded: RecordedSpan): void {
  const { name, traceparent, parent, kind = 'internal', attributes = {}, start, end, error } = recorded
  const ids = parseTraceparent(traceparent)
  if (ids === null) return
  const span = withIds(ids, () => tracer().startSpan(name, { kind: KIND[kind], attributes, startTime: time(start) }, contextOf(parent)))
  if (error !== undefined && error !== null) failSpan(span, error)
  // An end before its start (a clock that was set back) would be logged by the SDK and corrected to the start.
  span.end(time(Math.max(start, end)))
}
