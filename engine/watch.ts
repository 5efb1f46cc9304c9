/** Follows one engine event stream and answers "has this container come up?", so that waiting costs the engine nothing. */
import { AgentctlError } from './errors.ts'
import type { Observed } from './observe.ts'
import type { ContainerRuntime } from './ports.ts'

/** Should an event be missed: a wait looks at the engine itself so often. */
const SAFETY_MS = 5_000

interface State {
  running: boolean
  health: string | null
  exit: number | null
}

export class Watch {
  readonly #runtime: ContainerRuntime
  readonly #project: string
  readonly #states = new Map<string, State>()
  readonly #listeners = new Set<() => void>()
  readonly #abort = new AbortController()
  /** Set when the stream broke: waits then look at the engine once a second. */
  #broken = false

  constructor(runtime: ContainerRuntime, project: string, observed: Observed) {
    this.#runtime = runtime
    this.#project = project
    for (const container of observed.containers)
      this.#states.set(container.name, { running: container.status === 'running', health: container.health, exit: container.exit_code })
    void this.#follow()
  }

  async #follow(): Promise<void> {
    try {
      for await (const event of this.#runtime.events(this.#project, Date.now() / 1000, this.#abort.signal)) {
        const state = this.#states.get(event.name) ?? { running: false, health: null, exit: null }
        if (event.action === 'start') Object.assign(state, { running: true, health: null, exit: null })
        else if (event.action === 'die') Object.assign(state, { running: false, exit: event.exit_code ?? -1 })
        else if (event.action === 'healthy' || event.action === 'unhealthy') state.health = event.action
        this.#states.set(event.name, state)
        for (const listener of this.#listeners) listener()
      }
    } catch {
      // Falls through: the engine is gone or the stream was cut.
    }
    this.#broken = true
    for (const listener of this.#listeners) listener()
  }

  /** Told by the executor when a start call has returned: its event may come later, an older `die` must not count. */
  started(name: string): void {
    const state = this.#states.get(name)
    if (state === undefined || !state.running) this.#states.set(name, { running: true, health: null, exit: null })
  }

  /**
   * What happened between the look that the plan was made from and the first event is told by no event. What events have told since is
   * newer than this answer.
   */
  async #lookAgain(name: string, signal: AbortSignal): Promise<void> {
    const before = JSON.stringify(this.#states.get(name))
    const found = (await this.#runtime.containers(this.#project, signal)).find((container) => container.name === name)
    if (found === undefined || JSON.stringify(this.#states.get(name)) !== before) return
    this.#states.set(name, { running: found.status === 'running', health: found.health, exit: found.exit_code })
  }

  async #refresh(signal: AbortSignal): Promise<void> {
    const containers = await this.#runtime.containers(this.#project, signal)
    for (const container of containers)
      this.#states.set(container.name, { running: container.status === 'running', health: container.health, exit: container.exit_code })
  }

  /** Resolves when it is so; rejects when it can no longer become so, or after the timeout. */
  async until(name: string, want: 'running' | 'healthy' | 'completed', timeout_ms: number, signal: AbortSignal): Promise<void> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(timeout_ms)])
    if (want === 'healthy' && this.#states.get(name)?.health === 'starting') await this.#lookAgain(name, deadline).catch(() => {})
    for (;;) {
      const state = this.#states.get(name)
      if (want === 'completed' && state !== undefined && !state.running && state.exit === 0) return
      if (state !== undefined && !state.running && state.exit !== null) throw await this.#exited(name, state.exit, signal)
      if (want === 'running' && state?.running === true) return
      if (want === 'healthy' && state?.health === 'healthy') return
      if (deadline.aborted) {
        if (signal.aborted)
          throw new AgentctlError('AG7002', `interrupted while waiting for ${name}`, {
            hint: 'What was started goes on; see `agentctl ps`.',
            exit: 130,
          })
        throw new AgentctlError(
          'AG4008',
          `${name} is not ${want} after ${timeout_ms / 1000} s${state?.health === 'unhealthy' ? ' (its healthcheck fails)' : ''}`,
          { hint: `See \`agentctl logs\` of ${name}.`, exit: 3 },
        )
      }
      if (this.#broken) {
        await this.#refresh(signal)
        await this.#change(deadline, 1_000)
      } else if (!(await this.#change(deadline, SAFETY_MS))) await this.#lookAgain(name, deadline).catch(() => {})
    }
  }

  async exitCode(name: string, signal: AbortSignal): Promise<number> {
    for (;;) {
      const state = this.#states.get(name)
      if (state !== undefined && !state.running && state.exit !== null) return state.exit
      if (signal.aborted) throw new AgentctlError('AG7002', `interrupted while ${name} was running`, { hint: 'It is removed.', exit: 130 })
      if (this.#broken) {
        await this.#refresh(signal)
        await this.#change(signal, 1_000)
      } else await this.#change(signal, null)
    }
  }

  /** Rejects when the container exits. */
  async died(name: string, signal: AbortSignal): Promise<never> {
    for (;;) {
      const state = this.#states.get(name)
      if (state !== undefined && !state.running && state.exit !== null) throw await this.#exited(name, state.exit, signal)
      if (signal.aborted) throw signal.reason
      await this.#change(signal, null)
    }
  }

  /** false: nothing was told for so long. */
  #change(signal: AbortSignal, timeout_ms: number | null): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (told: boolean): void => {
        this.#listeners.delete(done)
        signal.removeEventListener('abort', done)
        if (timer !== null) clearTimeout(timer)
        resolve(told)
      }
      const done = (): void => end(true)
      const timer = timeout_ms === null ? null : setTimeout(() => end(false), timeout_ms)
      this.#listeners.add(done)
      signal.addEventListener('abort', done)
      if (signal.aborted) done()
    })
  }

  async #exited(name: string, exit: number, signal: AbortSignal): Promise<AgentctlError> {
    const lines: string[] = []
    try {
      for await (const frame of this.#runtime.logs(
        name,
        { follow: false, tail: 5, timestamps: false },
        AbortSignal.any([signal, AbortSignal.timeout(5_000)]),
      ))
        lines.push(frame.data.toString('utf8').trimEnd())
    } catch {
      // The exit code alone must do.
    }
    return new AgentctlError(
      'AG4009',
      `${name} exited with code ${exit}${lines.length === 0 ? '' : `; its last lines:\n${lines.join('\n')}`}`,
      { hint: `See \`agentctl logs\` of ${name}.` },
    )
  }

  close(): void {
    this.#abort.abort()
  }
}
