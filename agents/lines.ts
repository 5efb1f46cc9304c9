/** Bytes of a stream → its lines, whole characters, bounded memory. */
import { LINE_CHARS } from './logs.ts'

export class Lines {
  readonly #emit: (line: string) => void
  readonly #decoder = new TextDecoder()
  #rest = ''

  constructor(emit: (line: string) => void) {
    this.#emit = emit
  }

  push(chunk: Buffer): void {
    const lines = (this.#rest + this.#decoder.decode(chunk, { stream: true })).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) this.#emit(line)
    if (this.#rest.length <= LINE_CHARS) return
    this.#emit(this.#rest)
    this.#rest = ''
  }

  end(): void {
    const rest = this.#rest + this.#decoder.decode()
    this.#rest = ''
    if (rest !== '') this.#emit(rest)
  }
}
