/** Connections to plain HTTP hosts that wait for the next request: one pool per agent, since what one may reach another may not. */
import { Agent, type AgentOptions } from 'node:http'
import type { Socket } from 'node:net'
import type { Ask } from './decide.ts'
import type { Dialled } from './dial.ts'

/** Servers close idle ones after 5 s and more. */
const FREE_MS = 4_000
const MAX_FREE = 16

type Made = (error: Error | null, socket?: Socket) => void
export type Dial = (ask: Ask) => Promise<Dialled>

export class Pool {
  readonly #addresses = new WeakMap<object, string>()
  #agents = new Map<string, Agent>()

  /**
   * `ask` goes along in the options of the request. A body cannot be sent twice, so one with a body gets a connection that is new:
   * one that waited may be dead already.
   */
  of(agent: string, dial: Dial, hasBody: boolean): Agent {
    const key = `${agent}/${hasBody ? 'new' : 'kept'}`
    const found = this.#agents.get(key)
    if (found !== undefined) return found
    const options: AgentOptions = { keepAlive: !hasBody, maxFreeSockets: MAX_FREE, timeout: FREE_MS, scheduling: 'lifo' }
    const made = Object.assign(new Agent(options), {
      createConnection: ({ ask }: { ask: Ask }, done: Made) => {
        dial(ask).then(
          ({ socket, address }) => {
            this.#addresses.set(socket, address)
            done(null, socket)
          },
          (error: unknown) => done(error instanceof Error ? error : new Error('error')),
        )
      },
    }) as unknown as Agent
    this.#agents.set(key, made)
    return made
  }

  addressOf(socket: Socket): string | null {
    return this.#addresses.get(socket) ?? null
  }

  /** What waits is closed; what is in use is not kept when it is done. */
  reset(): void {
    for (const agent of this.#agents.values()) {
      agent.maxFreeSockets = 0
      for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
    }
    this.#agents = new Map()
  }
}
