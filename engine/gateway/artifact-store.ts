/**
 * Bytes by their digest, below one folder: `sha256/ab/HEX`. A blob is written to `tmp/`, synced and renamed, so it is whole or absent.
 * Renaming, and deleting what nobody names, are each one turn of this process: an upload of the same bytes cannot fall between the look
 * and the deletion.
 */
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, renameSync, statSync, unlinkSync } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'

/** A blob without a name stays for so long after its last upload: its name may be on its way, in another gateway too. */
export const BLOB_GRACE_MS = 600_000
/** Nobody writes to it any more: an upload this slow is ended. */
export const TEMP_GRACE_MS = 180_000
/** The archive, the witness and the record need room too. */
const FLOOR_BYTES = 134_217_728

export const DIGEST: RegExp = /^sha256:([0-9a-f]{64})$/

/** No room on the disk. */
export class DiskShort extends Error {}
export interface Blob {
  readonly digest: string
  readonly size: number
}

export class ArtifactStore {
  readonly #root: string
  /** Uploads of a digest whose name is not written yet. */
  readonly #pinned = new Map<string, number>()
  /** Bytes of all blobs, and of the uploads under way. */
  #bytes = 0
  #known = new Map<string, number>()
  #uploading = 0

  constructor(root: string) {
    this.#root = root
  }

  get bytes(): number {
    return this.#bytes + this.#uploading
  }

  /** Counts what is there; without the folder there is nothing. */
  async load(): Promise<void> {
    const known = new Map<string, number>()
    for (const { digest, size } of await this.#list()) known.set(digest, size)
    this.#known = known
    this.#bytes = [...known.values()].reduce((sum, size) => sum + size, 0)
  }

  has(digest: string): boolean {
    return this.#known.has(digest)
  }

  async roomFor(bytes: number): Promise<boolean> {
    await mkdir(join(this.#root, 'tmp'), { recursive: true })
    const { bavail, bsize } = await statfs(this.#root)
    return bavail * bsize - bytes > FLOOR_BYTES
  }

  /**
   * Takes the bytes in. `check` is told the size so far, before more is written, and throws to end it. The blob stays pinned until
   * `unpin`, so that it is not collected before it has its name.
   */
  async receive(chunks: AsyncIterable<Buffer>, check: (size: number) => void): Promise<Blob> {
    await mkdir(join(this.#root, 'tmp'), { recursive: true })
    const temp = join(this.#root, 'tmp', randomBytes(16).toString('hex'))
    const hash = createHash('sha256')
    let size = 0
    let file: FileHandle | null = null
    try {
      file = await open(temp, 'wx', 0o600)
      for await (const chunk of chunks) {
        check(size + chunk.length)
        await file.appendFile(chunk)
        size += chunk.length
        this.#uploading += chunk.length
        hash.update(chunk)
      }
      await file.sync()
      await file.close()
      file = null
      const digest = `sha256:${hash.digest('hex')}`
      const made = this.#publish(temp, digest, size)
      await syncFolder(join(this.#path(digest), '..'))
      if (made) await syncFolder(join(this.#root, 'sha256'))
      return { digest, size }
    } catch (error) {
      throw isShort(error) ? new DiskShort() : error
    } finally {
      this.#uploading -= size
      await file?.close().catch(() => {})
      await rm(temp, { force: true }).catch(() => {})
    }
  }

  /** true: its folder is new. */
  #publish(temp: string, digest: string, size: number): boolean {
    const path = this.#path(digest)
    const made = mkdirSync(join(path, '..'), { recursive: true }) !== undefined
    renameSync(temp, path)
    this.#pinned.set(digest, (this.#pinned.get(digest) ?? 0) + 1)
    if (!this.#known.has(digest)) this.#bytes += size
    this.#known.set(digest, size)
    return made
  }

  unpin(digest: string): void {
    const left = (this.#pinned.get(digest) ?? 1) - 1
    if (left > 0) this.#pinned.set(digest, left)
    else this.#pinned.delete(digest)
  }

  /** null: no such blob. The caller closes the file. */
  async open(digest: string): Promise<{ readonly file: FileHandle; readonly size: number } | null> {
    if (!DIGEST.test(digest)) return null
    const file = await open(this.#path(digest), 'r').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    if (file === null) return null
    return { file, size: (await file.stat()).size }
  }

  /** Deletes the blobs that are not named and old enough, and what uploads of a gateway that ended left behind. How many. */
  async sweep(isNamed: (digest: string) => boolean, now: number, grace_ms: number = BLOB_GRACE_MS): Promise<number> {
    let count = 0
    for (const { digest } of await this.#list()) if (!isNamed(digest) && this.#collect(digest, isNamed, now - grace_ms)) count += 1
    const tmp = join(this.#root, 'tmp')
    for (const name of await names(tmp)) {
      const path = join(tmp, name)
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: now }))
      if (mtimeMs < now - Math.min(grace_ms, TEMP_GRACE_MS)) {
        await rm(path, { force: true })
        count += 1
      }
    }
    return count
  }

  #collect(digest: string, isNamed: (digest: string) => boolean, before: number): boolean {
    if (this.#pinned.has(digest) || isNamed(digest)) return false
    const path = this.#path(digest)
    try {
      if (statSync(path).mtimeMs >= before) return false
      unlinkSync(path)
    } catch {
      return false
    }
    this.#bytes -= this.#known.get(digest) ?? 0
    this.#known.delete(digest)
    return true
  }

  #path(digest: string): string {
    const hex = digest.slice('sha256:'.length)
    return join(this.#root, 'sha256', hex.slice(0, 2), hex)
  }

  async #list(): Promise<readonly Blob[]> {
    const top = join(this.#root, 'sha256')
    const blobs: Blob[] = []
    for (const folder of await names(top)) {
      for (const hex of await names(join(top, folder))) {
        const digest = `sha256:${hex}`
        const found = DIGEST.test(digest) ? await stat(join(top, folder, hex)).catch(() => null) : null
        if (found?.isFile() === true) blobs.push({ digest, size: found.size })
      }
    }
    return blobs
  }
}

async function names(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const isShort = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT' || error.code === 'EROFS')
