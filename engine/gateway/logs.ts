/** Log lines of agents as events, within LOG_BYTES_PER_S per replica. What is over it is cut, and said so once. */
import { LOG_BYTES_PER_S, type LogLine } from '../../spec/protocol.ts'
import { noteLog } from './attempts.ts'
import type { EventSink } from './events.ts'
import type { Replica } from './replicas.ts'
import type { Lease } from './work.ts'

/** A start writes much at once. */
const BURST = 4 * LOG_BYTES_PER_S
/** What an event costs beside its text: lines of one byte count too. */
const LINE_BYTES = 128
/** A replica that stays over its rate is named so often. */
const SAY_MS = 10_000

interface Bucket {
  left: number
  at: number
  /** Bytes cut since it was last said. */
  cut: number
  said: number
}

export class Logs {
  readonly #events: EventSink
  readonly #buckets = new WeakMap<Replica, Bucket>()

  constructor(events: EventSink) {
    this.#events = events
  }

  /** How many of the lines were taken. */
  add(lease: Lease, lines: readonly LogLine[], now: number = Date.now()): number {
    const bucket = this.#bucket(lease.replica, now)
    let taken = 0
    for (const { stream, text } of lines) {
      const cost = Buffer.byteLength(text) + LINE_BYTES
      if (cost > bucket.left) {
        bucket.cut += cost - LINE_BYTES
        continue
      }
      bucket.left -= cost
      taken += 1
      noteLog(lease, text)
      this.#events.add(lease.task, 'log', text, undefined, { stream })
    }
    if (bucket.cut > 0 && now - bucket.said >= SAY_MS) {
      const message = `agentctl: ${lease.replica.agent}.${lease.replica.replica} writes more than ${LOG_BYTES_PER_S} bytes of log a second; ${bucket.cut} bytes are cut here`
      bucket.said = now
      bucket.cut = 0
      noteLog(lease, message)
      this.#events.add(lease.task, 'log', message, undefined, { stream: 'log', cut: true })
    }
    return taken
  }

  #bucket(replica: Replica, now: number): Bucket {
    const known = this.#buckets.get(replica)
    if (known === undefined) {
      const made = { left: BURST, at: now, cut: 0, said: 0 }
      this.#buckets.set(replica, made)
      return made
    }
    known.left = Math.min(BURST, known.left + ((now - known.at) * LOG_BYTES_PER_S) / 1_000)
    known.at = now
    return known
  }
}
