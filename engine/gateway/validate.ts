/** Bodies of the agent protocol, as types or 400. Unknown fields are tolerated: agents may be newer than the gateway. */
import {
  type DelegateRequest,
  type Json,
  type LeaseRequest,
  MAX_PROGRESS_BYTES,
  MAX_WAIT_MS,
  MAX_WANT,
  type ProgressRequest,
  type Settlement,
  type WorkError,
} from '../../spec/protocol.ts'
import { jsonBytes } from '../pipeline.ts'
import { isTooDeep, MAX_NESTING } from './depth.ts'
import { badRequest, type Fields, type HttpError } from './http.ts'

const MAX_LEASES = 10_000
const MAX_KEY = 256
const MAX_CODE = 64
const MAX_MESSAGE = 4_096

/** An element of `done` that cannot be read: refused by itself (`bad_request`), so that the others count. */
export type Done = { readonly lease: string; readonly settlement: Settlement | null }
export interface LeaseCall extends Omit<LeaseRequest, 'done' | 'wait_ms' | 'beat'> {
  readonly wait_ms: number
  /** null: the request does not say what is being worked on. */
  readonly beat: readonly string[] | null
  readonly done: readonly Done[]
}

export function leaseCall(body: Fields): LeaseCall {
  return {
    want: Math.min(count(body, 'want', 0), MAX_WANT),
    wait_ms: Math.min(count(body, 'wait_ms', 0), MAX_WAIT_MS),
    beat: body['beat'] === undefined ? null : leases(body['beat'], 'beat'),
    done: list(body, 'done').map(done),
  }
}

function done(element: unknown, index: number): Done {
  if (!isFields(element) || typeof element['lease'] !== 'string') throw wrong(`done[${index}]`, 'an object with a lease', element)
  return { lease: element['lease'], settlement: settlement(element['lease'], element) }
}

function settlement(lease: string, body: Fields): Settlement | null {
  if (body['status'] === 'completed')
    return isTooDeep(body['result']) ? null : { lease, status: 'completed', result: (body['result'] ?? null) as Json }
  if (body['status'] !== 'failed') return null
  const error = workError(body['error'])
  return error === null ? null : { lease, status: 'failed', error }
}

/** Long texts are cut: the error is for people, the result is the place for data. */
function workError(error: unknown): WorkError | null {
  if (!isFields(error)) return null
  const { code, message, retryable } = error
  if (typeof code !== 'string' || code === '' || typeof message !== 'string') return null
  if (retryable !== undefined && typeof retryable !== 'boolean') return null
  return { code: code.slice(0, MAX_CODE), message: message.slice(0, MAX_MESSAGE), retryable: retryable === true }
}

export const completeCall = (body: Fields): Settlement => ({
  lease: lease(body),
  status: 'completed',
  result: shallow(body['result'] ?? null, 'result'),
})

export function failCall(body: Fields): Settlement {
  const error = workError(body['error'])
  if (error === null) throw wrong('error', '{code, message, retryable?}', body['error'])
  return { lease: lease(body), status: 'failed', error }
}

export const heartbeatCall = (body: Fields): string => lease(body)

export function progressCall(body: Fields): ProgressRequest {
  const { message, percent, data } = body
  if (message !== undefined && typeof message !== 'string') throw wrong('message', 'a string', message)
  if (percent !== undefined && (typeof percent !== 'number' || !Number.isFinite(percent))) throw wrong('percent', 'a number', percent)
  const bytes = data === undefined ? 0 : jsonBytes(shallow(data, 'data'))
  if (bytes > MAX_PROGRESS_BYTES) throw badRequest(`"data" has ${bytes} bytes of JSON; the limit is ${MAX_PROGRESS_BYTES}`)
  return {
    lease: lease(body),
    ...(data === undefined ? {} : { data: data as Json }),
    ...(message === undefined ? {} : { message: message.slice(0, MAX_MESSAGE) }),
    ...(percent === undefined ? {} : { percent: Math.min(100, Math.max(0, percent)) }),
  }
}

export function delegateCall(body: Fields): DelegateRequest & { readonly type: string } {
  const { key, agent, type, input } = body
  if (typeof key !== 'string' || key === '' || key.length > MAX_KEY) throw wrong('key', `a string of 1 to ${MAX_KEY} characters`, key)
  if (typeof agent !== 'string' || agent === '') throw wrong('agent', 'the name of an agent', agent)
  if (type !== undefined && (typeof type !== 'string' || type === '' || type.length > MAX_CODE))
    throw wrong('type', `a string of 1 to ${MAX_CODE} characters`, type)
  if (input === undefined) throw wrong('input', 'a JSON value', input)
  return { lease: lease(body), key, agent, type: type ?? 'task', input: shallow(input, 'input') }
}

function shallow(value: unknown, name: string): Json {
  if (isTooDeep(value)) throw badRequest(`"${name}" is nested more than ${MAX_NESTING} levels deep`)
  return value as Json
}

function lease(body: Fields): string {
  const value = body['lease']
  if (typeof value !== 'string' || value === '') throw wrong('lease', 'a string', value)
  return value
}

function count(body: Fields, name: string, fallback: number): number {
  const value = body[name]
  if (value === undefined) return fallback
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) throw wrong(name, 'a whole number from 0 on', value)
  return value
}

function list(body: Fields, name: string): readonly unknown[] {
  const value = body[name]
  if (value === undefined) return []
  if (!Array.isArray(value) || value.length > MAX_LEASES) throw wrong(name, `a list of at most ${MAX_LEASES} elements`, value)
  return value
}

function leases(value: unknown, name: string): readonly string[] {
  if (!Array.isArray(value) || value.length > MAX_LEASES || !value.every((it) => typeof it === 'string'))
    throw wrong(name, `a list of at most ${MAX_LEASES} leases`, value)
  return value as string[]
}

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)
const wrong = (name: string, expected: string, got: unknown): HttpError =>
  badRequest(
    `"${name}" must be ${expected}, got ${got === undefined ? 'nothing' : got === null ? 'null' : Array.isArray(got) ? 'a list' : typeof got}`,
  )
