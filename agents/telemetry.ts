/** Spans as OTLP/JSON to the gateway, without an SDK (memory). Bounded; never blocks or fails a task; no inputs and no results in it. */
import type { LeasedTask } from '../spec/protocol.ts'
import type { SpanData } from './messages.ts'

const FLUSH_MS = 1_000
const MAX_QUEUED = 2_048
const MAX_BATCH = 512
/** Names and keys are those of engine/telemetry/names.ts, which is out of reach from here; test/unit/telemetry/agent-names.test.ts holds them together. */
export const AGENT_SPAN = {
  name: (agent: string): string => `invoke_agent ${agent}`,
  operation: 'gen_ai.operation.name',
  agentName: 'gen_ai.agent.name',
  run: 'agentctl.run.id',
  task: 'agentctl.task.id',
  taskType: 'agentctl.task.type',
  attempt: 'agentctl.job.attempt',
  errorType: 'error.type',
} as const
/** SPAN_KIND_INTERNAL, STATUS_CODE_ERROR of OTLP. */
const KIND_INTERNAL = 1
const STATUS_ERROR = 2

export interface SpanContext {
  readonly traceId: string
  readonly spanId: string
}
export interface ParentContext extends SpanContext {
  readonly sampled: boolean
}

const hex32 = (): string =>
  Math.floor(Math.random() * 0x1_0000_0000)
    .toString(16)
    .padStart(8, '0')
/** Unique, not secret: no need of node:crypto. */
export const newSpanId = (): string => {
  const id = hex32() + hex32()
  return id === '0000000000000000' ? newSpanId() : id
}

export function parseTraceparent(text: string | null): ParentContext | null {
  const match = text === null ? null : /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})/.exec(text)
  const [, traceId, spanId, flags] = match ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return null
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}

export const traceparent = ({ traceId, spanId }: SpanContext): string => `00-${traceId}-${spanId}-01`

const nanos = (ms: number): string => (BigInt(Math.round(ms * 1_000)) * 1_000n).toString()

const attribute = ([key, value]: readonly [string, string | number]): unknown => ({
  key,
  value: typeof value === 'number' ? { intValue: String(value) } : { stringValue: value },
})

export function otlpBody(service: string, spans: readonly SpanData[]): string {
  return JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: [attribute(['service.name', service])] },
        scopeSpans: [
          {
            scope: { name: 'agentctl.agent' },
            spans: spans.map((span) => ({
              traceId: span.traceId,
              spanId: span.spanId,
              parentSpanId: span.parentSpanId,
              name: span.name,
              kind: KIND_INTERNAL,
              startTimeUnixNano: nanos(span.start),
              endTimeUnixNano: nanos(span.end),
              attributes: Object.entries(span.attributes).map(attribute),
              ...(span.error === null ? {} : { status: { code: STATUS_ERROR } }),
            })),
          },
        ],
      },
    ],
  })
}

/** A code, and nothing that could carry data: errors quote inputs. */
export const errorType = (code: string): string => (/^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(code) ? code : 'error')

/** What every span of a task says. */
export const spanAttributes = (run: string, task: string, error: string | null): SpanData['attributes'] => ({
  [AGENT_SPAN.run]: run,
  [AGENT_SPAN.task]: task,
  ...(error === null ? {} : { [AGENT_SPAN.errorType]: errorType(error) }),
})

export class Tracer {
  readonly #agent: string
  readonly #enabled: boolean
  readonly #send: (body: string) => Promise<unknown>
  #queue: SpanData[] = []
  #timer: NodeJS.Timeout | null = null
  #sending: Promise<void> | null = null

  constructor(agent: string, enabled: boolean, send: (body: string) => Promise<unknown>) {
    this.#agent = agent
    this.#enabled = enabled
    this.#send = send
  }

  /** The `invoke_agent` span of a task that starts now; null: not traced. `end` takes the code of the failure, or null. */
  start(task: LeasedTask): { readonly context: SpanContext; readonly end: (error: string | null) => void } | null {
    const parent = this.#enabled ? parseTraceparent(task.traceparent) : null
    if (parent?.sampled !== true) return null
    const context = { traceId: parent.traceId, spanId: newSpanId() }
    const start = performance.timeOrigin + performance.now()
    const end = (error: string | null): void =>
      this.add({
        ...context,
        parentSpanId: parent.spanId,
        name: AGENT_SPAN.name(this.#agent),
        start,
        end: performance.timeOrigin + performance.now(),
        attributes: {
          [AGENT_SPAN.operation]: 'invoke_agent',
          [AGENT_SPAN.agentName]: this.#agent,
          [AGENT_SPAN.taskType]: task.type,
          [AGENT_SPAN.attempt]: task.attempt,
          ...spanAttributes(task.run, task.id, error),
        },
        error,
      })
    return { context, end }
  }

  add(span: SpanData): void {
    if (!this.#enabled || this.#queue.length >= MAX_QUEUED) return
    this.#queue.push(span)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  /** Sends what is queued; a batch that the gateway does not take is dropped. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = null
    })
    return this.#sending
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, MAX_BATCH)
      try {
        await this.#send(otlpBody(this.#agent, batch))
      } catch {
        // Telemetry never fails a task.
      }
    }
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }
}
