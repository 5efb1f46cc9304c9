/** Handler `module`, the supervisor's side: one thread per replica, made with the first task, made anew when it ended. */
import { rm } from 'node:fs'
import type { Worker } from 'node:worker_threads'
import { type Execution, failure, type Handler, type HandlerTask, type TaskServices } from './handler.ts'
import { log } from './log.ts'
import type { FromThread, Outcome, ToThread } from './messages.ts'

/** How long a stopped task may take to end; then its slot is free, and its thread gets no further tasks. */
const ABORT_GRACE_MS = 5_000
/** A retired thread that does not answer for this long is blocked: it is ended. */
const PING_MS = 5_000

export interface ModuleOptions {
  readonly file: string
  /** The script that runs as the thread (with `--module-thread FILE`). */
  readonly entry: string
  readonly memoryMb: number
  readonly services: TaskServices
  /** The folder of an execution's workspace: it goes with the execution. */
  readonly workspace: (task: HandlerTask) => string
}

const CRASH: { readonly [code: string]: string } = {
  ERR_WORKER_OUT_OF_MEMORY: 'the module ran out of memory; raise mem_limit of the agent, or keep less in memory',
}

class Thread {
  readonly #worker: Worker
  readonly #options: ModuleOptions
  readonly #tasks = new Map<number, HandlerTask>()
  readonly #graces = new Map<number, NodeJS.Timeout>()
  /** Tasks whose folder there may be. */
  readonly #workspaces = new Set<number>()
  readonly #onEnd: () => void
  readonly #pulls = new Map<number, { readonly resolve: (bytes: Uint8Array | null) => void; readonly reject: (error: Error) => void }>()
  #outbox: ToThread[] = []
  #isOver = false
  #ended: { readonly code: string; readonly message: string } | null = null
  #pingTimer: NodeJS.Timeout | null = null
  isRetired = false

  constructor(options: ModuleOptions, onEnd: () => void) {
    this.#options = options
    this.#onEnd = onEnd
    // Loaded here, so that an idle replica does not pay for it.
    const { Worker: Thread } = process.getBuiltinModule('node:worker_threads')
    this.#worker = new Thread(options.entry, {
      argv: ['--module-thread', options.file],
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: options.memoryMb, maxYoungGenerationSizeMb: 16 },
    })
    this.#worker.on('message', (batch: readonly FromThread[]) => {
      for (const message of batch) this.#receive(message)
    })
    this.#worker.on('error', (error: unknown) => this.#crashed(error))
    this.#worker.on('exit', (code) => this.#exited(code))
  }

  start(task: HandlerTask): Execution {
    const { n, leased, trace } = task
    this.#tasks.set(n, task)
    const { id, run, type, input, attempt, deadline, journal = 0 } = leased
    const workspace = this.#options.workspace(task)
    this.#post({ kind: 'task', task: { n, id, run, type, input, attempt, deadline, journal, workspace, trace } })
    return { abort: (reason) => this.#abort(n, reason) }
  }

  close(): void {
    void this.#worker.terminate()
  }

  #post(message: ToThread): void {
    // A microtask: all tasks of one answer travel together, and do not wait for the loop's next phase.
    if (this.#outbox.length === 0) queueMicrotask(() => this.#flush())
    this.#outbox.push(message)
  }

  #flush(): void {
    const batch = this.#outbox
    this.#outbox = []
    this.#worker.postMessage(batch)
  }

  #receive(message: FromThread): void {
    const { services } = this.#options
    if (message.kind === 'settled') return this.#settled(message.n, message.outcome)
    if (message.kind === 'progress') return services.progress(message.n, message)
    if (message.kind === 'span') return services.span(message.span)
    if (message.kind === 'delegate')
      return services.delegate(message, (outcome) => this.#post({ kind: 'child', call: message.call, outcome }))
    if (message.kind === 'log') return services.log(message.n, message.stream, message.text)
    if (message.kind === 'ask') return this.#ask(message)
    if (message.kind === 'chunk') return this.#chunk(message)
    if (message.kind === 'pong') return this.#ponged()
    if (message.kind === 'workspace') return void this.#workspaces.add(message.n)
    // Not kept: the next task loads the file again, which may have been mended.
    this.#ended = { code: 'module_load_failed', message: message.message }
    this.isRetired = true
    this.close()
  }

  #ask({ n, call, ask }: Extract<FromThread, { kind: 'ask' }>): void {
    if (ask.op === 'restore') this.#workspaces.add(n)
    const pull = (): Promise<Uint8Array | null> =>
      new Promise((resolve, reject) => {
        if (this.#isOver) return reject(new Error('the thread of the module ended'))
        this.#pulls.set(call, { resolve, reject })
        this.#post({ kind: 'more', call })
      })
    this.#options.services.ask(n, ask, pull, (answer) => {
      this.#pulls.delete(call)
      this.#post({ kind: 'answer', call, answer })
    })
  }

  #chunk({ call, bytes, error }: Extract<FromThread, { kind: 'chunk' }>): void {
    const pull = this.#pulls.get(call)
    this.#pulls.delete(call)
    if (error !== undefined) pull?.reject(new Error(error))
    else pull?.resolve(bytes)
  }

  #settled(n: number, outcome: Outcome): void {
    const task = this.#tasks.get(n)
    if (task === undefined) return
    this.#tasks.delete(n)
    clearTimeout(this.#graces.get(n))
    this.#graces.delete(n)
    task.done(outcome)
    // A look at a folder that never was would be most of what a small task costs. A thread that crashed may not have said so.
    if (this.#workspaces.delete(n) || this.#isOver) rm(this.#options.workspace(task), { recursive: true, force: true }, () => {})
    if (this.isRetired && this.#tasks.size === 0) this.close()
  }

  #abort(n: number, reason: string): void {
    if (!this.#tasks.has(n)) return
    this.#post({ kind: 'abort', n, reason })
    const giveUp = (): void => {
      if (!this.#tasks.has(n)) return
      log('warn', 'a task did not heed ctx.signal; its thread gets no further tasks', { task: this.#tasks.get(n)?.leased.id })
      this.isRetired = true
      this.#settled(n, failure(reason, 'the task was stopped; its code did not heed ctx.signal and was given up'))
      if (this.#tasks.size > 0) this.#ping()
    }
    this.#graces.set(n, setTimeout(giveUp, ABORT_GRACE_MS))
  }

  #ping(): void {
    this.#post({ kind: 'ping' })
    this.#pingTimer ??= setTimeout(() => {
      this.#ended = {
        code: 'worker_crashed',
        message: 'the thread of the module was blocked by a task that was stopped, and had to be ended',
      }
      this.close()
    }, PING_MS)
  }

  #ponged(): void {
    if (this.#pingTimer !== null) clearTimeout(this.#pingTimer)
    this.#pingTimer = null
  }

  #crashed(error: unknown): void {
    const code = (error as { readonly code?: unknown } | null)?.code
    const message = error instanceof Error ? error.message : String(error)
    this.#ended = {
      code: 'worker_crashed',
      message: (typeof code === 'string' ? CRASH[code] : undefined) ?? `the module crashed with an uncaught error: ${message}`,
    }
    log('error', this.#ended.message, error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {})
  }

  #exited(exitCode: number): void {
    this.#ponged()
    this.isRetired = true
    this.#isOver = true
    for (const { reject } of this.#pulls.values()) reject(new Error('the thread of the module ended'))
    // The task that was alone in it is the cause; of several, the others may run again.
    const isShared = this.#tasks.size > 1 && this.#ended?.code !== 'module_load_failed'
    const { code, message } = this.#ended ?? {
      code: 'worker_exited',
      message: `the module ended its thread (process.exit(${exitCode})) during the task`,
    }
    for (const n of [...this.#tasks.keys()]) this.#settled(n, failure(code, message, isShared))
    this.#onEnd()
  }
}

export function moduleHandler(options: ModuleOptions): Handler {
  const threads = new Set<Thread>()
  let current: Thread | null = null
  const usable = (): Thread => {
    if (current !== null && !current.isRetired) return current
    const thread = new Thread(options, () => threads.delete(thread))
    threads.add(thread)
    current = thread
    return thread
  }
  return {
    start: (task) => usable().start(task),
    close() {
      for (const thread of threads) thread.close()
    },
  }
}
