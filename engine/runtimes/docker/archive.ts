/** Files into containers, as tar: sets owner and mode and runs nothing. */
import { basename } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pack } from 'tar-stream'
import type { File } from '../../ports.ts'

/** A path that ends in "/" is a folder of that owner and mode ("./" the target folder itself). Folders on the way are root's, 0755. */
export async function filesArchive(directory: string, files: readonly File[]): Promise<Buffer> {
  const tar = pack()
  const made = new Set<string>()
  const mtime = new Date(0)
  for (const file of files) {
    for (const folder of parents(file.path)) {
      if (made.has(folder)) continue
      made.add(folder)
      tar.entry({ name: folder, type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime })
    }
    const { mode, uid, gid } = file
    if (file.path.endsWith('/')) {
      made.add(file.path)
      // The engine skips the entry "."; by its own name the folder gets its owner, also where its parent is read-only.
      const name = file.path === './' ? `../${basename(directory)}/` : file.path
      tar.entry({ name, type: 'directory', mode, uid, gid, mtime })
    } else tar.entry({ name: file.path, mode, uid, gid, mtime }, file.content)
  }
  tar.finalize()
  return buffer(tar)
}

function parents(path: string): readonly string[] {
  const parts = path.replace(/\/$/, '').split('/').slice(0, -1)
  return parts.map((_, index) => `${parts.slice(0, index + 1).join('/')}/`).filter((folder) => folder !== './' && folder !== '/')
}
