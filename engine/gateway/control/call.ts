/** What the routes of the control API share: the request, the parts of the gateway, and the errors that several give. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { MAX_WAIT_MS } from '../../../spec/protocol.ts'
import type { Broker } from '../../broker/port.ts'
import type { Approvals } from '../approvals.ts'
import type { Artifacts } from '../artifacts.ts'
import type { Config } from '../config.ts'
import type { Dispatcher } from '../dispatcher.ts'
import type { RunEvents } from '../events.ts'
import { type Fields, type HttpError, sendJson } from '../http.ts'
import type { Records } from '../records.ts'
import type { Runs } from '../runs.ts'
import { refuse } from '../submission.ts'
import type { TraceForwarder } from '../traces.ts'
import type { Views } from '../views.ts'
import type { Schema } from './schema.ts'

export interface ControlApiOptions {
  readonly config: Config
  readonly broker: Broker
  readonly dispatcher: Dispatcher
  readonly runs: Runs
  readonly views: Views
  readonly events: RunEvents
  readonly records: Pick<Records, 'loss' | 'archive'>
  readonly traces: TraceForwarder
  readonly approvals: Pick<Approvals, 'decide' | 'get' | 'list' | 'pendingOf'>
  readonly artifacts: Pick<Artifacts, 'ofRun' | 'open'>
  readonly ready: Promise<void>
  /** With several gateways, of the first: what it asks the others. */
  readonly front?: { handle(kit: Kit, route: Route, call: Call): Promise<boolean> }
  readonly log: (message: string) => void
}

/** The gateway as a route sees it. */
export interface Kit extends ControlApiOptions {
  /** The gateway has taken over and the broker answers; else 503 after a while. */
  whenReady(): Promise<void>
}

export interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  /** Aborts when the caller has gone. */
  readonly signal: AbortSignal
  /** What stands for {run}, {task}, … in the path, decoded. */
  readonly at: { readonly [name: string]: string }
  /** The body, checked by the route's schema; {} where it has none. */
  readonly body: Fields
}

export interface Parameter extends Schema {
  readonly description: string
}

export interface Answer {
  readonly description: string
  /** By media type. */
  readonly content?: { readonly [type: string]: Schema }
}

export interface Route {
  readonly method: 'GET' | 'POST'
  /** As OpenAPI writes it: /v1/runs/{run}. */
  readonly path: string
  readonly id: string
  readonly summary: string
  readonly description?: string
  readonly query?: { readonly [name: string]: Parameter }
  readonly headers?: { readonly [name: string]: Parameter }
  /** Of a JSON body, which is read and checked before `handle`. */
  readonly body?: Schema
  readonly answers: { readonly [status: string]: Answer }
  /** Error statuses beyond 400 and 500. */
  readonly errors?: readonly number[]
  readonly handle: (kit: Kit, call: Call) => Promise<void>
}

export const answerJson = (description: string, schema: Schema): { readonly [status: string]: Answer } => ({
  '200': { description, content: { 'application/json': schema } },
})

export const send = ({ response }: Call, view: unknown): void => sendJson(response, 200, JSON.stringify(view))

export const noRun = (id: string): HttpError => refuse(404, 'AG6001', `there is no run "${id.slice(0, 100)}"`)
export const noTask = (id: string): HttpError => refuse(404, 'AG6001', `there is no task "${id.slice(0, 200)}"`)
export const wrong = (message: string): HttpError => refuse(400, 'AG6006', message, 'See docs/control-api.md.')

/** A whole number of the query, or `otherwise`. The route's table has checked its form. */
const numberOf = ({ url }: Call, name: string, otherwise: number): number => {
  const text = url.searchParams.get(name)
  return text === null ? otherwise : Number(text)
}
const DEFAULT_LIMIT = 100
export const limitOf = (call: Call): number => numberOf(call, 'limit', DEFAULT_LIMIT)
export const waitOf = (call: Call): number => Math.min(numberOf(call, 'wait_ms', 0), MAX_WAIT_MS)
export const LIMIT: Parameter = {
  type: 'integer',
  minimum: 1,
  maximum: 1_000,
  description: `At most so many. Default ${DEFAULT_LIMIT}.`,
}
export const WAIT: Parameter = {
  type: 'integer',
  minimum: 0,
  description: 'Milliseconds for which the answer may be held (30,000 at most) until what is asked for has ended.',
}
