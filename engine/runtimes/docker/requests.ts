/** What several kinds of calls share. */
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentctlError } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import { interrupted, statusOf } from './failure.ts'

/** An endpoint or a mount is released a moment after its container is gone. */
const RELEASE_WAIT_MS = 10_000

export const projectFilter = (project: string | null): string =>
  JSON.stringify({ label: [project === null ? LABEL.project : `${LABEL.project}=${project}`] })
export const isStatus = (error: unknown, status: number): boolean => error instanceof AgentctlError && statusOf(error.cause) === status

/** Until `attempt` says true; the last time it is told so, to throw what it got. */
export async function retry(signal: AbortSignal | undefined, attempt: (isLast: boolean) => Promise<boolean>): Promise<void> {
  const end = Date.now() + RELEASE_WAIT_MS
  for (let pause = 25; ; pause = Math.min(pause * 2, 500)) {
    const isLast = Date.now() >= end
    if ((await attempt(isLast)) || isLast) return
    await sleep(pause)
    if (signal?.aborted) throw interrupted('release it', signal.reason)
  }
}
