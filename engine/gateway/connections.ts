/** No replica may hold the gateway's sockets: so many from one address (on a role network that is one replica), and none for a stranger. */
import type { Socket } from 'node:net'

/** Above the open requests that one replica may have. */
const MAX_CONNECTIONS = 300
/** A connection without an authenticated request is closed after this. */
const STRANGER_MS = 10_000

export class Connections {
  readonly #open = new Map<string, number>()
  readonly #strangers = new WeakMap<Socket, NodeJS.Timeout>()

  /** The newest is the one that is refused: those before it may hold work. */
  opened(socket: Socket): void {
    const address = socket.remoteAddress
    const count = (this.#open.get(address ?? '') ?? 0) + 1
    if (address === undefined || count > MAX_CONNECTIONS) {
      socket.destroy()
      return
    }
    this.#open.set(address, count)
    const timer = setTimeout(() => socket.destroy(), STRANGER_MS)
    this.#strangers.set(socket, timer)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#closed(address)
    })
  }

  /** A request on it was authenticated. */
  known(socket: Socket): void {
    clearTimeout(this.#strangers.get(socket))
    this.#strangers.delete(socket)
  }

  #closed(address: string): void {
    const left = (this.#open.get(address) ?? 1) - 1
    if (left > 0) this.#open.set(address, left)
    else this.#open.delete(address)
  }
}
