/** Artifacts and workspace checkpoints: bytes in a stream between the gateway and a file, a thread, or tar. By node:http, which only who uses it pays for. */
import type { ChildProcess } from 'node:child_process'
import type { IncomingMessage } from 'node:http'
import type { ArtifactView } from '../spec/protocol.ts'
import { pause, problem } from './asking.ts'
import type { AskContext } from './asks.ts'
import type { Answer, Ask } from './messages.ts'

type Transfer = Extract<Ask, { readonly op: `artifact.${string}` | 'checkpoint' | 'restore' }>
type Bytes = AsyncIterable<Uint8Array> | Iterable<Uint8Array>
/** A source that can be had again when the gateway was away; null: it was used up. */
type Source = () => Bytes | null

/** Without a byte in either direction for so long, a transfer is given up and tried again. */
const SILENCE_MS = 30_000
const TRIES = 60
const PAUSE_MAX_MS = 1_000
/** An artifact that a module gets in memory. */
const MAX_BUFFER_BYTES = 16_777_216
/** Of tar's complaints, what is passed on. */
const MAX_COMPLAINT = 1_000

const failed = (code: string, message: string, retryable = false): Answer => ({ ok: false, code, message, retryable })
const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))

class LocalError extends Error {}

interface Exchange {
  readonly method: 'GET' | 'PUT'
  readonly path: string
  readonly headers?: { readonly [name: string]: string }
  readonly body?: Bytes
}

/** The answer's head; its body is still to be read. */
async function open({ gateway, signal }: AskContext, exchange: Exchange): Promise<IncomingMessage> {
  const http = await import('node:http')
  const { pipeline } = await import('node:stream/promises')
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: gateway.host,
      port: gateway.port,
      method: exchange.method,
      path: exchange.path,
      headers: { ...gateway.headers, ...exchange.headers },
      timeout: SILENCE_MS,
      signal,
      agent: false,
    })
    request.once('response', resolve)
    request.once('error', reject)
    request.once('timeout', () => request.destroy(new Error(`nothing for ${SILENCE_MS / 1_000} s`)))
    if (exchange.body === undefined) request.end()
    // A refusal may come before all was sent: then the answer counts, not the broken pipe.
    else
      pipeline(exchange.body, request).catch((error: unknown) => {
        if (error instanceof LocalError) reject(error)
      })
  })
}

async function text(response: IncomingMessage): Promise<string> {
  let all = ''
  for await (const chunk of response.setEncoding('utf8')) if (all.length < 65_536) all += chunk
  return all
}

/** Tries until an answer counts; `use` reads a good one. */
async function exchange(
  context: AskContext,
  make: () => Exchange | null,
  use: (response: IncomingMessage) => Promise<Answer>,
): Promise<Answer> {
  let last = 'no answer'
  for (let attempt = 0; attempt < TRIES && !context.signal.aborted; attempt += 1) {
    if (attempt > 0) await pause(Math.min(PAUSE_MAX_MS, 50 * 2 ** Math.min(attempt, 10)), context.signal)
    const made = make()
    if (made === null) return failed('unavailable', `the stream broke off and cannot be read again: ${last}`, true)
    try {
      const response = await open(context, made)
      const status = response.statusCode ?? 0
      if (status === 200 || status === 201) return await use(response)
      const refused = problem(status, await text(response))
      if (status < 500 && status !== 429) return { ok: false, ...refused }
      last = refused.message
    } catch (error) {
      if (error instanceof LocalError) return failed('io_error', error.message)
      last = reason(error)
    }
  }
  return context.signal.aborted ? failed('aborted', 'the task was stopped during a transfer') : failed('unavailable', last, true)
}

function put(context: AskContext, name: string, type: string, source: Source, size: number | null): Promise<Answer> {
  const path = `/v1/artifacts/${encodeURIComponent(name)}?lease=${encodeURIComponent(context.lease)}`
  return exchange(
    context,
    () => {
      const body = source()
      if (body === null) return null
      return { method: 'PUT', path, body, headers: { 'content-type': type, ...(size === null ? {} : { 'content-length': String(size) }) } }
    },
    async (response) => ({ ok: true, value: JSON.parse(await text(response)) as ArtifactView }),
  )
}

const get = (context: AskContext, digest: string, use: (response: IncomingMessage) => Promise<Answer>): Promise<Answer> =>
  exchange(
    context,
    () => ({ method: 'GET', path: `/v1/artifacts/${encodeURIComponent(digest)}?lease=${encodeURIComponent(context.lease)}` }),
    use,
  )

async function* local(bytes: Bytes): AsyncGenerator<Uint8Array> {
  try {
    yield* bytes
  } catch (error) {
    throw new LocalError(reason(error))
  }
}
/** Nothing is sent again once it was read. */
function once(bytes: () => Bytes): Source {
  let isUsed = false
  return () => {
    if (isUsed) return null
    isUsed = true
    return local(bytes())
  }
}

async function putFile(context: AskContext, name: string, type: string, path: string): Promise<Answer> {
  const { createReadStream, promises } = await import('node:fs')
  const info = await promises.stat(path).catch((error: unknown) => reason(error))
  if (typeof info === 'string') return failed('io_error', info)
  if (!info.isFile()) return failed('io_error', `${path} is not a file`)
  return put(context, name, type, () => local(createReadStream(path)), null)
}

async function* pulled(pull: AskContext['pull']): AsyncGenerator<Uint8Array> {
  for (let chunk = await pull(); chunk !== null; chunk = await pull()) yield chunk
}

async function toFile(response: IncomingMessage, to: string): Promise<Answer> {
  const { createWriteStream, promises } = await import('node:fs')
  const { pipeline } = await import('node:stream/promises')
  // Beside it, so that what is there is whole.
  const partial = `${to}.partial`
  const file = createWriteStream(partial)
  let problemOfFile: Error | null = null
  file.once('error', (error) => (problemOfFile = error))
  try {
    await pipeline(response, file)
    await promises.rename(partial, to)
  } catch (error) {
    await promises.rm(partial, { force: true })
    throw problemOfFile === null ? error : new LocalError(reason(problemOfFile))
  }
  return { ok: true, value: to }
}

async function toMemory(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > MAX_BUFFER_BYTES)
      return failed('artifact_too_large', `the artifact has more than ${MAX_BUFFER_BYTES} bytes: get it into a file, with {to: path}`)
    chunks.push(chunk)
  }
  return { ok: true, value: new Uint8Array(Buffer.concat(chunks)) }
}

async function tar(flags: readonly string[], folder: string): Promise<{ readonly child: ChildProcess; readonly ended: Promise<void> }> {
  const { spawn } = await import('node:child_process')
  const child = spawn('tar', [...flags, '-f', '-', '-C', folder, ...(flags.includes('-c') ? ['.'] : [])])
  let complaint = ''
  child.stderr.on('data', (chunk: Buffer) => {
    if (complaint.length < MAX_COMPLAINT) complaint += chunk.toString()
  })
  child.stdin.on('error', () => {})
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', (error) => reject(new LocalError(`tar: ${error.message}`)))
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new LocalError(`tar exited with ${code}: ${complaint.trim().slice(0, MAX_COMPLAINT)}`)),
    )
  })
  ended.catch(() => {})
  return { child, ended }
}

async function* packed(folder: string): AsyncGenerator<Uint8Array> {
  const { child, ended } = await tar(['-c'], folder)
  try {
    if (child.stdout !== null) yield* child.stdout as AsyncIterable<Buffer>
    await ended
  } finally {
    child.kill('SIGKILL')
  }
}

async function unpack(response: IncomingMessage, folder: string): Promise<Answer> {
  const { promises } = await import('node:fs')
  const { pipeline } = await import('node:stream/promises')
  await promises.rm(folder, { recursive: true, force: true })
  await promises.mkdir(folder, { recursive: true })
  const { child, ended } = await tar(['-x'], folder)
  if (child.stdin === null) throw new LocalError('tar has no stdin')
  try {
    await pipeline(response, child.stdin)
  } catch (error) {
    child.kill('SIGKILL')
    await ended
    throw error
  }
  await ended
  return { ok: true, value: null }
}

export async function transfer(question: Transfer, context: AskContext): Promise<Answer> {
  if (question.op === 'checkpoint') return put(context, question.name, 'application/x-tar', () => local(packed(question.folder)), null)
  if (question.op === 'restore') return get(context, question.digest, (response) => unpack(response, question.folder))
  if (question.op === 'artifact.get') {
    const { digest, to } = question
    return get(context, digest, (response) => (to === null ? toMemory(response) : toFile(response, to)))
  }
  if (question.op === 'artifact.keep') {
    const { name, type, digest } = question.artifact
    return get(context, digest, (response) =>
      put(
        context,
        name,
        type,
        once(() => response),
        question.artifact.size,
      ),
    )
  }
  const { name, type, source } = question
  if (source.kind === 'file') return putFile(context, name, type, source.path)
  if (source.kind === 'data') return put(context, name, type, () => [source.bytes], source.bytes.byteLength)
  return put(
    context,
    name,
    type,
    once(() => pulled(context.pull)),
    null,
  )
}
