/** The `ctx` of one task, inside the thread. Closures, so that `const { progress, delegate } = ctx` works. */
import type { AsyncLocalStorage } from 'node:async_hooks'
import { AgentError, type Context, type DelegateOptions, DelegationError, type Progress } from './context.ts'
import { logLine } from './log.ts'
import type { ChildOutcome, FromThread, ThreadTask } from './messages.ts'
import { newSpanId, spanAttributes } from './telemetry.ts'
import type { Json } from '../spec/protocol.ts'

export interface TaskContext {
  readonly ctx: Context
  abort(reason: string): void
}

type Delegated = { readonly outcome: ChildOutcome; readonly agent: string }

/** The span that runs now, across awaits; made with the first `ctx.span`. */
let spans: AsyncLocalStorage<string> | null = null
const now = (): number => performance.timeOrigin + performance.now()

/** A copy that the thread's port can carry; says at once what is not JSON. */
function toJson(value: unknown, what: string): Json {
  const text = JSON.stringify(value ?? null)
  if (text === undefined) throw new AgentError('bad_input', `${what} is not JSON: it is a ${typeof value}`)
  return JSON.parse(text) as Json
}

export function createTaskContext(
  task: ThreadTask,
  post: (message: FromThread) => void,
  onCall: (answer: (outcome: ChildOutcome) => void) => number,
): TaskContext {
  const { n, id, run, type, attempt, deadline, trace } = task
  let controller: AbortController | null = null
  let aborted: string | null = null
  let sequence = 0

  const call = (agent: string, input: unknown, options: DelegateOptions): Promise<Delegated> => {
    // Numbered before anything can fail or wait: the same calls have the same numbers in a retry.
    sequence += 1
    const key = options.key ?? `#${sequence}`
    return new Promise((resolve, reject) => {
      const child = toJson(input, `the input for agent "${agent}"`)
      if (aborted !== null) return reject(new AgentError(aborted, 'the task was stopped'))
      const number = onCall((outcome) => resolve({ outcome, agent }))
      post({ kind: 'delegate', n, call: number, key, agent, type: options.type ?? 'task', input: child, spanId: spans?.getStore() ?? null })
    })
  }

  const value = <T>({ outcome, agent }: Delegated): T => {
    if (outcome.ok) return outcome.result as T
    throw new DelegationError(outcome.code, outcome.message, { task: outcome.task, agent })
  }

  const span = async <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
    if (trace === null) return work()
    spans ??= new (process.getBuiltinModule('node:async_hooks').AsyncLocalStorage)<string>()
    const spanId = newSpanId()
    const parentSpanId = spans.getStore() ?? trace.spanId
    const start = now()
    let error: string | null = null
    try {
      return await spans.run(spanId, work)
    } catch (thrown) {
      const code = (thrown as { readonly code?: unknown } | null)?.code
      error = typeof code === 'string' ? code : 'error'
      throw thrown
    } finally {
      const attributes = spanAttributes(run, id, error)
      post({
        kind: 'span',
        span: { traceId: trace.traceId, spanId, parentSpanId, name: name.slice(0, 200), start, end: now(), attributes, error },
      })
    }
  }

  const ctx: Context = {
    task: { id, run, type, attempt, deadline },
    get signal(): AbortSignal {
      controller ??= new AbortController()
      if (aborted !== null && !controller.signal.aborted) controller.abort(new AgentError(aborted, 'the task was stopped'))
      return controller.signal
    },
    progress(progress: string | Progress): void {
      const { message, percent, data } = typeof progress === 'string' ? { message: progress } : progress
      try {
        const fields = {
          ...(message === undefined ? {} : { message: String(message).slice(0, 4_096) }),
          ...(percent === undefined ? {} : { percent: Number(percent) }),
        }
        post({ kind: 'progress', n, ...fields, ...(data === undefined ? {} : { data: toJson(data, 'data') }) })
      } catch {
        // Not JSON: progress never fails a task.
      }
    },
    delegate: async (agent, input, options = {}) => value(await call(agent, input, options)),
    delegateAll: async (agent, inputs, options = {}) => {
      const calls = inputs.map((input, index) =>
        call(agent, input, options.key === undefined ? options : { ...options, key: `${options.key}#${index + 1}` }),
      )
      const ended = await Promise.allSettled(calls)
      return ended.map((one) => {
        if (one.status === 'rejected') throw one.reason
        return value(one.value)
      })
    },
    log(message, fields = {}): void {
      const ids = {
        run,
        task: id,
        attempt,
        ...(trace === null ? {} : { trace_id: trace.traceId, span_id: spans?.getStore() ?? trace.spanId }),
      }
      process.stdout.write(logLine('info', String(message), { ...fields, ...ids }))
    },
    span,
  }

  return {
    ctx,
    abort(reason) {
      aborted = reason
      controller?.abort(new AgentError(reason, 'the task was stopped'))
    },
  }
}
