/** A real OTLP/HTTP receiver (JSON), for assertions on the bytes that arrived. Binds all addresses, so that containers reach it. */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { gunzipSync } from 'node:zlib'

export interface ReceivedRequest {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}
export type AttributeValue = string | number | boolean | readonly AttributeValue[]
export interface ReceivedSpan {
  readonly trace_id: string
  readonly span_id: string
  /** '' for a root. */
  readonly parent: string
  readonly name: string
  readonly kind: 'internal' | 'server' | 'client' | 'producer' | 'consumer' | 'unspecified'
  readonly start_ms: number
  readonly end_ms: number
  readonly error: boolean
  readonly status_message: string
  readonly attributes: { readonly [key: string]: AttributeValue }
  readonly resource: { readonly [key: string]: AttributeValue }
}

/** ok: 200 · hang: takes the body, never answers · anything else: that status. */
export type Mode = 'ok' | 'hang' | number

const KINDS = ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'] as const

interface WireValue {
  readonly stringValue?: string
  readonly intValue?: string | number
  readonly doubleValue?: number
  readonly boolValue?: boolean
  readonly arrayValue?: { readonly values?: readonly WireValue[] }
}
type WireAttributes = readonly { readonly key: string; readonly value: WireValue }[]
interface WireSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind?: number
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly status?: { readonly code?: number; readonly message?: string }
  readonly attributes?: WireAttributes
}
interface WireTraces {
  readonly resourceSpans?: readonly {
    readonly resource?: { readonly attributes?: WireAttributes }
    readonly scopeSpans?: readonly { readonly spans?: readonly WireSpan[] }[]
  }[]
}

const value = (wire: WireValue): AttributeValue =>
  wire.stringValue ??
  wire.boolValue ??
  wire.doubleValue ??
  (wire.intValue === undefined ? (wire.arrayValue?.values ?? []).map(value) : Number(wire.intValue))
const attributes = (wire: WireAttributes = []): { [key: string]: AttributeValue } =>
  Object.fromEntries(wire.map((entry) => [entry.key, value(entry.value)]))
const ms = (nanoseconds: string): number => Number(BigInt(nanoseconds) / 1_000n) / 1_000

/** OTLP JSON text → flat spans. */
export function parseSpans(json: string): ReceivedSpan[] {
  const traces = JSON.parse(json) as WireTraces
  return (traces.resourceSpans ?? []).flatMap(({ resource, scopeSpans = [] }) =>
    scopeSpans.flatMap(({ spans = [] }) =>
      spans.map((span) => ({
        trace_id: span.traceId,
        span_id: span.spanId,
        parent: span.parentSpanId ?? '',
        name: span.name,
        kind: KINDS[span.kind ?? 0] ?? 'unspecified',
        start_ms: ms(span.startTimeUnixNano),
        end_ms: ms(span.endTimeUnixNano),
        error: span.status?.code === 2,
        status_message: span.status?.message ?? '',
        attributes: attributes(span.attributes),
        resource: attributes(resource?.attributes),
      })),
    ),
  )
}

export class OtlpReceiver {
  readonly requests: ReceivedRequest[] = []
  mode: Mode = 'ok'
  #server: Server
  #port = 0
  readonly #waiters = new Set<() => void>()

  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver()
    await receiver.listen()
    return receiver
  }

  private constructor() {
    this.#server = createServer()
  }

  get port(): number {
    return this.#port
  }
  /** Base for `telemetry.endpoint`, from this machine. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }
  /** The same from a container on a bridge network: an address of the host that is not loopback. */
  get hostUrl(): string {
    const address = Object.values(networkInterfaces())
      .flat()
      .find((entry) => entry?.family === 'IPv4' && !entry.internal)?.address
    if (address === undefined) throw new Error('this machine has no IPv4 address besides loopback; a container cannot reach the receiver')
    return `http://${address}:${this.#port}`
  }

  /** Listen (again, on the same port after `refuse`). */
  async listen(): Promise<void> {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('error', () => {})
      request.on('end', () => {
        const raw = Buffer.concat(chunks)
        const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw
        const { mode } = this
        this.requests.push({ path: request.url ?? '', headers: request.headers, body })
        if (mode !== 'hang') response.writeHead(mode === 'ok' ? 200 : mode, { 'content-type': 'application/json' }).end('{}')
        for (const wake of this.#waiters) wake()
      })
    })
    await new Promise<void>((resolve, reject) => this.#server.once('error', reject).listen(this.#port, '0.0.0.0', resolve))
    this.#port = (this.#server.address() as AddressInfo).port
  }

  /** Connections are refused from now on; `listen` takes them again. */
  async refuse(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** All bodies as they came, for "this never left the machine" assertions. */
  text(): string {
    return this.requests.map((request) => request.body.toString('utf8')).join('\n')
  }

  /** Spans of the requests that were answered well or not: what arrived. */
  spans(): ReceivedSpan[] {
    return this.requests
      .filter((request) => request.path === '/v1/traces')
      .flatMap((request) => {
        const type = request.headers['content-type'] ?? ''
        if (!type.startsWith('application/json')) throw new Error(`the receiver reads OTLP JSON; ${type} arrived`)
        return parseSpans(request.body.toString('utf8'))
      })
  }

  /** Until `predicate` holds of the spans (looked at after every request). */
  async waitFor(
    predicate: (spans: readonly ReceivedSpan[], requests: readonly ReceivedRequest[]) => boolean,
    timeout_ms = 10_000,
  ): Promise<ReceivedSpan[]> {
    const deadline = Date.now() + timeout_ms
    for (;;) {
      const spans = this.spans()
      if (predicate(spans, this.requests)) return spans
      const left = deadline - Date.now()
      if (left <= 0)
        throw new Error(
          `the expected spans did not arrive in ${timeout_ms} ms; arrived: ${spans.map((span) => span.name).join(', ') || 'none'}`,
        )
      const woken = Promise.withResolvers<void>()
      const timer = setTimeout(woken.resolve, left)
      this.#waiters.add(woken.resolve)
      await woken.promise
      this.#waiters.delete(woken.resolve)
      clearTimeout(timer)
    }
  }

  async stop(): Promise<void> {
    await this.refuse().catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
