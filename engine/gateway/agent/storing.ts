/** Artifacts in and out, as streams: nothing is held in memory whole, and who is too slow is cut off. */
import type { FileHandle } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { DIGEST } from '../artifact-store.ts'
import { badRequest, HttpError, sendJson } from '../http.ts'
import type { Replica } from '../replicas.ts'
import { mayRead } from './access.ts'
import { type Call, type Handler, leaseParam, lost } from './call.ts'

/** Uploads and downloads of one replica at once: each is a file that is open. */
const MAX_TRANSFERS = 16
/** Slower than this for longer than the allowance: somebody holds a file open rather than sending one. */
export interface Pace {
  readonly min_bytes_per_s: number
  readonly allowance_ms: number
  readonly look_ms: number
}
const PACE: Pace = { min_bytes_per_s: 16_384, allowance_ms: 20_000, look_ms: 2_000 }

/** How long the other side has let us wait beyond what its bytes take at the pace. What came faster counts for an allowance at most. */
class Meter {
  readonly #pace: Pace
  #owed_ms = 0

  constructor(pace: Pace) {
    this.#pace = pace
  }
  waited(ms: number): void {
    this.#owed_ms += ms
  }
  moved(bytes: number): void {
    const { min_bytes_per_s, allowance_ms } = this.#pace
    this.#owed_ms = Math.max(-allowance_ms, this.#owed_ms - (bytes / min_bytes_per_s) * 1_000)
  }
  /** With what is waited right now. */
  isOver(waiting_ms: number): boolean {
    return this.#owed_ms + waiting_ms > this.#pace.allowance_ms
  }
}

/** Of a body that is refused, so much is read before the answer: a client that sends first hears it then. */
const DRAIN_BYTES = 1_048_576
const DRAIN_MS = 2_000

const NAME = /^[A-Za-z0-9_][A-Za-z0-9._+=@-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._+=@-]*)*$/
const MAX_NAME = 200
const TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9][a-z0-9!#$&^_.+-]*$/
const MAX_TYPE = 127

const transfers = new WeakMap<Replica, number>()

async function transfer<T>(replica: Replica, work: () => Promise<T>): Promise<T> {
  const now = transfers.get(replica) ?? 0
  if (now >= MAX_TRANSFERS)
    throw new HttpError(
      429,
      'too_many_requests',
      `more than ${MAX_TRANSFERS} artifacts of one replica at once`,
      'Wait until some are through.',
    )
  transfers.set(replica, now + 1)
  try {
    return await work()
  } finally {
    transfers.set(replica, (transfers.get(replica) ?? 1) - 1)
  }
}

export const store: Handler = async (kit, call) => {
  const { request, response, replica, signal, url, rest: name } = call
  try {
    if (name.length > MAX_NAME || !NAME.test(name))
      throw badRequest(
        `the name of an artifact is at most ${MAX_NAME} characters of A-Z a-z 0-9 . _ + = @ - in parts joined by "/", none of which begins with a dot`,
      )
    const type = typeOf(request)
    const declared = lengthOf(request)
    const token = leaseParam(url)
    await kit.whenReady(signal)
    kit.held(replica, token)
    const view = await transfer(replica, async () => {
      await kit.artifacts.admit(kit.held(replica, token), type, declared)
      if (request.headers.expect !== undefined) response.writeContinue()
      return kit.artifacts.put(kit.held(replica, token), name, type, paced(request, kit.pace ?? PACE))
    })
    if (view === null) throw lost()
    sendJson(response, 200, JSON.stringify(view))
  } catch (error) {
    if (!request.complete && !request.destroyed) {
      response.setHeader('connection', 'close')
      if (request.headers.expect === undefined) await drain(request)
    }
    throw error
  }
}

function typeOf(request: IncomingMessage): string {
  const [essence = ''] = (request.headers['content-type'] ?? 'application/octet-stream').split(';')
  const type = essence.trim().toLowerCase()
  if (type.length > MAX_TYPE || !TYPE.test(type)) throw badRequest(`content-type must be TYPE/SUBTYPE, got "${essence.slice(0, 60)}"`)
  return type
}

/** null: chunked. Node has checked its form. */
const lengthOf = (request: IncomingMessage): number | null => {
  const text = request.headers['content-length']
  return text === undefined ? null : Number(text)
}

/** The body, at least at this pace. Only waiting for the sender counts, not our disk. */
async function* paced(request: IncomingMessage, pace: Pace): AsyncGenerator<Buffer> {
  const meter = new Meter(pace)
  let since = Date.now()
  const timer = setInterval(() => {
    if (meter.isOver(since === 0 ? 0 : Date.now() - since))
      request.destroy(new HttpError(408, 'too_slow', `the body comes slower than ${pace.min_bytes_per_s} bytes a second`))
  }, pace.look_ms)
  try {
    for await (const chunk of request) {
      meter.waited(Date.now() - since)
      since = 0
      meter.moved((chunk as Buffer).length)
      yield chunk as Buffer
      since = Date.now()
    }
    // `for await` ends well when the sender is gone, too.
    if (!request.complete) throw new HttpError(400, 'bad_request', 'the connection closed inside the body')
  } finally {
    clearInterval(timer)
  }
}

function drain(request: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let left = DRAIN_BYTES
    const timer = setTimeout(resolve, DRAIN_MS)
    const done = (): void => {
      clearTimeout(timer)
      resolve()
    }
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) done()
    })
    request.once('end', done)
    request.once('close', done)
    request.on('error', done)
    request.resume()
  })
}

export const fetchArtifact: Handler = async (kit, call) => {
  const { replica, signal, url, rest: digest } = call
  const token = leaseParam(url)
  await kit.whenReady(signal)
  const lease = kit.held(replica, token)
  // The same answer for what is not there and what is not theirs.
  const missing = (): HttpError =>
    new HttpError(
      404,
      'not_found',
      `you have no artifact "${digest.slice(0, 80)}"`,
      'Yours are your own, your children’s, and those named in your input.',
    )
  if (!DIGEST.test(digest) || !(await mayRead(kit, lease.task, lease.input, digest))) throw missing()
  await transfer(replica, async () => {
    const blob = await kit.artifacts.open(digest)
    if (blob === null) throw missing()
    try {
      await send(call, digest, blob, kit.pace ?? PACE)
    } finally {
      await blob.file.close().catch(() => {})
    }
  })
}

async function send(
  { request, response }: Call,
  digest: string,
  { file, size }: { readonly file: FileHandle; readonly size: number },
  pace: Pace,
): Promise<void> {
  const range = rangeOf(request.headers.range, size)
  const head = { 'content-type': 'application/octet-stream', 'accept-ranges': 'bytes', etag: `"${digest}"` }
  if (range === 'unsatisfiable') {
    response.setHeader('content-range', `bytes */${size}`)
    throw new HttpError(416, 'bad_request', `the artifact has ${size} bytes`)
  }
  const [from, to] = range ?? [0, size - 1]
  const length = to - from + 1
  response.writeHead(range === null ? 200 : 206, {
    ...head,
    'content-length': length,
    ...(range === null ? {} : { 'content-range': `bytes ${from}-${to}/${size}` }),
  })
  if (length === 0) {
    response.end()
    return
  }
  const meter = new Meter(pace)
  let looked = Date.now()
  const timer = setInterval(() => {
    const now = Date.now()
    meter.waited(now - looked)
    looked = now
    if (meter.isOver(0)) response.destroy()
  }, pace.look_ms)
  try {
    const stream = file.createReadStream({ start: from, end: to, autoClose: false })
    stream.on('data', (chunk) => {
      meter.moved(chunk.length)
    })
    await pipeline(stream, response)
  } catch {
    // The reader is gone, or was too slow: there is nobody to tell.
    response.destroy()
  } finally {
    clearInterval(timer)
  }
}

/** null: the whole. One range; several at once, or one that cannot be read, get the whole, as RFC 9110 allows. */
function rangeOf(header: string | undefined, size: number): readonly [number, number] | null | 'unsatisfiable' {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? []
  if (first === '' && last === '') return null
  if (first === '') return Number(last) === 0 || size === 0 ? 'unsatisfiable' : [Math.max(0, size - Number(last)), size - 1]
  if (last !== '' && Number(last) < Number(first)) return null
  return Number(first) >= size ? 'unsatisfiable' : [Number(first), last === '' ? size - 1 : Math.min(Number(last), size - 1)]
}
