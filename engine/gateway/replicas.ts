/** Who is there: replicas, their sessions and sockets, and when a session is dead. */
import type { Socket } from 'node:net'
import { LEASE_MS, MAX_IDLE_WAIT_MS, type ReplicaView, SESSION_SILENCE_MS } from '../../spec/protocol.ts'
import type { Identity } from '../tokens.ts'
import { HttpError } from './http.ts'
import type { Lease } from './work.ts'

/** After the last socket of a session closed: time to open another. */
const REOPEN_MS = 100
const LOOK_MS = 500
/** From the answer to an idle session to its next request, however slow its machine is. */
const IDLE_SLACK_MS = 4_000
/**
 * How long the request of an idle session is held: all of them together make some 16 requests a second, so that thousands cost nothing
 * that can be measured. One that is gone is seen by its connection, also when it was cut off (the kernel asks, see agent-api.ts).
 */
const HOLD_PER_SESSION_MS = 60
const MIN_HOLD_MS = 1_000
/** After a gateway's start, for the sessions of the one before. */
export const GRACE_MS = 10_000

export interface Replica {
  readonly agent: string
  readonly replica: number
  readonly leases: Set<Lease>
  /** Leases whose task waits for children. */
  parked: number
  /** Slots reserved by fetches under way. */
  fetching: number
  /** Open requests. */
  requests: number
  /** Of their bodies. */
  bytes: number
  session: Session | null
  /** Its process is to be replaced: it gets no more work until it has another session. */
  stalled: { readonly session: string; readonly why: string } | null
  /** Its posture is what was declared: without that it gets no work. Always so where nobody proves. */
  proved: boolean
  /** The session before: a late request of it must not end the present one. */
  replaced: string | null
  /** Its holder without a session (curl); made at the first request of that kind. */
  sessionless: Session | null
}

export interface Session {
  /** '' : sessionless. */
  readonly id: string
  readonly replica: Replica
  readonly holder: string
  readonly sockets: Set<Socket>
  readonly leases: Set<Lease>
  /** Leased, but the answer never went out. */
  readonly undelivered: Set<Lease>
  /** Handed out on a socket on which nothing came since: the answer may have been lost. */
  readonly unconfirmed: Map<Socket, readonly Lease[]>
  /** Unix ms of the last request, or since when it must be heard; in the future: the grace of an adopted one. */
  heard: number
  /** Unix ms of the last request. */
  asked: number
  /** While it holds nothing: its request is held for so long. */
  hold: number
  /** It has made a request to this gateway. */
  seen: boolean
  dead: boolean
}

/** A session that holds nothing is heard only when its request is over. */
const silence = ({ leases, undelivered, hold }: Session): number =>
  leases.size === 0 && undelivered.size === 0 ? Math.max(SESSION_SILENCE_MS, hold + IDLE_SLACK_MS) : SESSION_SILENCE_MS

export type Death = 'closed' | 'silent' | 'replaced' | 'absent'

export const holderOf = ({ agent, replica }: Identity, session: string): string => `${agent}.${replica}.${session}`
export function parseHolder(holder: string | null): { readonly identity: Identity; readonly session: string } | null {
  const [agent, replica, session, ...rest] = (holder ?? '').split('.')
  if (agent === undefined || session === undefined || rest.length > 0 || !/^\d+$/.test(replica ?? '')) return null
  return { identity: { agent, replica: Number(replica) }, session }
}

export class Replicas {
  readonly #replicas = new Map<string, Replica>()
  readonly #sockets = new WeakMap<Socket, Set<Session>>()
  readonly #died: (session: Session, death: Death) => void
  readonly #away: () => boolean
  readonly #timer: NodeJS.Timeout
  readonly #watchers = new Set<() => void>()
  /** Work is for those alone whose posture the controller has proved. */
  readonly #guarded: boolean
  #looked = Date.now()
  #closing = false

  /** `away`: the broker is, so requests are not answered in time and silence proves nothing. */
  constructor(died: (session: Session, death: Death) => void, away: () => boolean, guarded = false) {
    this.#guarded = guarded
    this.#died = died
    this.#away = away
    this.#timer = setInterval(() => this.#look(), LOOK_MS)
  }

  of(identity: Identity): Replica {
    const key = `${identity.agent}.${identity.replica}`
    const known = this.#replicas.get(key)
    if (known !== undefined) return known
    const made: Replica = {
      agent: identity.agent,
      replica: identity.replica,
      leases: new Set(),
      parked: 0,
      fetching: 0,
      requests: 0,
      bytes: 0,
      session: null,
      stalled: null,
      proved: !this.#guarded,
      replaced: null,
      sessionless: null,
    }
    this.#replicas.set(key, made)
    return made
  }

  /** A request came in. A new session id ends the replica's former session. */
  enter(replica: Replica, id: string, socket: Socket): Session {
    if (id !== '' && replica.replaced === id)
      throw new HttpError(
        409,
        'session_replaced',
        `replica ${replica.agent}.${replica.replica} has a newer session`,
        'One runtime per replica.',
      )
    const session = this.#session(replica, id, true)
    session.asked = Date.now()
    session.heard = session.asked
    session.unconfirmed.delete(socket)
    if (id !== '' && !session.sockets.has(socket)) this.#attach(session, socket)
    if (!session.seen) {
      session.seen = true
      for (const watcher of this.#watchers) watcher()
    }
    return session
  }

  /** A holder found in the broker at start: it has the grace to come back. */
  adopt(identity: Identity, id: string): Session {
    const session = this.#session(this.of(identity), id, false)
    if (!session.seen) session.heard = Date.now() + (GRACE_MS - SESSION_SILENCE_MS)
    return session
  }

  #session(replica: Replica, id: string, replace: boolean): Session {
    const current = id === '' ? replica.sessionless : replica.session
    if (current !== null && current.id === id) return current
    const made: Session = {
      id,
      replica,
      holder: holderOf(replica, id),
      sockets: new Set(),
      leases: new Set(),
      undelivered: new Set(),
      unconfirmed: new Map(),
      heard: 0,
      asked: 0,
      hold: 0,
      seen: false,
      dead: false,
    }
    // What was stalled is gone.
    if (replica.stalled !== null && replica.stalled.session !== id && id !== '') replica.stalled = null
    if (id === '') replica.sessionless = made
    else if (current === null || replace) {
      replica.session = made
      if (current !== null) {
        replica.replaced = current.id
        this.#end(current, 'replaced')
      }
    } else this.#end(made, 'replaced')
    return made
  }

  #attach(session: Session, socket: Socket): void {
    session.sockets.add(socket)
    const sessions = this.#sockets.get(socket)
    if (sessions !== undefined) {
      sessions.add(session)
      return
    }
    const attached = new Set([session])
    this.#sockets.set(socket, attached)
    socket.once('close', () => {
      for (const it of attached) {
        it.sockets.delete(socket)
        for (const lease of it.unconfirmed.get(socket) ?? []) lease.doubtful = true
        it.unconfirmed.delete(socket)
        if (it.sockets.size === 0 && !it.dead) setTimeout(() => it.sockets.size === 0 && this.#end(it, 'closed'), REOPEN_MS).unref()
      }
    })
  }

  #look(): void {
    const now = Date.now()
    const late = now - this.#looked > LOOK_MS + 1_000 || this.#away()
    this.#looked = now
    for (const { session } of this.#replicas.values()) {
      if (session === null) continue
      // The gateway itself stood still (suspended, stopped): nobody could be heard.
      if (late) session.heard = Math.max(session.heard, now)
      else if (now - session.heard > silence(session)) this.#end(session, session.seen ? 'silent' : 'absent')
    }
  }

  #end(session: Session, death: Death): void {
    if (session.dead || this.#closing) return
    session.dead = true
    // What comes next may be another container.
    if (this.#guarded) session.replica.proved = false
    if (session.replica.session === session) session.replica.session = null
    // One connection may bring session after session: it must not remember them all.
    for (const socket of session.sockets) this.#sockets.get(socket)?.delete(session)
    this.#died(session, death)
    for (const watcher of this.#watchers) watcher()
  }

  /** Its process makes no progress: nothing more is given to it, and who looks at `views` replaces it. */
  stall({ id, replica }: Session, why: string): void {
    replica.stalled = { session: id, why }
  }

  /** What the controller found; before the replica's session too, which may come later. true: it may work now, and might not before. */
  prove(identity: Identity, proved: boolean): boolean {
    const replica = this.of(identity)
    const isNews = proved && !replica.proved
    replica.proved = proved || !this.#guarded
    return isNews
  }

  connected(agent: string, replica: number): boolean {
    const known = this.#replicas.get(`${agent}.${replica}`)
    if (known === undefined) return false
    return known.session?.seen === true || (known.sessionless?.seen === true && Date.now() - known.sessionless.heard <= LEASE_MS)
  }

  /** For the request of a session that holds nothing and leaves the time to us. */
  get hold_ms(): number {
    return Math.min(MAX_IDLE_WAIT_MS, Math.max(MIN_HOLD_MS, HOLD_PER_SESSION_MS * this.#replicas.size))
  }

  views(): readonly ReplicaView[] {
    return [...this.#replicas.values()]
      .map((it) => ({
        agent: it.agent,
        replica: it.replica,
        connected: this.connected(it.agent, it.replica),
        tasks: it.leases.size,
        ...(it.stalled === null ? {} : { stalled: it.stalled.why }),
        ...(it.proved ? {} : { unproved: true as const }),
      }))
      .filter((it) => it.connected || it.tasks > 0)
      .sort((a, b) => (a.agent === b.agent ? a.replica - b.replica : a.agent < b.agent ? -1 : 1))
  }

  /** Connected ones of an agent. */
  count(agent: string): number {
    let count = 0
    for (const it of this.#replicas.values()) if (it.agent === agent && this.connected(agent, it.replica)) count += 1
    return count
  }

  all(): Iterable<Replica> {
    return this.#replicas.values()
  }

  /** Called after each change of who is connected. Returns the unsubscriber. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher)
    return () => void this.#watchers.delete(watcher)
  }

  /** From here on nobody's closing means a death: the gateway itself goes. */
  close(): void {
    this.#closing = true
    clearInterval(this.#timer)
  }
}
