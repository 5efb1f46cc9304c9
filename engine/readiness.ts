/** "Is this replica connected?", asked of the gateway for all replicas that are waited for at once. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type ControlClient, openControl } from './control.ts'
import type { ContainerRuntime } from './ports.ts'

/** One small request over a stream that is open anyway. */
const POLL_MS = 50

export interface Readiness {
  ready(agent: string, replica: number, signal: AbortSignal): Promise<void>
  close(): void
}

export function readiness(runtime: ContainerRuntime, project: string, signal: AbortSignal): Readiness {
  const waiting = new Map<string, Set<() => void>>()
  const closed = new AbortController()
  const both = AbortSignal.any([signal, closed.signal])
  let polling = false
  /** One for all polls: each would cost the engine an exec of its own. */
  let opened: Promise<ControlClient> | null = null

  const poll = async (): Promise<void> => {
    polling = true
    try {
      opened ??= openControl(runtime, project, both, { retry_ms: 0 })
      const control = await opened
      while (waiting.size > 0 && !both.aborted) {
        // A gateway that is not there yet is the same as a replica that is not: the waiter's own timeout decides.
        const replicas = await control.replicas().catch(() => [])
        for (const replica of replicas) {
          const key = `${replica.agent}:${replica.replica}`
          if (!replica.connected) continue
          for (const done of waiting.get(key) ?? []) done()
          waiting.delete(key)
        }
        if (waiting.size > 0) await sleep(POLL_MS, undefined, { signal: both }).catch(() => undefined)
      }
    } finally {
      polling = false
    }
  }

  return {
    ready: (agent, replica, limit) =>
      new Promise((resolve, reject) => {
        const key = `${agent}:${replica}`
        const callbacks = waiting.get(key) ?? new Set()
        const stop = (): void => {
          callbacks.delete(done)
          if (callbacks.size === 0) waiting.delete(key)
          reject(limit.reason)
        }
        const done = (): void => {
          limit.removeEventListener('abort', stop)
          resolve()
        }
        if (limit.aborted) return stop()
        callbacks.add(done)
        waiting.set(key, callbacks)
        limit.addEventListener('abort', stop, { once: true })
        if (!polling) void poll()
      }),
    close: () => {
      closed.abort()
      void opened?.then((control) => control.close())
    },
  }
}
