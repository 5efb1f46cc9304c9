/** The flags of `task` and `run` that say when and how work is to be done. */
import type { SubmitOptions } from '../../spec/protocol.ts'
import { parseMilliseconds } from './arguments.ts'
import { usage } from './failure.ts'
import { type Call, value } from './verb.ts'

export type WorkOptions = Pick<SubmitOptions, 'priority' | 'delay_ms' | 'dedup_key' | 'dedup_ttl_ms' | 'timeouts'>

export function workOptions(call: Call): WorkOptions {
  const given = (name: string): string | undefined => value(call, name) ?? undefined
  const [priority, delay, key, ttl, timeout] = [given('priority'), given('delay'), given('key'), given('keyTtl'), given('timeout')]
  if (ttl !== undefined && key === undefined) throw usage('--key-ttl goes with --key')
  return {
    ...(priority === undefined ? {} : { priority: parsePriority(priority) }),
    ...(delay === undefined ? {} : { delay_ms: parseMilliseconds('--delay', delay) }),
    ...(key === undefined ? {} : { dedup_key: parseKey(key) }),
    ...(ttl === undefined ? {} : { dedup_ttl_ms: parseMilliseconds('--key-ttl', ttl) }),
    ...(timeout === undefined ? {} : { timeouts: { schedule_to_close_ms: positive(parseMilliseconds('--timeout', timeout)) } }),
  }
}

function parsePriority(text: string): number {
  if (!/^[+-]?\d$/.test(text)) throw usage(`--priority expects a whole number from -9 to 9, got "${text}"`)
  // -0 is no JSON of its own.
  return Number(text) || 0
}

function parseKey(text: string): string {
  if (text === '' || text.length > 256) throw usage(`--key expects 1 to 256 characters, got ${text.length}`)
  return text
}

function positive(ms: number): number {
  if (ms === 0) throw usage('--timeout expects more than 0')
  return ms
}
