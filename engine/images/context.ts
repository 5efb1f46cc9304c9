/** A build context as a tar stream: a Dockerfile and a few files, streamed, because Node alone is 120 MB. */
import { createReadStream, readFileSync, statSync } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { pack } from 'tar-stream'

export interface ContextFile {
  readonly name: string
  readonly source: string
  readonly mode: number
}

/** Fixed times: the engine's build cache compares them. */
const MTIME = new Date(0)

export function buildContext(dockerfile: string, files: readonly ContextFile[]): NodeJS.ReadableStream {
  const tar = pack()
  const fill = async (): Promise<void> => {
    tar.entry({ name: 'Dockerfile', mode: 0o644, mtime: MTIME }, readFileSync(dockerfile))
    for (const { name, source, mode } of files) {
      const entry = tar.entry({ name, mode, mtime: MTIME, size: statSync(source).size })
      await pipeline(createReadStream(source), entry)
    }
    tar.finalize()
  }
  fill().catch((error: unknown) => tar.destroy(error instanceof Error ? error : new Error(String(error))))
  return Readable.from(tar)
}
