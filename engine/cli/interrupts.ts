/** The first SIGINT or SIGTERM asks the verb to end (its signal aborts), the second ends the process at once. */
import { EXIT } from '../errors.ts'
import type { Io } from './io.ts'

export interface Interrupts {
  readonly signal: AbortSignal
  /** What the first signal does from now on, in place of the abort (`up` while it follows logs: stop the project). */
  redirect(action: (() => void) | null): void
  dispose(): void
}

export function listenToInterrupts(io: Io): Interrupts {
  const controller = new AbortController()
  let action: (() => void) | null = null
  let count = 0
  const dispose = io.onSignal(() => {
    count++
    if (count > 1) io.exit(EXIT.interrupted)
    else if (action !== null) action()
    else controller.abort()
  })
  return {
    signal: controller.signal,
    redirect: (next) => {
      action = next
    },
    dispose,
  }
}
