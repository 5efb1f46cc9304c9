/** Where telemetry goes: read from the project record, looked at again every 500 ms (the state volume tells nobody of a change). */
import { RECORD_VERSION } from '../record.ts'
import { watchRecord } from './watch-record.ts'

/** The base URL of OTLP/HTTP; null: drop what comes. */
export type Endpoint = URL | null

export interface Destination {
  readonly endpoint: Endpoint
  /** Why there is none, where that is a fault; null: all well, or not asked for. */
  readonly problem: string | null
}

/** Pure: the text of a record → where to send. A record that we cannot trust gives no endpoint (fail closed), with the reason. */
export function destinationOf(text: string): Destination {
  const record = JSON.parse(text) as { version?: unknown; project?: { telemetry?: { endpoint?: unknown } | null } }
  if (typeof record.version !== 'number' || record.version > RECORD_VERSION) {
    return { endpoint: null, problem: `the project record has version ${String(record.version)}; this egress knows ${RECORD_VERSION}` }
  }
  const given = record.project?.telemetry?.endpoint
  if (given === undefined || given === null) return { endpoint: null, problem: null }
  const endpoint = typeof given === 'string' && URL.canParse(given) ? new URL(given) : null
  if (endpoint === null || !['http:', 'https:'].includes(endpoint.protocol)) {
    return { endpoint: null, problem: 'telemetry.endpoint is not an http:// or https:// URL' }
  }
  return { endpoint, problem: null }
}

/** The endpoint is a base, as with OTEL_EXPORTER_OTLP_ENDPOINT; one that already names the traces' path is forgiven. */
export function targetUrl(endpoint: URL, path: string): URL {
  const target = new URL(endpoint)
  target.pathname = endpoint.pathname.replace(/\/(v1\/traces)?\/?$/, '') + path
  return target
}

/** Calls `changed` at once if there is a record, and after every change, until the signal aborts. */
export async function watchDestination(file: string, changed: (destination: Destination) => void, signal: AbortSignal): Promise<void> {
  const stop = await watchRecord(file, (text) => changed(text === null ? { endpoint: null, problem: null } : destinationOf(text)))
  signal.addEventListener('abort', stop, { once: true })
}
