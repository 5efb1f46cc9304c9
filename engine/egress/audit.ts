/**
 * One record per decision, as lines of JSON on stdout, where `agentctl egress log` finds them: the engine keeps 30 MB. So that no
 * replica can wash away what others left there, each has so many a second; those above are counted, and the next one says how many.
 */
import type { Client } from './segments.ts'
import type { Reason } from './refused.ts'

export interface AuditRecord {
  readonly audit: 'egress'
  readonly at: string
  readonly agent: string
  readonly replica: number
  /** As it was decided on; null: no host could be read. */
  readonly host: string | null
  readonly port: number | null
  readonly scheme: string
  readonly method: string | null
  readonly verdict: 'allow' | 'deny'
  readonly reason: Reason
  /** "agents.yaml:31 egress.web"; null: none has decided it. */
  readonly rule: string | null
  /** So many decisions about this replica before this one are not here. */
  readonly suppressed?: number
}

export type Entry = Pick<AuditRecord, 'host' | 'port' | 'scheme' | 'method' | 'verdict' | 'reason' | 'rule'>

export interface Audit {
  tell(client: Client, entry: Entry): void
  /** Writes what waits. */
  flush(): void
}

export interface AuditOptions {
  readonly write: (lines: string) => void
  /** Each decision that is written, for a span. */
  readonly span?: (record: AuditRecord) => void
  readonly now?: () => number
}

const PER_SECOND = 50
const BURST = 200
/** A write per line would be a system call per request. */
const FLUSH_MS = 50

interface Bucket {
  tokens: number
  filled: number
  suppressed: number
}

export function makeAudit({ write, span = () => {}, now = Date.now }: AuditOptions): Audit {
  const buckets = new Map<string, Bucket>()
  let waiting: string[] = []
  let timer: NodeJS.Timeout | null = null
  const flush = (): void => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    if (waiting.length === 0) return
    const lines = waiting.join('')
    waiting = []
    write(lines)
  }
  return {
    flush,
    tell: (client, entry) => {
      const bucket = bucketOf(buckets, client, now())
      if (bucket.tokens < 1) {
        bucket.suppressed += 1
        return
      }
      bucket.tokens -= 1
      const record: AuditRecord = {
        audit: 'egress',
        at: new Date(now()).toISOString(),
        agent: client.agent,
        replica: client.replica,
        ...entry,
        ...(bucket.suppressed === 0 ? {} : { suppressed: bucket.suppressed }),
      }
      bucket.suppressed = 0
      waiting.push(`${JSON.stringify(record)}\n`)
      timer ??= setTimeout(flush, FLUSH_MS)
      span(record)
    },
  }
}

/** As many as there are replicas: at most some hundred. */
function bucketOf(buckets: Map<string, Bucket>, { agent, replica }: Client, time: number): Bucket {
  const key = `${agent}/${replica}`
  const bucket = buckets.get(key) ?? { tokens: BURST, filled: time, suppressed: 0 }
  buckets.set(key, bucket)
  bucket.tokens = Math.min(BURST, bucket.tokens + (Math.max(0, time - bucket.filled) / 1_000) * PER_SECOND)
  bucket.filled = time
  return bucket
}
