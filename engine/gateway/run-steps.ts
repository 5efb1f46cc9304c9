/** A run's transitions, one after the other: jobs settle, the next ones start, and the run ends. Each is written before what follows from it. */
import type { PipelineJob } from '../../spec/model.ts'
import type { WorkStatus } from '../../spec/protocol.ts'
import type { HashField } from '../broker/port.ts'
import { type JobPhase, readyJobs, runStatus, worst } from '../pipeline.ts'
import { resolveJob, unfitResult } from './results.ts'
import { type Job, jobRecord, phasesOf, type Run } from './run.ts'
import { insistFor, type RunKit } from './run-kit.ts'
import { jobField } from './run-record.ts'
import { addTasks } from './run-tasks.ts'

/** A job that finds its agent's queue full looks again. */
const FULL_PAUSE_MS = 500
/** A step that the broker refused is made again: nothing else may happen in its run. */
const AGAIN_MS = 500

export class RunSteps {
  readonly #kit: RunKit
  readonly #ended: (run: Run) => Promise<void>
  /** Runs with a job for which there is no room: how many tasks of which agent. */
  readonly #starved = new Map<Run, { readonly agent: string; readonly tasks: number }>()
  #timer: NodeJS.Timeout | null = null

  /** `ended`: a run is closed in the broker, and nobody has been told. */
  constructor(kit: RunKit, ended: (run: Run) => Promise<void>) {
    this.#kit = kit
    this.#ended = ended
  }

  /** One step after the other. */
  advance(run: Run): Promise<void> {
    run.advancing = run.advancing.then(() => this.#steps(run)).catch((error: unknown) => this.#stuck(run, error))
    return run.advancing
  }

  /** What the broker refuses may pass; an error of the code itself is the same at every try, so the run would stay open for ever. */
  async #stuck(run: Run, error: unknown): Promise<void> {
    const { isClosing, log } = this.#kit
    if (isClosing()) return
    log(`run ${run.id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    if (run.status !== 'running' || run.stale) return
    run.ending = false
    if (error instanceof RangeError || error instanceof TypeError || error instanceof SyntaxError)
      await this.end(run, 'failed').catch((again: unknown) => log(`run ${run.id}: ${String(again)}`))
    else setTimeout(() => void this.advance(run), AGAIN_MS).unref()
  }

  async #steps(run: Run): Promise<void> {
    while (run.status === 'running' && !run.stale) {
      for (const [id, job] of run.jobs) await this.#settleJob(run, id, job)
      const phases = phasesOf(run)
      const status = runStatus(run.definition.pipeline, phases)
      if (status !== null) {
        await this.end(run, status)
        return
      }
      let started = 0
      for (const job of readyJobs(run.definition.pipeline, phases)) if (await this.#start(run, job)) started += 1
      if (started === 0) return
    }
  }

  async #settleJob(run: Run, id: string, job: Job): Promise<void> {
    if (job.phase !== 'running') return
    const status = worst(job.statuses)
    if (job.ended < job.items && (status === 'completed' || run.pipeline === null)) return
    job.phase = status as JobPhase
    await this.#writeJob(run, id, job)
  }

  async #writeJob(run: Run, id: string, job: Job): Promise<void> {
    // The run's end is written with the job's: one round trip for the run of one task.
    if (runStatus(run.definition.pipeline, phasesOf(run)) !== null) return
    await insistFor(this.#kit, run, () => this.#kit.broker.writeRun(run.id, [[jobField(id), JSON.stringify(jobRecord(job))]]))
  }

  /** false: there is no room for its tasks now. */
  async #start(run: Run, definition: PipelineJob): Promise<boolean> {
    const { broker } = this.#kit
    const job = run.jobs.get(definition.id)
    const resolved = await resolveJob(broker, run, definition)
    if (run.status !== 'running' || run.stale || job === undefined) return true
    if (!resolved.ok) Object.assign(job, { phase: 'failed', error: resolved.error })
    else if (!this.#hasRoom(run, definition, job, resolved.inputs.length)) return false
    else if (job.error === undefined) Object.assign(job, { phase: 'running', items: resolved.inputs.length })
    await this.#writeJob(run, definition.id, job)
    if (resolved.ok && job.phase === 'running') await addTasks(this.#kit, run, definition, resolved.inputs)
    return true
  }

  /** A run that is in is not refused because a queue is full now: its job waits. One that can never fit fails. */
  #hasRoom(run: Run, { id, agent }: PipelineJob, job: Job, tasks: number): boolean {
    const fits = this.#kit.admission.fits(agent, tasks)
    if (fits === 'now') return true
    if (fits === 'later') {
      this.#starved.set(run, { agent, tasks })
      this.#timer ??= setInterval(() => this.#feed(), FULL_PAUSE_MS)
      return false
    }
    const message = `job "${id}" makes ${tasks} tasks for agent "${agent}", more than its max_queue`
    Object.assign(job, { phase: 'failed', error: { code: 'queue_full', message } })
    return true
  }

  #feed(): void {
    for (const [run, { agent, tasks }] of [...this.#starved]) {
      if (run.status === 'running' && this.#kit.admission.fits(agent, tasks) !== 'now') continue
      this.#starved.delete(run)
      void this.advance(run)
    }
    if (this.#starved.size > 0 || this.#timer === null) return
    clearInterval(this.#timer)
    this.#timer = null
  }

  async end(run: Run, status: WorkStatus): Promise<void> {
    if (run.ending || run.stale) return
    run.ending = true
    const { broker, tracing, witness } = this.#kit
    const unfit = run.pipeline !== null && status === 'completed' ? await unfitResult(broker, run) : null
    if (unfit !== null) Object.assign(run.jobs.get(unfit.job) ?? {}, { phase: 'failed', error: unfit.error })
    run.status = unfit === null ? status : 'failed'
    let count = 0
    const fields: HashField[] = []
    for (const [id, job] of run.jobs) {
      if (job.phase === 'waiting' || job.phase === 'running') job.phase = 'cancelled'
      count += job.items
      fields.push([jobField(id), JSON.stringify(jobRecord(job))])
    }
    const now = Date.now()
    const { dedup } = run.definition
    const left = dedup === undefined ? undefined : { key: dedup.key, ttl_ms: run.created + dedup.ttl_ms - now }
    const close = (): Promise<number> =>
      broker.closeRun(run.id, [...fields, ['status', run.status], ['ended', String(now)], ['count', String(count)]], left)
    await witness.endedRun(run.id, await insistFor(this.#kit, run, close), run.status)
    tracing.runEnded(run, run.status)
    await this.#ended(run)
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    this.#starved.clear()
  }
}
