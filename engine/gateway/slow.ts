/** Ends requests whose body does not come within a minute or two: in two generations, so that a request costs an entry and no timer. */
import type { IncomingMessage } from 'node:http'

const GENERATION_MS = 60_000

export class Slow {
  #young = new Set<IncomingMessage>()
  #old = new Set<IncomingMessage>()
  readonly #timer: NodeJS.Timeout

  constructor(generation_ms: number = GENERATION_MS) {
    this.#timer = setInterval(() => this.#turn(), generation_ms).unref()
  }

  /** Call it before the body is read. */
  add(request: IncomingMessage): void {
    if (!request.complete) this.#young.add(request)
  }

  /** It is answered. */
  delete(request: IncomingMessage): void {
    if (!this.#young.delete(request)) this.#old.delete(request)
  }

  #turn(): void {
    for (const request of this.#old) if (!request.complete) request.destroy()
    this.#old = this.#young
    this.#young = new Set()
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
