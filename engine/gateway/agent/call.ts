/** What the routes of the agent protocol share: the request as it was identified, the parts of the gateway, and the errors that several give. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { MAX_PAYLOAD_BYTES } from '../../../spec/protocol.ts'
import type { Broker } from '../../broker/port.ts'
import type { Approvals } from '../approvals.ts'
import type { Artifacts } from '../artifacts.ts'
import type { Config } from '../config.ts'
import type { Dispatcher } from '../dispatcher.ts'
import type { RunEvents } from '../events.ts'
import { badRequest, type Fields, HttpError, type Reserve } from '../http.ts'
import type { Journals } from '../journal.ts'
import type { Logs } from '../logs.ts'
import type { Replica, Session } from '../replicas.ts'
import type { Runs } from '../runs.ts'
import type { TraceForwarder } from '../traces.ts'
import type { Tracing } from '../tracing.ts'
import type { Views } from '../views.ts'
import type { Lease } from '../work.ts'
import type { Pace } from './storing.ts'

/** A request that meets a broker (or gateway) that is not ready is held for so long, then 503: below the 5 s after which runtimes give an answer up. */
export const READY_MS = 2_000

export interface AgentApiOptions {
  readonly key: string
  readonly config: Config
  readonly broker: Broker
  readonly dispatcher: Dispatcher
  readonly runs: Runs
  readonly views: Views
  readonly events: RunEvents
  readonly tracing: Tracing
  readonly traces: TraceForwarder
  readonly approvals: Approvals
  readonly artifacts: Artifacts
  readonly journals: Journals
  /** Tests: of artifacts, in and out. */
  readonly pace?: Pace
  readonly logs: Logs
  /** With several gateways: takes the requests of the first of them, which ask for what control sockets are asked for. */
  readonly door?: (request: IncomingMessage, response: ServerResponse) => boolean
  /** The state of the gateway before is taken over. */
  readonly ready: Promise<void>
  readonly log: (message: string) => void
}

/** The gateway as a route sees it. */
export interface Kit extends AgentApiOptions {
  json(call: Call): Promise<Fields>
  /** Room for a body is held until the answer is out. */
  reserve(call: Call): Reserve
  /** Held while the broker is away, for READY_MS, then 503. */
  whenReady(signal: AbortSignal): Promise<void>
  /** The lease, if this replica holds it; else 409. */
  held(replica: Replica, token: string): Lease
}

export interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly session: Session
  readonly replica: Replica
  readonly signal: AbortSignal
  readonly url: URL
  /** What stands for the {NAME} in the path of the route, decoded; '' where there is none. */
  readonly rest: string
}

export type Handler = (kit: Kit, call: Call) => Promise<void>

export const unavailable = (): HttpError => new HttpError(503, 'unavailable', 'the broker is away', 'Send the request again.')
export const lost = (): HttpError =>
  new HttpError(409, 'lease_lost', 'the lease is dead, or not of this replica', 'Stop the work; its result would be refused.')
export const tooLarge = (what: string, bytes: number): HttpError =>
  new HttpError(
    413,
    'payload_too_large',
    `the ${what} has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`,
    'Write large data to an artifact or a volume and pass its place.',
  )

/** `?lease=`, of requests whose body is not JSON. */
export function leaseParam(url: URL): string {
  const token = url.searchParams.get('lease')
  if (token === null || token === '') throw badRequest('the query must name the lease: ?lease=LEASE')
  return token
}

/** null: not in time. */
export async function inTime<T>(work: Promise<T>, ms: number): Promise<T | null> {
  const late = Promise.withResolvers<null>()
  const timer = setTimeout(() => late.resolve(null), ms)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
