/**
 * Starts tracing in a process: the only importer of the OTEL SDK, and imported lazily itself by whoever may not need it.
 *
 * Not NodeSDK. Bundled as the gateway is, Node 24, median of 3: NodeSDK + OTLP exporter 611 kB, 110 ms to load, 68 MB RSS;
 * sdk-trace + this exporter 41 kB, 5 ms, 50 MB (it brings gRPC, Prometheus, Zipkin and YAML along, and reads OTEL_* from the
 * environment). OTLPTraceExporter is left out for the same reason: it would send the headers that the user's
 * OTEL_EXPORTER_OTLP_HEADERS holds (keys, as a rule) to our gateway, and its retries hold an exit for 8 s.
 */
import { Agent } from 'node:http'
import { trace } from '@opentelemetry/api'
import { JsonTraceSerializer } from '@opentelemetry/otlp-transformer'
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, RandomIdGenerator, type ReadableSpan, type SpanExporter, TracerProvider } from '@opentelemetry/sdk-trace'
import { post } from '../post.ts'
import { forcedIds } from './ids.ts'
import { ATTR } from './names.ts'

export const EXPORT_TIMEOUT_MS = 1_500
/** Longer than one export, so that a last batch which meets a slow receiver still gets its chance. */
export const STOP_MS = 2_500
const BATCH_DELAY_MS = 500
/** Spans that wait while an export hangs; the newest are dropped above it. About 4 MB. */
const QUEUE_SPANS = 4_096

export type Send = (body: Uint8Array, signal: AbortSignal) => Promise<void>

export interface TelemetryOptions {
  readonly service: string
  readonly instance?: string
  readonly project?: string
  readonly version?: string
  /** Where to POST OTLP/HTTP JSON: http://egress:4318/v1/traces. null without `send`: tracing is off. */
  readonly url: string | null
  /** Another way out, instead of `url`: the CLI posts over the gateway's control connection. */
  readonly send?: Send
}

export interface Telemetry {
  /** Send what is left, for `ms` at most. Never rejects. */
  stop(ms?: number): Promise<void>
}

export const noTelemetry: Telemetry = { stop: () => Promise.resolve() }

/** Never throws; a receiver that is dead, slow or wrong costs spans and nothing else. */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  try {
    const send = options.send ?? (options.url === null ? null : sendTo(new URL(options.url)))
    return send === null ? noTelemetry : start(options, send)
  } catch {
    return noTelemetry
  }
}

function start(options: TelemetryOptions, send: Send): Telemetry {
  const abort = new AbortController()
  const provider = new TracerProvider({
    // No detectors: the defaults put process.command_args and host.id on every batch.
    resource: defaultResource().merge(
      resourceFromAttributes({
        [ATTR.serviceName]: options.service,
        ...(options.instance === undefined ? {} : { [ATTR.serviceInstance]: options.instance }),
        ...(options.project === undefined ? {} : { [ATTR.serviceNamespace]: options.project }),
        ...(options.version === undefined ? {} : { [ATTR.serviceVersion]: options.version }),
      }),
    ),
    idGenerator: ids,
    spanLimits: { attributeValueLengthLimit: 1_024, attributeCountLimit: 64, eventCountLimit: 32, linkCountLimit: 32 },
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: new Exporter(send, abort.signal),
        scheduledDelayMillis: BATCH_DELAY_MS,
        exportTimeoutMillis: EXPORT_TIMEOUT_MS + 500,
        maxQueueSize: QUEUE_SPANS,
      }),
    ],
  })
  trace.setGlobalTracerProvider(provider)
  return { stop: (ms = STOP_MS) => stop(provider, abort, ms) }
}

async function stop(provider: TracerProvider, abort: AbortController, ms: number): Promise<void> {
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, ms)
  await Promise.race([provider.shutdown().catch(() => {}), late.promise])
  clearTimeout(timer)
  // What still hangs would keep the process alive.
  abort.abort()
  trace.disable()
}

const random = new RandomIdGenerator()
const ids = {
  generateTraceId: (): string => forcedIds()?.trace_id ?? random.generateTraceId(),
  generateSpanId: (): string => forcedIds()?.span_id ?? random.generateSpanId(),
}

class Exporter implements SpanExporter {
  readonly #send: Send
  readonly #signal: AbortSignal
  readonly #pending = new Set<Promise<void>>()
  constructor(send: Send, signal: AbortSignal) {
    this.#send = send
    this.#signal = signal
  }

  export(spans: ReadableSpan[], done: Parameters<SpanExporter['export']>[1]): void {
    const sending = this.#deliver(spans).then(
      () => done({ code: 0 }),
      (cause: unknown) => done({ code: 1, error: cause instanceof Error ? cause : new Error('export failed') }),
    )
    this.#pending.add(sending)
    void sending.finally(() => this.#pending.delete(sending))
  }

  async #deliver(spans: ReadableSpan[]): Promise<void> {
    const body = JsonTraceSerializer.serializeRequest(spans)
    if (body === undefined) return
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(EXPORT_TIMEOUT_MS)])
    const given = Promise.withResolvers<never>()
    signal.addEventListener('abort', () => given.reject(new Error('export gave up')), { once: true })
    given.promise.catch(() => {}) // a `send` that throws at once leaves nobody to hear it
    await Promise.race([this.#send(body, signal), given.promise])
  }

  /** The batch processor forgets an export that its timer began: wait for it here, or an exit right after loses it. */
  async forceFlush(): Promise<void> {
    await Promise.all(this.#pending)
  }
  shutdown(): Promise<void> {
    return this.forceFlush()
  }
}

function sendTo(url: URL): Send {
  const agent = new Agent({ keepAlive: true, maxSockets: 2, keepAliveMsecs: 1_000 })
  return async (body, signal) => {
    const status = await post(url, body, { headers: { 'content-type': 'application/json' }, timeout_ms: EXPORT_TIMEOUT_MS, signal, agent })
    if (status >= 300) throw new Error(`the trace receiver answered ${status}`)
  }
}
