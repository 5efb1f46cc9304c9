/**
 * Questions of tasks to people. A question is written to the broker before it is told, and again when it is decided, so that a gateway
 * that starts finds them all. While one is pending its task is parked, as by a child. A question ends with its task.
 */
import type { ApprovalRequest, ApprovalView } from '../../spec/protocol.ts'
import type { Broker } from '../broker/port.ts'
import type { EventSink } from './events.ts'
import { HttpError } from './http.ts'
import { idOf, ownerOf } from './ids.ts'
import { refuse } from './submission.ts'
import type { Task } from './work.ts'

/** Of one task. */
const MAX_PENDING = 100
const MAX_OF_TASK = 1_000
/** Of all that are kept: they are in memory. */
const MAX_BYTES = 67_108_864
const MAX_COMMENT = 4_096

export type Decision = 'approved' | 'rejected'

export interface ApprovalsOptions {
  readonly broker: Broker
  readonly events: EventSink
  readonly task: (id: string) => Task | undefined
  /** The task waits for one thing more, or less. */
  readonly park: (task: Task) => void
  readonly unpark: (task: Task) => void
  readonly log: (message: string) => void
}

interface Kept {
  readonly bytes: number
  readonly watchers: Set<() => void>
  view: ApprovalView
  /** On its way to the broker. */
  deciding: boolean
}

export class Approvals {
  readonly #options: ApprovalsOptions
  readonly #kept = new Map<string, Kept>()
  readonly #byTask = new Map<string, Set<Kept>>()
  /** Being written for the first time. */
  readonly #asking = new Map<string, Promise<Kept>>()
  #bytes = 0

  constructor(options: ApprovalsOptions) {
    this.#options = options
  }

  /** At the start, after the tasks are known. Questions of tasks that have ended are dropped. */
  async recover(): Promise<void> {
    const { broker, task, park } = this.#options
    this.#kept.clear()
    this.#byTask.clear()
    this.#bytes = 0
    const orphans: string[] = []
    for (const [id, text] of await broker.readApprovals()) {
      const asker = task(ownerOf(id))
      const view = asker === undefined ? null : parse(text)
      if (asker === undefined || view === null) {
        orphans.push(id)
        continue
      }
      this.#keep(view, text.length)
      if (view.status === 'pending') park(asker)
    }
    await broker.dropApprovals(orphans)
  }

  /** Pending first, then those that are decided while their task goes on; oldest first. */
  list(): readonly ApprovalView[] {
    return [...this.#kept.values()].map((it) => it.view).sort(pendingFirst)
  }

  get(id: string): ApprovalView | null {
    return this.#kept.get(id)?.view ?? null
  }

  pendingOf(task: string): readonly ApprovalView[] {
    return [...(this.#byTask.get(task) ?? [])].map((it) => it.view).filter((it) => it.status === 'pending')
  }

  /** The same key is the same question, whichever execution asks. */
  async ask(task: Task, { key, message, data = null }: Omit<ApprovalRequest, 'lease'>): Promise<ApprovalView> {
    const id = idOf(task.id, key)
    const known = this.#kept.get(id) ?? this.#asking.get(id)
    if (known !== undefined) return (await known).view
    const created_at = new Date().toISOString()
    const view: ApprovalView = {
      id,
      task: task.id,
      agent: task.agent,
      key,
      message,
      data,
      status: 'pending',
      created_at,
      decided_at: null,
      comment: null,
    }
    const text = JSON.stringify(view)
    this.#refuseMore(task, text.length)
    const asking = this.#ask(task, view, text)
    this.#asking.set(id, asking)
    try {
      return (await asking).view
    } finally {
      this.#asking.delete(id)
    }
  }

  #refuseMore(task: Task, bytes: number): void {
    const all = [...(this.#byTask.get(task.id) ?? [])]
    // Those on their way count: a flood of requests at once must not pass together.
    const asking = [...this.#asking.keys()].filter((id) => ownerOf(id) === task.id).length
    if (all.filter((it) => it.view.status === 'pending').length + asking >= MAX_PENDING)
      throw new HttpError(429, 'too_many_approvals', `a task has at most ${MAX_PENDING} pending approvals`, 'Wait until some are decided.')
    if (all.length + asking >= MAX_OF_TASK)
      throw new HttpError(
        429,
        'too_many_approvals',
        `a task asks at most ${MAX_OF_TASK} times`,
        'Ask about several things in one question.',
      )
    if (this.#bytes + bytes > MAX_BYTES)
      throw new HttpError(
        429,
        'too_many_approvals',
        `the approvals of the project have over ${MAX_BYTES} bytes`,
        'Send less data with each.',
      )
  }

  async #ask(task: Task, view: ApprovalView, text: string): Promise<Kept> {
    const { broker, events, park } = this.#options
    await broker.writeApproval(view.id, text)
    // Its task ended while it was on its way.
    if (this.#options.task(task.id) !== task) {
      await broker.dropApprovals([view.id])
      throw new HttpError(409, 'lease_lost', 'the task has ended', 'Stop the work.')
    }
    const kept = this.#keep(view, text.length)
    park(task)
    events.add(task, 'approval', view.message, undefined, { approval: view.id, status: 'pending' })
    return kept
  }

  /** By a person, through the control API. */
  async decide(id: string, decision: Decision, comment: string | null): Promise<ApprovalView> {
    const kept = this.#kept.get(id)
    if (kept === undefined) throw refuse(404, 'AG6012', `there is no approval "${id.slice(0, 200)}"`)
    if (kept.deciding || kept.view.status !== 'pending')
      throw refuse(409, 'AG6012', `the approval "${id}" is ${kept.deciding ? 'being decided' : `${kept.view.status} already`}`)
    const view: ApprovalView = {
      ...kept.view,
      status: decision,
      decided_at: new Date().toISOString(),
      comment: comment === null ? null : comment.slice(0, MAX_COMMENT),
    }
    kept.deciding = true
    try {
      await this.#options.broker.writeApproval(id, JSON.stringify(view))
    } finally {
      kept.deciding = false
    }
    const task = this.#options.task(view.task)
    if (task === undefined || this.#kept.get(id) !== kept) {
      await this.#options.broker.dropApprovals([id])
      throw refuse(409, 'AG6012', `the task of the approval "${id}" has ended`)
    }
    kept.view = view
    this.#options.unpark(task)
    this.#options.events.add(task, 'approval', view.comment ?? undefined, undefined, { approval: id, status: decision })
    wake(kept)
    return view
  }

  /** Until it is decided or gone, or the time is over. */
  whenDecided(id: string, ms: number, signal: AbortSignal): Promise<void> {
    const kept = this.#kept.get(id)
    if (kept === undefined || kept.view.status !== 'pending' || ms <= 0 || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        kept.watchers.delete(done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      signal.addEventListener('abort', done, { once: true })
      kept.watchers.add(done)
    })
  }

  taskEnded(task: Task): void {
    const all = this.#byTask.get(task.id)
    if (all === undefined) return
    this.#byTask.delete(task.id)
    for (const kept of all) {
      this.#kept.delete(kept.view.id)
      this.#bytes -= kept.bytes
      wake(kept)
    }
    // One that is missed (the gateway ends here) is dropped at the next start.
    this.#options.broker
      .dropApprovals([...all].map((it) => it.view.id))
      .catch((error: unknown) => this.#options.log(`approvals of ${task.id}: ${String(error)}`))
  }

  /** Answers everyone who waits. */
  close(): void {
    for (const kept of this.#kept.values()) wake(kept)
  }

  #keep(view: ApprovalView, bytes: number): Kept {
    const kept: Kept = { bytes, view, watchers: new Set(), deciding: false }
    this.#kept.set(view.id, kept)
    const all = this.#byTask.get(view.task)
    if (all === undefined) this.#byTask.set(view.task, new Set([kept]))
    else all.add(kept)
    this.#bytes += bytes
    return kept
  }
}

export const pendingFirst = (a: ApprovalView, b: ApprovalView): number =>
  Number(a.status !== 'pending') - Number(b.status !== 'pending') || (a.created_at < b.created_at ? -1 : 1)

const wake = (kept: Kept): void => {
  for (const watcher of [...kept.watchers]) watcher()
}

function parse(text: string): ApprovalView | null {
  try {
    return JSON.parse(text) as ApprovalView
  } catch {
    return null
  }
}
