/** Replaces replicas that the gateway calls stalled: their process lives and answers, so no event of the engine tells of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ReplicaView } from '../../spec/protocol.ts'
import { containerName, LABEL } from '../names.ts'
import type { ContainerRuntime } from '../ports.ts'

/** One small request over a stream that stays open. The task is another replica's already; this only gives the slots back. */
export const ASK_MS = 3_000
/** What a replica that was stopped gets to end its processes; its leases are fenced, so there is nothing to save. */
const GRACE_S = 1
/** Until its next session clears the flag: the start of a container, with a busy engine. */
const PATIENCE_MS = 30_000

export interface StallWatchOptions {
  readonly runtime: Pick<ContainerRuntime, 'containers' | 'stop'>
  readonly project: string
  /** The gateway's view; null: it does not answer, which is for others to heal. */
  readonly replicas: () => Promise<readonly ReplicaView[] | null>
  /** Without agents nobody is asked. */
  readonly hasAgents: () => Promise<boolean>
  readonly log: (line: { readonly [key: string]: unknown }) => void
  readonly signal: AbortSignal
  readonly ask_ms?: number
}

/** Stops them; the repair that follows each death starts them again, with the pauses of anything that keeps dying. */
export async function watchStalled(options: StallWatchOptions): Promise<void> {
  const { signal, log } = options
  const stopped = new Map<string, number>()
  while (!signal.aborted) {
    await sleep(options.ask_ms ?? ASK_MS, undefined, { signal }).catch(() => undefined)
    try {
      if (signal.aborted || !(await options.hasAgents())) continue
      const views = (await options.replicas()) ?? []
      for (const view of due(views, stopped, Date.now())) {
        await replace(options, view)
        stopped.set(keyOf(view), Date.now())
      }
    } catch (error) {
      if (!signal.aborted) log({ event: 'stalled replicas', message: error instanceof Error ? error.message : String(error) })
    }
  }
}

const keyOf = ({ agent, replica }: ReplicaView): string => `${agent}.${replica}`

/** Stalled, and not stopped for it a moment ago. Those that are well are forgotten, so that their next stall is a new one. */
export function due(views: readonly ReplicaView[], stopped: Map<string, number>, now: number): readonly ReplicaView[] {
  const stalled = views.filter((view) => view.stalled !== undefined)
  const keys = new Set(stalled.map(keyOf))
  for (const key of [...stopped.keys()]) if (!keys.has(key)) stopped.delete(key)
  return stalled.filter((view) => now - (stopped.get(keyOf(view)) ?? Number.NEGATIVE_INFINITY) > PATIENCE_MS)
}

async function replace({ runtime, project, log, signal }: StallWatchOptions, { agent, replica, stalled }: ReplicaView): Promise<void> {
  const name = containerName(project, agent, replica)
  const container = (await runtime.containers(project, signal)).find((it) => it.name === name && it.labels[LABEL.kind] === 'agent')
  // A replica that is no container of ours (an agent at work elsewhere), or that is gone already.
  if (container?.status !== 'running') return
  log({ event: 'replica is stalled', container: name, reason: stalled, action: 'restart' })
  await runtime.stop(name, GRACE_S, signal)
}
