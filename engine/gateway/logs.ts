/** Log lines and progress of agents as events, within LOG_BYTES_PER_S per replica together. What is over it is cut, and said so once. */
import { type Json, LOG_BYTES_PER_S, type LogLine } from '../../spec/protocol.ts'
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
  /** Bytes of log cut since it was last said, and how often progress was. */
  cut: number
  untold: number
  said: number
}

export class Logs {
  readonly #events: EventSink
  readonly #buckets = new WeakMap<Replica, Bucket>()

  constructor(events: EventSink) {
    this.#events = events
  }

  add(lease: Lease, lines: readonly LogLine[]): void {
    const now = Date.now()
    const bucket = this.#bucket(lease.replica, now)
    for (const { stream, text } of lines) {
      const cost = Buffer.byteLength(text) + LINE_BYTES
      if (cost > bucket.left) {
        bucket.cut += cost - LINE_BYTES
        continue
      }
      bucket.left -= cost
      noteLog(lease, text)
      this.#events.add(lease.task, 'log', text, undefined, { stream })
    }
    this.#say(lease, bucket, now)
  }

  progress(lease: Lease, message?: string, percent?: number, data?: Json): void {
    const now = Date.now()
    const bucket = this.#bucket(lease.replica, now)
    const cost = Buffer.byteLength(message ?? '') + (data === undefined ? 0 : Buffer.byteLength(JSON.stringify(data))) + LINE_BYTES
    if (cost <= bucket.left) {
      bucket.left -= cost
      this.#events.add(lease.task, 'progress', message, percent, data)
    } else bucket.untold += 1
    this.#say(lease, bucket, now)
  }

  #say(lease: Lease, bucket: Bucket, now: number): void {
    const { cut, untold } = bucket
    if (cut + untold === 0 || now - bucket.said < SAY_MS) return
    const progress = untold === 0 ? '' : ` (and progress, left out ${untold} times)`
    const message = `agentctl: ${lease.replica.agent}.${lease.replica.replica} writes more than ${LOG_BYTES_PER_S} bytes of log a second; ${cut} bytes are cut here${progress}`
    Object.assign(bucket, { said: now, cut: 0, untold: 0 })
    noteLog(lease, message)
    this.#events.add(lease.task, 'log', message, undefined, { stream: 'log', cut: true })
  }

  #bucket(replica: Replica, now: number): Bucket {
    const known = this.#buckets.get(replica)
    if (known === undefined) {
      const made = { left: BURST, at: now, cut: 0, untold: 0, said: 0 }
      this.#buckets.set(replica, made)
      return made
    }
    known.left = Math.min(BURST, known.left + ((now - known.at) * LOG_BYTES_PER_S) / 1_000)
    known.at = now
    return known
  }
}
