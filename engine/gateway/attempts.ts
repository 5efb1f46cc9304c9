/** Executions that did not end their task well: what is kept of each, and the tail of what it wrote. */
import type { AttemptView, WorkError } from '../../spec/protocol.ts'
import type { Lease } from './work.ts'

/** Kept of the log of one execution, in bytes. */
export const TAIL_BYTES = 4_096
/** Appended to without cutting until here, so that a chatty task is not copied for each line. */
const SLACK = 4 * TAIL_BYTES

/** One line (or more) of the log of the execution; a progress message is one too. */
export function noteLog(lease: Lease, text: string): void {
  if (text === '') return
  const line = text.length > TAIL_BYTES ? text.slice(-TAIL_BYTES) : text
  lease.tail += line.endsWith('\n') ? line : `${line}\n`
  if (lease.tail.length > SLACK) lease.tail = lease.tail.slice(-TAIL_BYTES)
}

/** The last TAIL_BYTES in UTF-8, never half a character. */
export function tailOf(text: string): string {
  const bytes = Buffer.from(text.slice(-TAIL_BYTES))
  if (bytes.length <= TAIL_BYTES) return bytes.toString()
  let from = bytes.length - TAIL_BYTES
  while (from < bytes.length && ((bytes[from] ?? 0) & 0xc0) === 0x80) from += 1
  return bytes.subarray(from).toString()
}

export const attemptOf = (lease: Lease, error: WorkError, now: number): AttemptView => ({
  attempt: lease.epoch,
  replica: `${lease.replica.agent}.${lease.replica.replica}`,
  started_at: new Date(lease.since).toISOString(),
  ended_at: new Date(now).toISOString(),
  error: { code: error.code, message: error.message, ...(error.retryable === undefined ? {} : { retryable: error.retryable }) },
  log: tailOf(lease.tail),
})

/** One of the broker's records, for a place that is short of room. */
export function withoutLog(record: string): string {
  const [view] = parseAttempts([record])
  return view === undefined ? record : JSON.stringify({ ...view, log: '' })
}

/** Of the broker's records, in order; one that cannot be read is left out. */
export function parseAttempts(records: readonly string[]): readonly AttemptView[] {
  const views = records.flatMap((text) => {
    try {
      return [JSON.parse(text) as AttemptView]
    } catch {
      return []
    }
  })
  return views.sort((a, b) => a.attempt - b.attempt)
}
