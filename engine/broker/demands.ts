/** What a broker of the user's own must be, judged by its INFO. Pure. */

/** By the file's `durability`: what must be on disk when Redis says yes. */
export type Durability = 'none' | 'normal' | 'strict'
type Info = { readonly [field: string]: unknown }

/** The first with ZRANGE … BYSCORE REV, by which runs and dead letters are listed. */
const LEAST_VERSION = [6, 2] as const

/** Why this one would not do, or would lose work; null: it will do. */
export function refusalOf(info: Info, durability: Durability): string | null {
  const field = (name: string): string => String(info[name] ?? '')
  // With a user who may not call it, the client goes on with nothing.
  if (field('redis_version') === '') return 'its settings cannot be seen: the user may not call INFO'
  const [major = 0, minor = 0] = field('redis_version').split('.').map(Number)
  if (major < LEAST_VERSION[0] || (major === LEAST_VERSION[0] && minor < LEAST_VERSION[1]))
    return `it is Redis ${field('redis_version')}: expected ${LEAST_VERSION.join('.')} or newer`
  if (field('redis_mode') !== 'standalone') return `it runs as ${field('redis_mode')}: expected a single Redis or the primary of one`
  if (field('role') !== 'master') return `it is a replica, which cannot be written to: expected the primary`
  if (durability === 'none') return null
  if (field('maxmemory') !== '0' && field('maxmemory_policy') !== 'noeviction')
    return `maxmemory-policy is ${field('maxmemory_policy')}, so it may throw tasks away: expected noeviction`
  if (field('aof_enabled') !== '1') return 'appendonly is off, so a crash would lose what it said yes to: expected yes'
  if (field('aof_last_write_status') === 'err') return 'it cannot write its append-only file: see its log and its disk'
  return null
}

/** For `strict`; the answer of CONFIG GET appendfsync. */
export function fsyncRefusal(value: string | null): string | null {
  if (value === null) return 'appendfsync cannot be seen (the user may not call CONFIG GET), and durability: strict needs to know it'
  return value === 'always' ? null : `appendfsync is ${value}, and durability: strict asks for always`
}
