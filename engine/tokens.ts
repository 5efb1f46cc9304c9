/** Tokens of replicas and secrets of leases: signed by the project key, verifiable after a restart, no table. */
import { createHmac, timingSafeEqual } from 'node:crypto'

export interface Identity { readonly agent: string; readonly replica: number }

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
