/** Tokens of replicas and secrets of leases: signed by the project key, verifiable after a restart, no table. */
import { createHmac, timingSafeEqual } from 'node:crypto'

export interface Identity {
  readonly agent: string
  readonly replica: number
}

const mac = (key: string, text: string): string => createHmac('sha256', key).update(text).digest('base64url').slice(0, 32)

const sameText = (a: string, b: string): boolean => {
  const [x, y] = [Buffer.from(a), Buffer.from(b)]
  return x.length === y.length && timingSafeEqual(x, y)
}

/** `AGENT.REPLICA.MAC`; role names have no dots. */
export function replicaToken(key: string, project: string, { agent, replica }: Identity): string {
  return `${agent}.${replica}.${mac(key, `replica|${project}|${agent}|${replica}`)}`
}

export function verifyReplicaToken(key: string, project: string, token: string): Identity | null {
  const [agent, replica, ...rest] = token.split('.')
  if (agent === undefined || replica === undefined || rest.length !== 1 || !/^\d{1,4}$/.test(replica)) return null
  const identity = { agent, replica: Number(replica) }
  return sameText(token, replicaToken(key, project, identity)) ? identity : null
}

/** With it the gateway that the CLI talks to asks the others. No agent has it: it is made with the key. */
export const peerToken = (key: string, project: string): string => mac(key, `peer|${project}`)
export const isPeerToken = (key: string, project: string, token: string): boolean => sameText(token, peerToken(key, project))

/** One execution of a task, as held by `AGENT.REPLICA.SESSION` (the broker's lock token). */
export interface LeaseIdentity {
  readonly id: string
  readonly epoch: number
}

/** `id~epoch~MAC`: no table is needed to know it again after a restart. */
export function leaseToken(key: string, holder: string, { id, epoch }: LeaseIdentity): string {
  return `${id}~${epoch}~${mac(key, `lease|${holder}|${id}|${epoch}`)}`
}

/** What a lease says that was made for this holder; null for anything else. */
export function verifyLease(key: string, holder: string, lease: string): LeaseIdentity | null {
  const [id, epoch, ...rest] = lease.split('~')
  if (id === undefined || epoch === undefined || rest.length !== 1 || !/^\d{1,9}$/.test(epoch)) return null
  const identity = { id, epoch: Number(epoch) }
  return sameText(lease, leaseToken(key, holder, identity)) ? identity : null
}
