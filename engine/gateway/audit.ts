/** Answers of agents that were refused: who gave them, for which execution. Bounded, as the one who sends them may be hostile. */

/** Per replica and second; the others are counted, and said once. */
const MAX_PER_SECOND = 10
const SECOND_MS = 1_000

export interface Refusal {
  /** AGENT.REPLICA, as its token says. */
  readonly replica: string
  /** What it wanted: settle, progress, delegate, … */
  readonly action: string
  /** `late`: once its lease; `forged`: never one of this session's. */
  readonly kind: 'late' | 'forged'
  /** As the lease says, if it is genuine. */
  readonly task: string | null
  readonly attempt: number | null
}

interface Window {
  readonly from: number
  said: number
  hidden: number
}

export type AuditLog = (message: string, fields: { readonly [name: string]: unknown }) => void

export class Audit {
  readonly #log: AuditLog
  readonly #windows = new Map<string, Window>()

  constructor(log: AuditLog) {
    this.#log = log
  }

  /** False: it was only counted. */
  refused(refusal: Refusal, now: number = Date.now()): boolean {
    const { replica, action, kind, task, attempt } = refusal
    let window = this.#windows.get(replica)
    if (window === undefined || now - window.from >= SECOND_MS) {
      if (window !== undefined) this.#close(replica, window)
      window = { from: now, said: 0, hidden: 0 }
      this.#windows.set(replica, window)
    }
    if (window.said >= MAX_PER_SECOND) {
      window.hidden += 1
      return false
    }
    window.said += 1
    this.#log(`refused: ${action} of replica ${replica} with a ${kind} lease`, { audit: true, replica, action, kind, task, attempt })
    return true
  }

  /** Says what was only counted; call it every second. */
  look(now: number = Date.now()): void {
    for (const [replica, window] of this.#windows) if (now - window.from >= SECOND_MS) this.#close(replica, window)
  }

  #close(replica: string, { hidden }: Window): void {
    this.#windows.delete(replica)
    if (hidden > 0) this.#log(`refused: ${hidden} more of replica ${replica} within a second`, { audit: true, replica, more: hidden })
  }
}
