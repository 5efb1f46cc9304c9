/** Keeps the recorded state true: follows the engine's events, looks at everything now and then, repairs, stands back under a verb's lock. */
import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { takeLock } from '../lock.ts'
import { LABEL, PATHS, PROBE } from '../names.ts'
import type { ContainerRuntime } from '../ports.ts'
import type { ProgressEvent } from '../progress.ts'
import { openControl } from '../control.ts'
import { AgentctlError } from '../errors.ts'
import type { ProjectRecord } from '../record.ts'
import { Redactor } from '../redact.ts'
import { repair } from '../repair.ts'
import { Backoff, MAX_MS, MAX_OWN_MS } from './backoff.ts'
import { Proving } from './proving.ts'
import { watchStalled } from './stalled.ts'

/** Slow look at everything, for what no event told (a lost stream). */
const LOOK_MS = 10_000
/** Deaths come in groups (a `docker kill` of several): one repair for all. */
const GATHER_MS = 50
/** The engine tells of a death before its own list shows it (20.10: by as long as the network takes to go, seconds on a busy machine). */
const AGAIN_MS = [400, 1_000, 2_000, 3_500] as const
/** While a verb holds the lock. */
const BUSY_MS = 500
const ALIVE_MS = 5_000

export interface ControllerOptions {
  readonly runtime: ContainerRuntime
  readonly project: string
  readonly recordPath?: string
  readonly alivePath?: string | null
  readonly log: (line: { readonly [key: string]: unknown }) => void
  readonly signal: AbortSignal
}

export async function runController(options: ControllerOptions): Promise<void> {
  const { runtime, project, signal } = options
  // It reads the values when it fills the folders of what it starts; what it then says of an engine's or a container's words has none of them.
  const redactor = new Redactor()
  const log: ControllerOptions['log'] = (line) => options.log(JSON.parse(redactor.redact(JSON.stringify(line))) as typeof line)
  const backoff = new Backoff()
  let wake: () => void = () => undefined
  let due = false
  const nudge = (): void => {
    due = true
    wake()
  }

  const follow = async (): Promise<void> => {
    while (!signal.aborted) {
      try {
        for await (const event of runtime.events(project, Date.now() / 1000 - 1, signal)) {
          if (event.labels[LABEL.kind] === PROBE) continue
          proving.event(event)
          if (event.action === 'start') backoff.started(event.name, event.time_ms)
          if (event.action === 'die') backoff.died(event.name, event.time_ms, isOwn(event.labels) ? MAX_OWN_MS : MAX_MS)
          if (['die', 'destroy', 'unhealthy', 'disconnect'].includes(event.action)) {
            log({ event: event.action, container: event.name, ...(event.exit_code === null ? {} : { exit_code: event.exit_code }) })
            nudge()
            for (const ms of AGAIN_MS) setTimeout(nudge, ms).unref()
          }
        }
      } catch (error) {
        if (!signal.aborted) log({ event: 'engine stream lost', message: message(error) })
      }
      nudge()
      await sleep(1_000, undefined, { signal }).catch(() => undefined)
    }
  }

  const alive = async (): Promise<void> => {
    const path = options.alivePath ?? '/run/agentctl/alive'
    while (!signal.aborted && options.alivePath !== null) {
      await writeFile(path, '').catch(() => undefined)
      await sleep(ALIVE_MS, undefined, { signal }).catch(() => undefined)
    }
  }

  const emit = (event: ProgressEvent): void => {
    if (event.kind === 'step' && event.state !== 'start')
      log({
        step: event.op,
        target: event.target,
        cause: event.cause,
        state: event.state,
        ...(event.message === undefined ? {} : { message: event.message }),
      })
  }

  const readRecord = (): Promise<string> => readFile(options.recordPath ?? PATHS.record, 'utf8')
  const control = await openControl(runtime, project, signal, { retry_ms: 0 })
  const proving = new Proving({
    runtime,
    project,
    control,
    record: () => readRecord().catch(() => null),
    locked: (act) => underLock(runtime, project, signal, act),
    log,
    signal,
  })
  void follow()
  void followNetworks(runtime, proving, signal)
  void proving.run()
  void alive()
  void watchStalled({
    runtime,
    project,
    replicas: () => control.replicas().catch(() => null),
    hasAgents: async () => {
      const text = await readRecord().catch(() => null)
      return text !== null && Object.keys((JSON.parse(text) as ProjectRecord).project.agents).length > 0
    },
    log,
    signal,
  }).finally(() => control.close())
  const look = async (): Promise<'done' | 'busy' | 'failed'> => {
    try {
      const text = await readRecord()
      const outcome = await repair(
        { runtime, signal, emit, environment: {}, learn: (values) => redactor.learn(values) },
        text,
        (container) => backoff.isHeld(container, Date.now()),
      )
      return outcome === null ? 'busy' : outcome.ok ? 'done' : 'failed'
    } catch (error) {
      // No record yet: the first `up` is still at work.
      if ((error as { code?: string }).code === 'ENOENT') return 'busy'
      log({ event: 'repair failed', message: message(error) })
      return 'failed'
    }
  }
  let failures = 0
  const pause = async (ms: number): Promise<void> => void (await sleep(ms, undefined, { signal }).catch(() => undefined))
  while (!signal.aborted) {
    await pause(GATHER_MS)
    due = false
    const found = await look()
    failures = found === 'failed' ? failures + 1 : 0
    if (found === 'busy') {
      await pause(BUSY_MS)
      continue
    }
    // What died while we were repairing has been told already, and will not be told again.
    if (due) continue
    const woken = new Promise<void>((resolve) => (wake = resolve))
    const held = backoff.next(Date.now())
    const retry = failures === 0 ? LOOK_MS : BUSY_MS * 2 ** (failures - 1)
    await Promise.race([pause(Math.min(LOOK_MS, retry, held === null ? LOOK_MS : held - Date.now() + 10)), woken])
  }
}

/** false: a verb has the lock. */
async function underLock(runtime: ContainerRuntime, project: string, signal: AbortSignal, act: () => Promise<void>): Promise<boolean> {
  try {
    const lock = await takeLock(runtime, project, { timeout_ms: 0, signal })
    try {
      await act()
    } finally {
      lock.release()
    }
    return true
  } catch (error) {
    if (error instanceof AgentctlError && error.code === 'AG4011') return false
    throw error
  }
}

async function followNetworks(runtime: ContainerRuntime, proving: Proving, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const { container } of runtime.networkEvents(Date.now() / 1000 - 1, signal)) proving.network(container)
    } catch {
      // The stream of containers says that the engine went.
    }
    await sleep(1_000, undefined, { signal }).catch(() => undefined)
  }
}

const isOwn = (labels: { readonly [name: string]: string }): boolean => !['agent', 'service'].includes(labels[LABEL.kind] ?? '')
const message = (error: unknown): string => (error instanceof Error ? error.message : String(error))
