/**
 * The control API for the CLI, the controller and applications behind `agentctl proxy`, on a unix socket: whoever reaches it has the
 * engine, so it asks for no credential. What it does is the table in control/routes.ts.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type Call, type ControlApiOptions, type Kit, type Route, wrong } from './control/call.ts'
import { COMPONENTS } from './control/components.ts'
import { ROUTES } from './control/routes.ts'
import { problem, type Schema } from './control/schema.ts'
import { decoded, type Fields, HttpError, readJson, sendError, urlOf } from './http.ts'
import { refuse } from './submission.ts'

export type { ControlApiOptions } from './control/call.ts'

/** 10,000 tasks of a few kilobytes in one submit. In memory it is eight times that for a moment. */
const MAX_CONTROL_BYTES = 33_554_432
/** Larger bodies are taken one after the other, so that several at once cannot be too much for the gateway. */
const LARGE_BYTES = 1_048_576
/** For a large body, from its turn on: whoever stalls does not hold up the others. Five times what 32 MiB need at 50 Mbit/s. */
const LARGE_MS = 30_000
const READY_MS = 10_000

/** `largeMs`: tests wait less. */
export function controlServer(options: ControlApiOptions, largeMs: number = LARGE_MS): Server {
  const kit: Kit = { ...options, whenReady: () => whenReady(options) }
  const server = createServer((request, response) => void serve(kit, request, response, largeMs))
  server.keepAliveTimeout = 0
  return server
}

let large: Promise<void> = Promise.resolve()

const isLarge = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > LARGE_BYTES

/** Resolves when the body may be read; what it gives is to be called when all is done. */
async function turn(signal: AbortSignal): Promise<() => void> {
  const before = large
  const mine = Promise.withResolvers<void>()
  large = before.then(() => mine.promise)
  await before
  if (signal.aborted) mine.resolve()
  return mine.resolve
}

async function serve(kit: Kit, request: IncomingMessage, response: ServerResponse, largeMs: number): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  let release = (): void => {}
  try {
    const url = urlOf(request, 'http://control')
    const { route, at } = find(request.method ?? '', url.pathname)
    checkQuery(route, url)
    // Only of those that read a body: one that is followed for hours would hold up the others.
    const waits = route.body !== undefined && isLarge(request)
    if (waits) release = await turn(gone.signal)
    const body = route.body === undefined ? {} : await checkedBody(route.body, request, waits ? largeMs : null)
    const call: Call = { request, response, url, at, body, signal: gone.signal }
    if (kit.front !== undefined && (await kit.front.handle(kit, route, call))) return
    await route.handle(kit, call)
  } catch (error) {
    sendError(response, error, 'AG5002', kit.log)
  } finally {
    release()
  }
}

const parts = ROUTES.map((route) => ({ route, names: route.path.split('/') }))

function find(method: string, pathname: string): { readonly route: Route; readonly at: Call['at'] } {
  const given = pathname.split('/')
  const here = parts.filter(
    ({ names }) =>
      names.length === given.length && names.every((name, index) => (name.startsWith('{') ? given[index] !== '' : name === given[index])),
  )
  if (here.length === 0)
    throw new HttpError(404, 'not_found', `there is no ${method} ${pathname.slice(0, 200)}`, 'GET /v1/openapi.json lists what there is.')
  const match = here.find(({ route }) => route.method === method)
  if (match === undefined)
    throw new HttpError(
      405,
      'not_found',
      `${pathname.slice(0, 200)} takes ${here.map((it) => it.route.method).join(' or ')}, not ${method}`,
    )
  const at = match.names.flatMap((name, index) => (name.startsWith('{') ? [[name.slice(1, -1), decoded(given[index] ?? '')]] : []))
  return { route: match.route, at: Object.fromEntries(at) as Call['at'] }
}

function checkQuery({ query = {}, path }: Route, { searchParams }: URL): void {
  for (const [name, text] of searchParams) {
    const schema = Object.hasOwn(query, name) ? query[name] : undefined
    if (schema === undefined)
      throw wrong(`${path} has no query "${name.slice(0, 100)}": expected ${Object.keys(query).join(', ') || 'none'}`)
    const value = schema.type === 'integer' && /^\d{1,15}$/.test(text) ? Number(text) : text
    const found = problem(schema, value, name)
    if (found !== null) throw wrong(found)
  }
}

async function checkedBody(schema: Schema, request: IncomingMessage, ms: number | null): Promise<Fields> {
  const reading = readJson(request, MAX_CONTROL_BYTES)
  const body = ms === null ? await reading : await inTime(reading, ms)
  const name = schema.$ref?.split('/').at(-1)
  const found = problem(name === undefined ? schema : (COMPONENTS[name] as Schema), body, 'the request')
  if (found !== null) throw wrong(found)
  return body
}

async function inTime(reading: Promise<Fields>, ms: number): Promise<Fields> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    const message = `the request body did not come whole within ${ms / 1_000} s`
    late.reject(refuse(408, 'AG6006', message, 'Send it again, or less at once.'))
  }, ms)
  try {
    return await Promise.race([reading, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

export async function whenReady({ broker, ready }: Pick<ControlApiOptions, 'broker' | 'ready'>): Promise<void> {
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, READY_MS)
  const connected = Promise.withResolvers<void>()
  const off = broker.onConnected(() => connected.resolve())
  const done = await Promise.race([Promise.all([ready, connected.promise]), late.promise])
  clearTimeout(timer)
  off()
  if (done === undefined) throw refuse(503, broker.problem?.code ?? 'AG5002', broker.problem?.message ?? 'the broker does not answer')
}
