/** What a lease request says about what its session holds, and what it must be told. */
import type { Book } from './book.ts'
import type { Session } from './replicas.ts'
import type { LeaseCall } from './validate.ts'

/** A lease whose delivery is in doubt, and that its session's beats do not name for so many beats and so long, was never received. */
const MISSED_BEATS = 3
const MISSED_MS = 3_000

/** The leases that it names and does not hold. */
export function hearBeat(book: Book, session: Session, call: LeaseCall): readonly string[] {
  if (call.beat === null) return []
  const now = Date.now()
  const lost: string[] = []
  const named = new Set(call.done.map(({ lease }) => lease))
  for (const token of call.beat) {
    const lease = book.held(session.replica, token)
    if (lease === null) {
      lost.push(token)
      continue
    }
    lease.doubtful = false
    session.undelivered.delete(lease)
    named.add(token)
  }
  if (session.id === '') return lost
  for (const lease of session.leases) {
    // One that is cancelled is not begun any more.
    if (!lease.doubtful || lease.settling !== null || lease.cancel !== null || named.has(lease.token) || now - lease.delivered < MISSED_MS)
      continue
    lease.missed += 1
    if (lease.missed < MISSED_BEATS) continue
    lease.missed = 0
    lease.doubtful = false
    session.undelivered.add(lease)
  }
  return lost
}

/** What it is to stop; `fresh`: something of it is said for the first time, and must not wait. */
export function toCancel(session: Session, lost: readonly string[]): { readonly leases: readonly string[]; readonly fresh: boolean } {
  const leases = [...lost]
  let fresh = lost.length > 0
  for (const lease of session.leases) {
    if (lease.cancel === null) continue
    fresh ||= !lease.cancel.told
    lease.cancel.told = true
    leases.push(lease.token)
  }
  return { leases, fresh }
}
