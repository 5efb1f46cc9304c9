/** Small tar archives in memory: what the engine's archive calls speak. */
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { extract, pack } from 'tar-stream'

export interface Entry {
  /** Relative; a directory ends in "/". */
  readonly path: string
  readonly content?: string | Buffer
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export function packEntries(entries: readonly Entry[]): Readable {
  const tar = pack()
  for (const { path, content, ...owner } of entries) {
    if (path.endsWith('/')) tar.entry({ name: path, type: 'directory', ...owner })
    else tar.entry({ name: path, ...owner }, content ?? '')
  }
  tar.finalize()
  return Readable.from(tar)
}

/** Regular files by path. For small archives only: everything is held in memory. */
export async function readEntries(tar: NodeJS.ReadableStream): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>()
  const parser = extract()
  const done = (async () => {
    for await (const entry of parser) {
      const content = await buffer(entry)
      if (entry.header.type === 'file') files.set(entry.header.name, content)
    }
  })()
  tar.on('error', (error) => parser.destroy(error))
  tar.pipe(parser)
  await done
  return files
}
