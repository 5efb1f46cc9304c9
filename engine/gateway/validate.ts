/** Bodies of the agent protocol, as types or 400. Unknown fields are tolerated: agents may be newer than the gateway. */
import {
  type ApprovalRequest,
  type AwaitRequest,
  type DelegateManyRequest,
  type DelegateRequest,
  JOURNAL_ENTRIES,
  type JournalEntry,
  type Json,
  type LeaseRequest,
  LOG_BYTES_PER_S,
  type LogLine,
  MAX_CHILDREN,
  MAX_PAYLOAD_BYTES,
  MAX_PROGRESS_BYTES,
  MAX_IDLE_WAIT_MS,
  MAX_WAIT_MS,
  MAX_WANT,
  type ProgressRequest,
  type Settlement,
  type StepBeat,
  type WorkError,
} from '../../spec/protocol.ts'
import { jsonBytes } from '../pipeline.ts'
import { isTooDeep, MAX_NESTING } from './depth.ts'
import { badRequest, type Fields, HttpError } from './http.ts'

const MAX_LEASES = 10_000
const MAX_KEY = 256
const MAX_CODE = 64
const MAX_MESSAGE = 4_096
/** Lines of one log request. */
const MAX_LINES = 1_000
/** A provider's Retry-After of more than a day is a mistake. */
const MAX_AFTER_MS = 86_400_000
const STREAMS: ReadonlySet<unknown> = new Set(['stdout', 'stderr', 'log'])

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
    wait_ms: Math.min(count(body, 'wait_ms', 0), MAX_IDLE_WAIT_MS),
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
  const { code, message, retryable, after_ms } = error
  if (typeof code !== 'string' || code === '' || typeof message !== 'string') return null
  if (retryable !== undefined && typeof retryable !== 'boolean') return null
  if (after_ms !== undefined && (typeof after_ms !== 'number' || !(after_ms >= 0))) return null
  return {
    code: code.slice(0, MAX_CODE),
    message: message.slice(0, MAX_MESSAGE),
    retryable: retryable === true,
    ...(after_ms === undefined ? {} : { after_ms: Math.min(Math.ceil(after_ms), MAX_AFTER_MS) }),
  }
}

export const completeCall = (body: Fields): Settlement => ({
  lease: lease(body),
  status: 'completed',
  result: shallow(body['result'] ?? null, 'result'),
})

export function failCall(body: Fields): Settlement {
  const error = workError(body['error'])
  if (error === null) throw wrong('error', '{code, message, retryable?, after_ms?}', body['error'])
  return { lease: lease(body), status: 'failed', error }
}

export const heartbeatCall = (body: Fields): string => lease(body)

export function progressCall(body: Fields): ProgressRequest {
  const { message, percent, data, step } = body
  if (message !== undefined && typeof message !== 'string') throw wrong('message', 'a string', message)
  if (percent !== undefined && (typeof percent !== 'number' || !Number.isFinite(percent))) throw wrong('percent', 'a number', percent)
  const bytes = data === undefined ? 0 : jsonBytes(shallow(data, 'data'))
  if (bytes > MAX_PROGRESS_BYTES) throw badRequest(`"data" has ${bytes} bytes of JSON; the limit is ${MAX_PROGRESS_BYTES}`)
  return {
    lease: lease(body),
    ...(data === undefined ? {} : { data: data as Json }),
    ...(message === undefined ? {} : { message: message.slice(0, MAX_MESSAGE) }),
    ...(percent === undefined ? {} : { percent: Math.min(100, Math.max(0, percent)) }),
    ...(step === undefined ? {} : { step: stepBeat(step) }),
  }
}

function stepBeat(step: unknown): StepBeat {
  if (!isFields(step)) throw wrong('step', 'an object', step)
  const { tokens } = step
  if (tokens !== undefined && (typeof tokens !== 'number' || !(tokens >= 0) || !Number.isFinite(tokens)))
    throw wrong('step.tokens', 'a number from 0 on', tokens)
  const optional = (name: 'tool' | 'args_hash' | 'milestone'): { readonly [field: string]: string } =>
    step[name] === undefined ? {} : { [name]: text(step[name], `step.${name}`, MAX_KEY) }
  return {
    name: text(step['name'], 'step.name', MAX_KEY),
    ...optional('tool'),
    ...optional('args_hash'),
    ...optional('milestone'),
    ...(tokens === undefined ? {} : { tokens }),
  }
}

/** Lines of 64 KiB together; longer ones are the agent's to split. */
export function logsCall(body: Fields): { readonly lease: string; readonly lines: readonly LogLine[] } {
  const { lines } = body
  if (!Array.isArray(lines) || lines.length > MAX_LINES) throw wrong('lines', `a list of at most ${MAX_LINES} lines`, lines)
  let bytes = 0
  const read = lines.map((line: unknown, index): LogLine => {
    if (!isFields(line) || !STREAMS.has(line['stream']) || typeof line['text'] !== 'string')
      throw wrong(`lines[${index}]`, '{stream: "stdout" | "stderr" | "log", text}', line)
    bytes += Buffer.byteLength(line['text'])
    return { stream: line['stream'] as LogLine['stream'], text: line['text'] }
  })
  if (bytes > LOG_BYTES_PER_S) throw tooMuch(`the lines have ${bytes} bytes; the limit of one request is ${LOG_BYTES_PER_S}`)
  return { lease: lease(body), lines: read }
}

type ToDelegate = Omit<DelegateRequest, 'lease'> & { readonly type: string }

export const delegateCall = (body: Fields): ToDelegate & { readonly lease: string } => ({ lease: lease(body), ...toDelegate(body, '') })

export function delegateManyCall(body: Fields): Omit<DelegateManyRequest, 'tasks'> & { readonly tasks: readonly ToDelegate[] } {
  const { tasks } = body
  if (!Array.isArray(tasks) || tasks.length === 0 || tasks.length > MAX_CHILDREN)
    throw wrong('tasks', `a list of 1 to ${MAX_CHILDREN} tasks`, tasks)
  const read = tasks.map((task: unknown, index) => {
    if (!isFields(task)) throw wrong(`tasks[${index}]`, '{key, agent, type?, input}', task)
    return toDelegate(task, `tasks[${index}].`)
  })
  const keys = new Set(read.map((task) => task.key))
  if (keys.size < read.length) throw badRequest('two of the tasks have the same key: a key names one child of a task')
  return { lease: lease(body), tasks: read }
}

export function awaitCall(body: Fields): Required<AwaitRequest> {
  const { tasks } = body
  if (!Array.isArray(tasks) || tasks.length > MAX_CHILDREN || !tasks.every((it) => typeof it === 'string'))
    throw wrong('tasks', `a list of at most ${MAX_CHILDREN} ids`, tasks)
  return { lease: lease(body), tasks: [...new Set(tasks as string[])], wait_ms: Math.min(count(body, 'wait_ms', 0), MAX_WAIT_MS) }
}

export function approvalCall(body: Fields): ApprovalRequest {
  const { data } = body
  const bytes = data === undefined ? 0 : jsonBytes(shallow(data, 'data'))
  if (bytes > MAX_PAYLOAD_BYTES) throw tooMuch(`"data" has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`)
  const message = text(body['message'], 'message', MAX_MESSAGE)
  if (Buffer.byteLength(message) > MAX_MESSAGE) throw wrong('message', `at most ${MAX_MESSAGE} bytes`, message)
  return { lease: lease(body), key: text(body['key'], 'key', MAX_KEY), message, ...(data === undefined ? {} : { data: data as Json }) }
}

/** NAME#N; the name is the agent's. */
const JOURNAL_KEY = /^.{1,200}#[1-9]\d{0,5}$/su

export function journalCall(body: Fields): { readonly lease: string; readonly entries: readonly JournalEntry[] } {
  const { entries } = body
  if (!Array.isArray(entries) || entries.length > JOURNAL_ENTRIES)
    throw wrong('entries', `a list of at most ${JOURNAL_ENTRIES} entries`, entries)
  const read = entries.map((entry: unknown, index): JournalEntry => {
    const at = `entries[${index}]`
    if (!isFields(entry)) throw wrong(at, '{key, kind, value}', entry)
    const { key, kind, value } = entry
    if (typeof key !== 'string' || !JOURNAL_KEY.test(key)) throw wrong(`${at}.key`, 'NAME#N with a name of 1 to 200 characters', key)
    if (kind !== 'step' && kind !== 'checkpoint') throw wrong(`${at}.kind`, '"step" or "checkpoint"', kind)
    if (value === undefined) throw wrong(`${at}.value`, 'a JSON value', value)
    const bytes = jsonBytes(shallow(value, `${at}.value`))
    if (bytes > MAX_PAYLOAD_BYTES) throw tooMuch(`"${at}.value" has ${bytes} bytes of JSON; the limit is ${MAX_PAYLOAD_BYTES}`)
    return { key, kind, value: value as Json }
  })
  return { lease: lease(body), entries: read }
}

function toDelegate(body: Fields, at: string): ToDelegate {
  const { key, agent, type, input } = body
  if (typeof agent !== 'string' || agent === '') throw wrong(`${at}agent`, 'the name of an agent', agent)
  if (input === undefined) throw wrong(`${at}input`, 'a JSON value', input)
  return {
    key: text(key, `${at}key`, MAX_KEY),
    agent,
    type: type === undefined ? 'task' : text(type, `${at}type`, MAX_CODE),
    input: shallow(input, `${at}input`),
  }
}

/** Not empty. */
function text(value: unknown, name: string, max: number): string {
  if (typeof value !== 'string' || value === '' || value.length > max) throw wrong(name, `a string of 1 to ${max} characters`, value)
  return value
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

const tooMuch = (message: string): HttpError => new HttpError(413, 'payload_too_large', message, 'Send less in one.')
const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)
const wrong = (name: string, expected: string, got: unknown): HttpError =>
  badRequest(
    `"${name}" must be ${expected}, got ${got === undefined ? 'nothing' : got === null ? 'null' : Array.isArray(got) ? 'a list' : typeof got}`,
  )
