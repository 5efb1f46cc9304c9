/** Lines of the egress container that are records of its audit. */
import type { AuditRecord } from '../egress/audit.ts'
import type { LogLine } from './log-stream.ts'

export type AuditLine = Omit<AuditRecord, 'audit'>

/** null: another line, or of another agent. */
export function auditOf({ stream, line }: Pick<LogLine, 'stream' | 'line'>, agent: string | null): AuditLine | null {
  if (stream !== 'stdout' || !line.startsWith('{"audit":"egress"')) return null
  try {
    const { audit: _, ...record } = JSON.parse(line) as AuditRecord
    return agent === null || record.agent === agent ? record : null
  } catch {
    // Cut off by the rotation of the log.
    return null
  }
}
