/** What one rule plays on: its own gateway, its own process of the agent, and patience. */
import type { Json, Settlement } from '../../spec/protocol.ts'
import { AgentUnderTest, type Target } from './agent.ts'
import { KitGateway } from './gateway.ts'

const LOOK_MS = 10

/** The agent broke the rule: how, in words. */
export class Broken extends Error {}
/** The rule says nothing about this agent. */
export class NotApplicable extends Error {}

export interface Inputs {
  /** A task that the agent does well, at once. */
  readonly input: Json
  /** One that takes it a minute or longer. null: it has none such, and the rules that need one are left out. */
  readonly slow: Json
  /** One that it cannot do. */
  readonly bad: Json
}

export interface StageOptions {
  readonly target: Target
  readonly inputs: Inputs
  readonly patienceMs: number
  readonly signal: AbortSignal
}

export class Stage {
  readonly gateway: KitGateway = new KitGateway()
  readonly inputs: Inputs
  readonly patienceMs: number
  readonly #options: StageOptions
  #agent: AgentUnderTest | null = null

  constructor(options: StageOptions) {
    this.#options = options
    this.inputs = options.inputs
    this.patienceMs = options.patienceMs
  }

  get agent(): AgentUnderTest {
    if (this.#agent === null) throw new Error('the agent was not started')
    return this.#agent
  }

  /** What the agent wrote last. */
  get output(): string {
    return this.#agent?.output ?? ''
  }

  /** The agent runs and has asked for work. */
  async start(concurrency = 1, startMs: number = this.patienceMs): Promise<void> {
    await this.gateway.open()
    this.#agent = new AgentUnderTest(this.#options.target, this.gateway.port, concurrency)
    const hasAsked = (): boolean => this.gateway.leaseRequests.length > 0
    const otherwise = `it made no POST /v1/lease within ${startMs / 1_000} s of its start`
    await this.until(() => hasAsked() || this.agent.hasExited, otherwise, startMs)
    if (!hasAsked()) throw new Broken('it ended before it made a POST /v1/lease')
  }

  async end(): Promise<void> {
    await this.#agent?.end()
    await this.gateway.close()
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal } = this.#options
      if (signal.aborted) return reject(new Error('the run was stopped'))
      const timer = setTimeout(end, ms)
      function end(): void {
        clearTimeout(timer)
        signal.removeEventListener('abort', end)
        if (signal.aborted) reject(new Error('the run was stopped'))
        else resolve()
      }
      signal.addEventListener('abort', end)
    })
  }

  async until(check: () => boolean, otherwise: string, ms: number = this.patienceMs): Promise<void> {
    for (const end = Date.now() + ms; Date.now() < end; await this.pause(LOOK_MS)) if (check()) return
    if (check()) return
    throw new Broken(`${otherwise}${this.#agent?.hasExited === true ? ' (its process has ended)' : ''}`)
  }

  /** The task was handed out. */
  async given(lease: string): Promise<void> {
    await this.until(() => this.gateway.given.has(lease), `it did not lease a task that waited for it`)
  }

  /** The gateway has accepted an end of this task. */
  async ended(lease: string, ms: number = this.patienceMs): Promise<Settlement> {
    await this.until(() => this.gateway.accepted(lease) !== null, `it did not end ${this.#name(lease)}`, ms)
    const end = this.gateway.accepted(lease)
    if (end === null) throw new Broken(`it did not end ${this.#name(lease)}`)
    return end
  }

  async completed(lease: string): Promise<Settlement> {
    const end = await this.ended(lease)
    if (end.status === 'failed') throw new Broken(`it failed ${this.#name(lease)}: ${end.error.code}: ${end.error.message}`)
    return end
  }

  /** Work goes on: a further task is done. */
  async goesOn(): Promise<void> {
    const lease = this.gateway.task(this.inputs.input)
    await this.until(() => this.gateway.accepted(lease) !== null, 'it did not do a further task afterwards')
  }

  slowTask(): string {
    if (this.inputs.slow === null) throw new NotApplicable('no input was given that takes long')
    return this.gateway.task(this.inputs.slow)
  }

  #name(lease: string): string {
    return this.gateway.given.has(lease) ? 'a task that it was given' : 'a task, which it never leased'
  }
}
