/** The `ctx` of one task, inside the thread. Closures, so that `const { progress, delegate } = ctx` works. */
import type { AsyncLocalStorage } from 'node:async_hooks'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { AgentError, type Artifact, type Artifacts, type Context, type DelegateOptions, DelegationError, type Progress } from './context.ts'
import { logLine } from './log.ts'
import type { Answer, Ask, ArtifactSource, ChildOutcome, ChildRequest, FromThread, ThreadTask } from './messages.ts'
import { Steps } from './steps.ts'
import { newSpanId, spanAttributes } from './telemetry.ts'
import type { ApprovalView, Json, StepBeat } from '../spec/protocol.ts'

export interface TaskContext {
  readonly ctx: Context
  abort(reason: string): void
  /** Before the handler, when earlier executions recorded steps. */
  restore(): Promise<void>
  /** After the handler: why its steps do not fit the recorded ones, or null. */
  verdict(): AgentError | null
}

/** The thread's side of the port. */
export interface Port {
  readonly post: (message: FromThread) => void
  readonly onChild: (answer: (outcome: ChildOutcome) => void) => number
  /** `chunks`: of the stream that goes along, when the supervisor asks for them. */
  readonly onAnswer: (answer: (answer: Answer) => void, chunks?: AsyncIterator<Uint8Array> | Iterator<Uint8Array>) => number
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

const fieldText = (fields: { readonly [name: string]: unknown }): string => {
  try {
    return JSON.stringify(fields)
  } catch {
    return '(the fields are not JSON)'
  }
}

const DEFAULT_TYPE = 'application/octet-stream'

type PutSource = Parameters<Artifacts['put']>[1]
type Chunks = AsyncIterator<Uint8Array> | Iterator<Uint8Array>

/** Where the bytes are, and for a stream who gives them. */
function artifactSource(source: PutSource): readonly [ArtifactSource, Chunks?] {
  if (typeof source === 'string') return [{ kind: 'data', bytes: Buffer.from(source) }]
  if (source instanceof Uint8Array) return [{ kind: 'data', bytes: source }]
  if ('path' in source && typeof source.path === 'string') return [{ kind: 'file', path: resolve(source.path) }]
  if (Symbol.asyncIterator in source) return [{ kind: 'stream' }, source[Symbol.asyncIterator]()]
  if (Symbol.iterator in source) return [{ kind: 'stream' }, source[Symbol.iterator]()]
  throw new AgentError('bad_input', 'an artifact is made of a string, bytes, {path}, or a stream of bytes')
}

export function createTaskContext(task: ThreadTask, { post, onChild, onAnswer }: Port): TaskContext {
  const { n, id, run, type, attempt, deadline, trace } = task
  let controller: AbortController | null = null
  let aborted: string | null = null
  let sequence = 0

  let steps: Steps | null = null
  let isWorkspaceMade = false

  const ask = (question: Ask, chunks?: Chunks): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (aborted !== null) return reject(new AgentError(aborted, 'the task was stopped'))
      const number = onAnswer((answer) => {
        if (answer.ok) resolve(answer.value)
        else reject(new AgentError(aborted ?? answer.code, answer.message, { retryable: answer.retryable === true }))
      }, chunks)
      post({ kind: 'ask', n, call: number, ask: question })
    })
  const log = (level: 'info' | 'warn', message: string, fields: { readonly [name: string]: unknown } = {}): void => {
    const ids = {
      run,
      task: id,
      attempt,
      ...(trace === null ? {} : { trace_id: trace.traceId, span_id: spans?.getStore() ?? trace.spanId }),
    }
    process.stdout.write(logLine(level, message, { ...fields, ...ids }))
    post({ kind: 'log', n, stream: 'log', text: Object.keys(fields).length === 0 ? message : `${message} ${fieldText(fields)}` })
  }
  const durable = (): Steps => {
    steps ??= new Steps({ folder: task.workspace, ask, warn: (message) => log('warn', message) })
    return steps
  }

  // Numbered before anything can fail or wait: the same calls have the same numbers in a retry. A step that is replayed makes no calls: it counts its own.
  const childKey = (): string => {
    const frame = steps?.frame
    if (frame === undefined) return `#${(sequence += 1)}`
    return `${frame.key}/#${(frame.children += 1)}`
  }
  const childOf = (agent: string, input: unknown, options: DelegateOptions): ChildRequest => {
    const number = childKey()
    const key = options.key ?? number
    return { key, agent, type: options.type ?? 'task', input: toJson(input, `the input for agent "${agent}"`) }
  }
  const call = (agent: string, input: unknown, options: DelegateOptions): Promise<Delegated> => {
    return new Promise((resolve, reject) => {
      const child = childOf(agent, input, options)
      if (aborted !== null) return reject(new AgentError(aborted, 'the task was stopped'))
      const number = onChild((outcome) => resolve({ outcome, agent }))
      post({ kind: 'delegate', n, call: number, ...child, spanId: spans?.getStore() ?? null })
    })
  }

  const put = async (name: string, source: PutSource, options: { readonly type?: string } = {}): Promise<Artifact> => {
    const frame = steps?.frame
    const [from, chunks] = artifactSource(source)
    const stored = (await ask({ op: 'artifact.put', name, type: options.type ?? DEFAULT_TYPE, source: from }, chunks)) as Artifact
    frame?.artifacts.push(stored)
    return stored
  }
  async function get(digest: string): Promise<Uint8Array>
  async function get(digest: string, options: { readonly to: string }): Promise<string>
  async function get(digest: string, options?: { readonly to: string }): Promise<Uint8Array | string> {
    const to = options === undefined ? null : resolve(options.to)
    return (await ask({ op: 'artifact.get', digest, to })) as Uint8Array | string
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
      const { message, percent, data, step } = typeof progress === 'string' ? ({ message: progress } as Progress) : progress
      try {
        const fields = {
          ...(message === undefined ? {} : { message: String(message).slice(0, 4_096) }),
          ...(percent === undefined ? {} : { percent: Number(percent) }),
        }
        const beat = step === undefined ? {} : { step: toJson(step, 'step') as unknown as StepBeat }
        post({ kind: 'progress', n, ...fields, ...(data === undefined ? {} : { data: toJson(data, 'data') }), ...beat })
      } catch {
        // Not JSON: progress never fails a task.
      }
    },
    delegate: async (agent, input, options = {}) => value(await call(agent, input, options)),
    delegateAll: async (agent, inputs, options = {}) => {
      const children = inputs.map((input, index) =>
        childOf(agent, input, options.key === undefined ? options : { ...options, key: `${options.key}#${index + 1}` }),
      )
      if (children.length === 0) return []
      const outcomes = await ask({ op: 'delegate.all', children, spanId: spans?.getStore() ?? null })
      return (outcomes as readonly ChildOutcome[]).map((outcome) => value({ outcome, agent }))
    },
    step: (name, fn, options) => durable().step(name, fn, options),
    get workspace(): string {
      if (isWorkspaceMade) return task.workspace
      isWorkspaceMade = true
      post({ kind: 'workspace', n })
      mkdirSync(task.workspace, { recursive: true })
      return task.workspace
    },
    async approve(key, message, data = null) {
      const view = (await ask({ op: 'approve', key, message, data: toJson(data, 'data') })) as ApprovalView
      if (view.status === 'approved') return { comment: view.comment }
      throw new AgentError('rejected', `"${message}" was rejected${view.comment === null ? '' : `: ${view.comment}`}`)
    },
    artifact: { put, get },
    log: (message, fields) => log('info', String(message), fields),
    span,
  }

  return {
    ctx,
    abort(reason) {
      aborted = reason
      controller?.abort(new AgentError(reason, 'the task was stopped'))
    },
    restore: () => durable().restore(),
    verdict: () => steps?.verdict() ?? null,
  }
}
