/** Walks a plan, one engine call per step, and decides nothing. */
import type { DesiredContainer } from './desired.ts'
import { AgentctlError } from './errors.ts'
import { walk } from './graph.ts'
import { LABEL } from './names.ts'
import type { Observed } from './observe.ts'
import type { Plan, Step } from './plan.ts'
import type { ContainerRuntime } from './ports.ts'
import type { Outcome, ProgressEvent, StepFailure } from './progress.ts'
import { Watch } from './watch.ts'

export interface ExecuteOptions {
  readonly runtime: ContainerRuntime
  readonly observed: Observed
  /** By name; for readiness (agent, replica). */
  readonly containers: readonly DesiredContainer[]
  readonly signal: AbortSignal
  readonly emit: (event: ProgressEvent) => void
  readonly writeRecord: () => Promise<void>
  readonly writeSecrets: (containers: readonly string[]) => Promise<void>
  /** Resolves when that replica is connected to the gateway. */
  readonly ready: (agent: string, replica: number, signal: AbortSignal) => Promise<void>
  /** A broker of the user's own: resolves when the gateway has reached it. */
  readonly broker?: (signal: AbortSignal) => Promise<void>
}

/** Engine calls at once. More do not start containers faster on the engines measured; far more time out. */
const PARALLEL_CALLS = 16

export async function execute(plan: Plan, options: ExecuteOptions): Promise<Outcome> {
  const failures: StepFailure[] = []
  const skipped: string[] = []
  const watch = new Watch(options.runtime, plan.project, options.observed)
  const slots = semaphore(PARALLEL_CALLS)
  const total = plan.steps.length
  const event = (step: Step, state: 'start' | 'done' | 'failed' | 'skipped', extra: { ms?: number; message?: string } = {}): void =>
    options.emit({ kind: 'step', id: step.id, total, op: step.operation.op, target: step.target, cause: step.cause, state, ...extra })
  try {
    await walk(plan.steps, {
      limit: Number.POSITIVE_INFINITY,
      signal: options.signal,
      visit: async (step) => {
        const begin = performance.now()
        event(step, 'start')
        try {
          if (step.operation.op === 'wait') await wait(step.operation, options, watch)
          else {
            const release = await slots()
            try {
              // An abort may have come while this step queued for its slot.
              if (options.signal.aborted) throw new AgentctlError('AG7002', 'interrupted', { hint: 'See `agentctl ps`.', exit: 130 })
              await act(step, options)
            } finally {
              release()
            }
            if (step.operation.op === 'start-container') watch.started(step.operation.container)
          }
          event(step, 'done', { ms: performance.now() - begin })
          return true
        } catch (error) {
          const failure = asFailure(step, error)
          if (!options.signal.aborted) failures.push(failure)
          event(step, 'failed', { ms: performance.now() - begin, message: failure.message })
          return false
        }
      },
      skipped: (step, because) => {
        skipped.push(
          `${step.operation.op} ${step.target}${because.length === 0 ? '' : ` (waiting on ${because.map((id) => plan.steps.find((other) => other.id === id)?.target ?? `#${id}`).join(', ')})`}`,
        )
        event(step, 'skipped')
      },
    })
  } finally {
    watch.close()
  }
  return {
    ok: failures.length === 0 && skipped.length === 0 && !options.signal.aborted,
    failures,
    skipped,
    interrupted: options.signal.aborted,
  }
}

function asFailure(step: Step, error: unknown): StepFailure {
  const known =
    error instanceof AgentctlError
      ? error
      : new AgentctlError('AG9001', error instanceof Error ? error.message : String(error), {
          hint: 'Please report it with AGENTCTL_DEBUG=1.',
          cause: error,
        })
  return { target: step.target, op: step.operation.op, code: known.code, message: known.message, hint: known.hint }
}

function semaphore(limit: number): () => Promise<() => void> {
  let free = limit
  const queue: (() => void)[] = []
  const release = (): void => {
    const next = queue.shift()
    if (next === undefined) free += 1
    else next()
  }
  return () => {
    if (free > 0) {
      free -= 1
      return Promise.resolve(release)
    }
    return new Promise((resolve) => queue.push(() => resolve(release)))
  }
}

async function wait(operation: Extract<Step['operation'], { op: 'wait' }>, options: ExecuteOptions, watch: Watch): Promise<void> {
  const want = options.containers.find((container) => container.spec.name === operation.container)
  if (operation.until !== 'ready') {
    await watch.until(operation.container, operation.until, operation.timeout_ms, options.signal)
    if (want?.spec.kind === 'gateway') await options.broker?.(options.signal)
    return
  }
  const agent = want?.spec.labels[LABEL.agent]
  if (want === undefined || agent === undefined) throw new Error(`no agent ${operation.container} in the desired state`)
  const settled = new AbortController()
  const deadline = AbortSignal.any([options.signal, settled.signal, AbortSignal.timeout(operation.timeout_ms)])
  try {
    await Promise.race([options.ready(agent, want.replica, deadline), watch.died(operation.container, deadline)])
  } catch (error) {
    if (!deadline.aborted || options.signal.aborted || (error instanceof AgentctlError && error.code === 'AG4009')) throw error
    throw new AgentctlError('AG6007', `${operation.container} has not connected to the gateway within ${operation.timeout_ms / 1000} s`, {
      hint: 'An image of your own must lease tasks from AGENTCTL_GATEWAY (docs/protocol.md); see `agentctl logs` of it.',
      exit: 3,
    })
  } finally {
    settled.abort()
  }
}

async function act(step: Step, { runtime, signal, writeRecord, writeSecrets }: ExecuteOptions): Promise<void> {
  const operation = step.operation
  switch (operation.op) {
    case 'create-network':
      await runtime.createNetwork(operation.network, signal)
      return
    case 'remove-network':
      return await runtime.removeNetwork(operation.name, signal)
    case 'create-volume':
      await runtime.createVolume(operation.volume, signal)
      return
    case 'own-volume':
      return await runtime.putFiles(
        operation.container,
        operation.path,
        [{ path: './', content: '', mode: 0o755, uid: operation.uid, gid: operation.gid }],
        signal,
      )
    case 'make-folder':
      return await runtime.putFiles(
        operation.container,
        operation.path,
        [{ path: `${operation.folder}/`, content: '', mode: 0o700, uid: operation.uid, gid: operation.gid }],
        signal,
      )
    case 'remove-volume':
      return await runtime.removeVolume(operation.name, signal)
    case 'write-secrets':
      return await writeSecrets(operation.containers)
    case 'write-record':
      return await writeRecord()
    case 'create-container':
      await runtime.createContainer(operation.container, signal)
      return
    case 'connect-network':
      return await runtime.connect(operation.container, operation.endpoint, signal)
    case 'disconnect-network':
      return await runtime.disconnect(operation.container, operation.network, signal)
    case 'start-container':
      return await runtime.start(operation.container, signal)
    case 'stop-container':
      return await runtime.stop(operation.container, operation.grace_s, signal)
    case 'remove-container':
      return await runtime.remove(operation.container, signal)
    case 'wait':
      throw new Error('waits do not act')
    default:
      operation satisfies never
  }
}
