/** All that is said to one gateway: the session, and beside it what tasks ask, tell and write. A task belongs to the link that it came by. */
import type { LeaseReply } from '../spec/protocol.ts'
import type { Place } from './config.ts'
import { Lane, LanePool } from './http.ts'
import { log } from './log.ts'
import { LogQueue } from './logs.ts'
import { ProgressQueue } from './progress.ts'
import { Session } from './session.ts'

const ANSWER_MS = 5_000
/** Waits for children, progress and spans; the lease requests have lanes of their own. */
const SIDE_LANES = 32

export interface LinkOptions {
  readonly place: Place
  readonly headers: { readonly [name: string]: string }
  readonly free: (link: Link) => number
  readonly shares: (link: Link) => boolean
  readonly onReply: (link: Link, reply: LeaseReply) => void
  readonly onConnected: (link: Link, connected: boolean) => void
}

export class Link {
  readonly place: Place
  readonly headers: { readonly [name: string]: string }
  readonly session: Session
  readonly side: LanePool
  readonly progress: ProgressQueue
  readonly logs: LogQueue
  /** What it has handed out and not had back. */
  readonly leases: Set<string> = new Set()
  /** Of these, what has a slot or waits for one: all but the parked. */
  active = 0
  connected = false

  constructor({ place, headers, free, shares, onReply, onConnected }: LinkOptions) {
    this.place = place
    this.headers = headers
    this.side = new LanePool(SIDE_LANES, () => new Lane(place.host, place.port, headers))
    this.progress = new ProgressQueue(this.post('/v1/progress'))
    this.logs = new LogQueue(this.post('/v1/logs'))
    this.session = new Session({
      ...place,
      headers,
      free: () => free(this),
      shares: () => shares(this),
      leases: () => this.leases,
      onReply: (reply) => onReply(this, reply),
      onConnected: (connected) => {
        this.connected = connected
        onConnected(this, connected)
      },
      log,
    })
  }

  post(path: string): (body: string) => ReturnType<LanePool['request']> {
    return (body) => this.side.request({ method: 'POST', path, body, timeoutMs: ANSWER_MS })
  }

  close(): void {
    this.session.close()
    this.side.close()
  }
}
