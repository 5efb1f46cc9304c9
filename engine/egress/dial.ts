/** From an allowed name to a connection: resolve once, look at every answer, dial what was looked at. */
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { EgressPolicy } from '../../spec/model.ts'
import { showHost } from '../../spec/hosts.ts'
import { type Ask, type Vetted, vet } from './decide.ts'
import { explainAddress, showRule } from './denial.ts'
import type { Net } from './net.ts'
import { Refused } from './refused.ts'
import type { Segments } from './segments.ts'

const RESOLVE_MS = 5_000
/** A name with hundreds of addresses is not worth vetting them all. */
const MAX_ANSWERS = 32
const MAX_TRIES = 3

export interface Dialled {
  readonly socket: Socket
  /** To vet it again when the policy changes. Never told to a client. */
  readonly address: string
}

export interface DialOptions {
  readonly net: Net
  readonly segments: Segments
  readonly policies: readonly EgressPolicy[]
  readonly ask: Ask
}

/** After `decide` has allowed it, and not before: a name alone can carry data to whoever answers for it. Throws Refused. */
export async function dial({ net, segments, policies, ask }: DialOptions): Promise<Dialled> {
  const answers = ask.host.kind === 'address' ? [ask.host.host] : await answersOf(net, ask.host.host)
  const options = { policies, ask, isOwn: segments.isOwn }
  const vetted = answers.map((address) => ({ address, result: vet(address, options) }))
  const good = vetted.flatMap(({ address, result }) => (result.ok ? [{ address, family: result.family }] : []))
  const [bad] = vetted.flatMap(({ result }) => (result.ok ? [] : [result]))
  if (good.length === 0 && bad !== undefined) throw refusedAddress(policies, ask, bad)
  // Our containers have no IPv6.
  const order = good.toSorted((a, b) => a.family - b.family).slice(0, MAX_TRIES)
  let why = 'no answer'
  for (const { address } of order) {
    try {
      return { socket: await net.connect(address, ask.port), address }
    } catch (error) {
      why = codeOf(error)
    }
  }
  throw new Refused(502, 'unreachable', `"${showHost(ask.host.host)}:${ask.port}" cannot be reached: ${why}`)
}

export function refusedAddress(policies: readonly EgressPolicy[], ask: Ask, bad: Vetted & { readonly ok: false }): Refused {
  return new Refused(403, bad.reason, explainAddress(policies, ask, bad), bad.by === null ? null : showRule(bad.by))
}

async function answersOf(net: Net, host: string): Promise<readonly string[]> {
  const over = new AbortController()
  const late = sleep(RESOLVE_MS, null, { signal: over.signal }).catch(() => null)
  try {
    const answers = await Promise.race([net.resolve(host), late])
    if (answers !== null && answers.length > 0) return answers.slice(0, MAX_ANSWERS)
    throw new Refused(502, 'unresolved', `"${host}" has no address${answers === null ? `: no answer within ${RESOLVE_MS / 1_000} s` : ''}`)
  } catch (error) {
    if (error instanceof Refused) throw error
    throw new Refused(502, 'unresolved', `"${host}" has no address: ${codeOf(error)}`)
  } finally {
    over.abort()
  }
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'error'
  return 'code' in error && typeof error.code === 'string' ? error.code : /^E[A-Z]+$/.test(error.message) ? error.message : 'error'
}
