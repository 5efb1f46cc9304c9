/** What the parts that move runs on share, and how they write. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Project } from '../../spec/model.ts'
import type { Broker } from '../broker/port.ts'
import type { Admission } from './admission.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Run } from './run.ts'
import type { Tracing } from './tracing.ts'
import type { Witness } from './witness.ts'

/** A broker that refuses a write (out of memory, disk full) is asked again. */
const REFUSED_PAUSE_MS = 500

export interface RunKit {
  readonly broker: Broker
  readonly project: () => Project
  readonly dispatcher: () => Dispatcher
  readonly tracing: Tracing
  readonly admission: Admission
  readonly witness: Witness
  readonly log: (message: string) => void
  readonly isClosing: () => boolean
}

/** Writes that must not get lost because the broker refuses them for a while. Connection errors never come here: those calls wait. */
export async function insist<T>({ log, isClosing }: Pick<RunKit, 'log' | 'isClosing'>, write: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await write()
    } catch (error) {
      if (isClosing() || !(error instanceof Error) || error.name !== 'ReplyError') throw error
      log(`the broker refuses: ${error.message}`)
      await sleep(REFUSED_PAUSE_MS)
      if (isClosing()) throw error
    }
  }
}

/** The same for a run, until another object stands for it. */
export const insistFor = <T>(kit: RunKit, run: Run, write: () => Promise<T>): Promise<T> =>
  insist({ log: kit.log, isClosing: () => kit.isClosing() || run.stale }, write)
