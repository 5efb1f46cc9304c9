/** The last bytes of a stream, in bounded memory. */

export const TAIL_BYTES = 16_384

export class Tail {
  readonly #limit: number
  #chunks: Buffer[] = []
  #size = 0
  #total = 0

  constructor(limit: number = TAIL_BYTES) {
    this.#limit = limit
  }

  push(chunk: Buffer): void {
    this.#total += chunk.length
    this.#chunks.push(chunk)
    this.#size += chunk.length
    // Compacted only when twice too long: a chatty command costs one copy per 16 KiB.
    if (this.#size > 2 * this.#limit) this.#compact()
  }

  get truncated(): boolean {
    return this.#total > this.#limit
  }

  /** As text, at most `limit` bytes of the stream; a character that the cut went through is left out. */
  text(limit: number = this.#limit): string {
    this.#compact()
    const all = this.#chunks[0] ?? Buffer.alloc(0)
    if (this.#total <= limit) return all.toString('utf8')
    let start = Math.max(0, all.length - limit)
    for (let skipped = 0; skipped < 3 && ((all[start] ?? 0) & 0xc0) === 0x80; skipped += 1) start += 1
    return all.toString('utf8', start)
  }

  #compact(): void {
    const all = Buffer.concat(this.#chunks)
    // A copy: a view would keep the whole chunk alive.
    const kept = all.length > this.#limit ? Buffer.from(all.subarray(all.length - this.#limit)) : all
    this.#chunks = [kept]
    this.#size = kept.length
  }
}
