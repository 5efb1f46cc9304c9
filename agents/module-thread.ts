/** Handler `module`, inside the thread: loads the user's file and runs its default export, as many at a time as the supervisor sends. */
import { fileURLToPath, pathToFileURL } from 'node:url'
import { MAX_PAYLOAD_BYTES } from '../spec/protocol.ts'
import { AgentError, DelegationError } from './context.ts'
import { failure, tooLarge } from './handler.ts'
import type { Answer, ChildOutcome, FromThread, Outcome, ThreadTask, ToThread } from './messages.ts'
import { createTaskContext, type Port, type TaskContext } from './task-context.ts'

type UserHandler = (input: unknown, ctx: unknown) => unknown

/** `import { AgentError } from '@agentctl/cli/agent'` works in the user's files, though nothing is installed beside them. */
function provideSdk(): void {
  const { registerHooks } = process.getBuiltinModule('node:module')
  const url = 'agentctl:agent'
  const shared = Symbol.for('agentctl.agent')
  Object.assign(globalThis, { [shared]: { AgentError, DelegationError } })
  registerHooks({
    resolve: (specifier, context, next) =>
      specifier === '@agentctl/cli/agent' ? { url, format: 'module', shortCircuit: true } : next(specifier, context),
    load: (target, context, next) =>
      target === url
        ? {
            format: 'module',
            source: "export const { AgentError, DelegationError } = globalThis[Symbol.for('agentctl.agent')]",
            shortCircuit: true,
          }
        : next(target, context),
  })
}

function loadProblem(file: string, error: unknown): string {
  if (!(error instanceof Error)) return `${file} cannot be loaded: it threw ${String(error)}`
  // A syntax error's stack begins with its place.
  const [, url, line] = /^(file:\/\/\S+?):(\d+)/.exec(error.stack ?? '') ?? []
  const place = url === undefined ? '' : ` (${fileURLToPath(url)}:${line})`
  return `${file} cannot be loaded: ${error.name}: ${error.message}${place}`
}

async function load(file: string): Promise<UserHandler> {
  provideSdk()
  const loaded = (await import(pathToFileURL(file).href)) as { readonly default?: unknown }
  // CommonJS made from `export default` has it one level deeper.
  const found =
    typeof loaded.default === 'function' ? loaded.default : (loaded.default as { readonly default?: unknown } | undefined)?.default
  if (typeof found !== 'function') throw new Error('expected a default export like "export default async (input, ctx) => result"')
  return found as UserHandler
}

function serialise(value: unknown): Outcome {
  let json: string | undefined
  try {
    json = JSON.stringify(value ?? null)
  } catch (error) {
    return failure('bad_result', `the result is not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (json === undefined) return failure('bad_result', `the result is not JSON: it is a ${typeof value}`)
  const bytes = Buffer.byteLength(json)
  return bytes > MAX_PAYLOAD_BYTES ? tooLarge(bytes) : { ok: true, json }
}

/** An error's own `code` and `retryable` count whatever its class: the SDK's, Node's, or a library's. */
function thrown(error: unknown): Outcome {
  if (typeof error !== 'object' || error === null) return failure('error', String(error))
  const { code, message, retryable, after } = error as { readonly [name in 'code' | 'message' | 'retryable' | 'after']?: unknown }
  return failure(
    typeof code === 'string' && code !== '' ? code.slice(0, 100) : 'error',
    typeof message === 'string' ? message : String(error),
    retryable === true,
    typeof after === 'number' && after >= 0 && after < Number.POSITIVE_INFINITY ? Math.ceil(after) : undefined,
  )
}

/** A stream may give text: it is sent as UTF-8. A copy: the port moves what it is given. */
const asBytes = (chunk: unknown): Uint8Array => {
  if (typeof chunk === 'string') return Buffer.from(chunk)
  if (chunk instanceof Uint8Array) return chunk
  throw new TypeError(`a stream of an artifact gives bytes or text, not a ${typeof chunk}`)
}

export function runModuleThread(file: string): void {
  const { parentPort } = process.getBuiltinModule('node:worker_threads')
  if (parentPort === null) throw new Error('not a thread')
  let outbox: FromThread[] = []
  // A microtask: results of one batch travel together, and none waits behind the next task's synchronous work.
  const post = (message: FromThread): void => {
    if (outbox.length === 0) {
      queueMicrotask(() => {
        const batch = outbox
        outbox = []
        parentPort.postMessage(batch)
      })
    }
    outbox.push(message)
  }
  const contexts = new Map<number, TaskContext>()
  const calls = new Map<number, (outcome: ChildOutcome) => void>()
  const asks = new Map<number, (answer: Answer) => void>()
  const streams = new Map<number, AsyncIterator<Uint8Array> | Iterator<Uint8Array>>()
  let nextCall = 1
  const port: Port = {
    post,
    onChild(answer) {
      calls.set(nextCall, answer)
      return nextCall++
    },
    onAnswer(answer, chunks) {
      asks.set(nextCall, answer)
      if (chunks !== undefined) streams.set(nextCall, chunks)
      return nextCall++
    },
  }
  const nextChunk = async (call: number): Promise<void> => {
    const chunks = streams.get(call)
    try {
      const next = await chunks?.next()
      post({ kind: 'chunk', call, bytes: next === undefined || next.done === true ? null : asBytes(next.value) })
    } catch (error) {
      post({ kind: 'chunk', call, bytes: null, error: error instanceof Error ? error.message : String(error) })
    }
  }

  let handler: UserHandler | null = null
  const loading = load(file).then(
    (loaded) => {
      handler = loaded
      return loaded
    },
    (error: unknown) => {
      post({ kind: 'unloadable', message: loadProblem(file, error) })
      return null
    },
  )

  const run = async (task: ThreadTask): Promise<void> => {
    const context = createTaskContext(task, port)
    contexts.set(task.n, context)
    const handle = handler ?? (await loading)
    if (handle === null) return
    let outcome: Outcome
    try {
      if (task.journal > 0) await context.restore()
      outcome = serialise(await handle(task.input, context.ctx))
      const verdict = outcome.ok ? context.verdict() : null
      if (verdict !== null) outcome = thrown(verdict)
    } catch (error) {
      outcome = thrown(error)
    }
    contexts.delete(task.n)
    post({ kind: 'settled', n: task.n, outcome })
  }

  parentPort.on('message', (batch: readonly ToThread[]) => {
    for (const message of batch) {
      if (message.kind === 'task') void run(message.task)
      else if (message.kind === 'abort') contexts.get(message.n)?.abort(message.reason)
      else if (message.kind === 'ping') post({ kind: 'pong' })
      else if (message.kind === 'more') void nextChunk(message.call)
      else if (message.kind === 'answer') {
        const { call, answer } = message
        const chunks = streams.get(call)
        streams.delete(call)
        // Given up before its end: whoever made it may clean up.
        if (chunks?.return !== undefined) void Promise.resolve(chunks.return()).catch(() => {})
        asks.get(call)?.(answer)
        asks.delete(call)
      } else {
        calls.get(message.call)?.(message.outcome)
        calls.delete(message.call)
      }
    }
  })
}
