/** The engine's multiplexed output: frames of an 8-byte header (stream, length) and data, cut anywhere by the transport. */

export interface Frame {
  readonly stream: 'stdout' | 'stderr'
  readonly data: Buffer
}

const HEADER_BYTES = 8

/** Hands on what has arrived of a frame at once; a frame is no message. */
export class FrameReader {
  #header = Buffer.alloc(0)
  #left = 0
  #stream: Frame['stream'] = 'stdout'

  read(chunk: Buffer): readonly Frame[] {
    const frames: Frame[] = []
    let rest = chunk
    while (rest.length > 0) {
      if (this.#left === 0) {
        const missing = HEADER_BYTES - this.#header.length
        this.#header = Buffer.concat([this.#header, rest.subarray(0, missing)])
        rest = rest.subarray(missing)
        if (this.#header.length < HEADER_BYTES) break
        this.#stream = this.#header[0] === 2 ? 'stderr' : 'stdout'
        this.#left = this.#header.readUInt32BE(4)
        this.#header = Buffer.alloc(0)
        continue
      }
      const data = rest.subarray(0, this.#left)
      rest = rest.subarray(data.length)
      this.#left -= data.length
      frames.push({ stream: this.#stream, data })
    }
    return frames
  }
}
