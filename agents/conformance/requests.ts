/** Is a request of an agent what docs/protocol.md says? Problems in words; an agent may say more than the protocol knows. */
import { type Json, MAX_WANT } from '../../spec/protocol.ts'

type Fields = { readonly [name: string]: unknown }
type Check = (value: unknown) => string | null

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)
const text: Check = (value) => (typeof value === 'string' && value !== '' ? null : 'expected text')
const whole: Check = (value) => (Number.isInteger(value) && (value as number) >= 0 ? null : 'expected a whole number')
const json: Check = (value) => (value === undefined ? 'is missing' : null)
const list =
  (check: Check): Check =>
  (value) =>
    !Array.isArray(value) ? 'expected a list' : (value.map(check).find((problem) => problem !== null) ?? null)
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined ? null : check(value)
const fields =
  (shape: { readonly [name: string]: Check }): Check =>
  (value) => {
    if (!isFields(value)) return 'expected an object'
    for (const [name, check] of Object.entries(shape)) {
      const problem = check(value[name])
      if (problem !== null) return `${name}: ${problem}`
    }
    return null
  }

const error = fields({
  code: text,
  message: (value) => (typeof value === 'string' ? null : 'expected text'),
  retryable: optional((value) => (typeof value === 'boolean' ? null : 'expected true or false')),
  after_ms: optional(whole),
})
const settlement: Check = (value) => {
  if (!isFields(value)) return 'expected an object'
  if (value['status'] === 'completed') return fields({ lease: text, result: json })(value)
  if (value['status'] === 'failed') return fields({ lease: text, error })(value)
  return 'status: expected "completed" or "failed"'
}
const want: Check = (value) => whole(value) ?? ((value as number) > MAX_WANT ? `expected ${MAX_WANT} at most` : null)
const child = { key: text, agent: text, type: optional(text), input: json }

const SHAPES: { readonly [path: string]: Check } = {
  '/v1/lease': fields({ want, wait_ms: optional(whole), beat: optional(list(text)), done: optional(list(settlement)) }),
  '/v1/complete': fields({ lease: text, result: json }),
  '/v1/fail': fields({ lease: text, error }),
  '/v1/heartbeat': fields({ lease: text }),
  '/v1/progress': fields({
    lease: text,
    message: optional((value) => (typeof value === 'string' ? null : 'expected text')),
    percent: optional((value) => (typeof value === 'number' && value >= 0 && value <= 100 ? null : 'expected a number from 0 to 100')),
    step: optional(fields({ name: text })),
  }),
  '/v1/delegate': (value) =>
    isFields(value) && 'tasks' in value
      ? fields({ lease: text, tasks: list(fields(child)) })(value)
      : fields({ lease: text, ...child })(value),
  '/v1/await': fields({ lease: text, tasks: list(text), wait_ms: optional(whole) }),
  '/v1/logs': fields({
    lease: text,
    lines: list(
      fields({
        stream: (value) => (['stdout', 'stderr', 'log'].includes(String(value)) ? null : 'expected stdout, stderr or log'),
        text: (value) => (typeof value === 'string' ? null : 'expected text'),
      }),
    ),
  }),
  '/v1/journal': fields({ lease: text, entries: list(fields({ key: text, value: json })) }),
  '/v1/approvals': fields({ lease: text, key: text, message: text }),
  '/v1/traces': fields({}),
}
const READS = ['/v1/tasks/', '/v1/artifacts/', '/v1/approvals/', '/v1/journal', '/v1/health', '/v1/openapi.json']

/** null: it is well formed. */
export function requestProblem(method: string, path: string, body: Json | undefined): string | null {
  const what = `${method} ${path}`
  if (method === 'GET') return READS.some((prefix) => path.startsWith(prefix)) ? null : `${what}: there is no such path`
  if (method === 'PUT') return path.startsWith('/v1/artifacts/') ? null : `${what}: there is no such path`
  const shape = method === 'POST' ? SHAPES[path] : undefined
  if (shape === undefined) return `${what}: there is no such path`
  if (body === undefined) return `${what}: the body is not JSON`
  const problem = shape(body)
  return problem === null ? null : `${what}: ${problem}`
}
