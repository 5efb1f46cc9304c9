/**
 * What is kept of ended runs' artifacts: one small file per run below `runs/`, written once when the run has ended. It outlives the run's
 * record in the broker, and goes when the retention is over.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ArtifactView } from '../../spec/protocol.ts'
import { RUN_ID } from '../ulid.ts'

interface Manifest {
  readonly run: string
  readonly ended_ms: number
  readonly artifacts: readonly ArtifactView[]
}

export class Manifests {
  readonly #folder: string
  readonly #ended = new Map<string, number>()

  constructor(root: string) {
    this.#folder = join(root, 'runs')
  }

  async load(): Promise<void> {
    this.#ended.clear()
    for (const file of await readdir(this.#folder).catch(none)) {
      const run = file.slice(0, -'.json'.length)
      const manifest = file.endsWith('.json') && RUN_ID.test(run) ? await this.#read(run) : null
      if (manifest !== null) this.#ended.set(run, manifest.ended_ms)
      // A write that a kill cut short.
      else if (file.endsWith('.tmp')) await rm(join(this.#folder, file), { force: true })
    }
  }

  async write(run: string, ended_ms: number, artifacts: readonly ArtifactView[]): Promise<void> {
    await mkdir(this.#folder, { recursive: true })
    const temp = join(this.#folder, `${run}.${randomBytes(8).toString('hex')}.tmp`)
    const manifest: Manifest = { run, ended_ms, artifacts }
    const file = await open(temp, 'wx', 0o600)
    try {
      await file.writeFile(JSON.stringify(manifest))
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temp, this.#path(run))
    const folder = await open(this.#folder, 'r')
    await folder.sync().finally(() => folder.close())
    this.#ended.set(run, ended_ms)
  }

  async ofRun(run: string): Promise<readonly ArtifactView[]> {
    return this.#ended.has(run) ? ((await this.#read(run))?.artifacts ?? []) : []
  }

  /** Those that ended before are deleted; the digests of the others. */
  async keep(after_ms: number): Promise<Set<string>> {
    const digests = new Set<string>()
    for (const [run, ended] of [...this.#ended]) {
      if (ended < after_ms) {
        await rm(this.#path(run), { force: true })
        this.#ended.delete(run)
      } else for (const { digest } of (await this.#read(run))?.artifacts ?? []) digests.add(digest)
    }
    return digests
  }

  async #read(run: string): Promise<Manifest | null> {
    try {
      return JSON.parse(await readFile(this.#path(run), 'utf8')) as Manifest
    } catch (error) {
      // Renamed into place whole: one that cannot be parsed is no work of ours.
      if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
  }

  #path(run: string): string {
    return join(this.#folder, `${run}.json`)
  }
}

function none(error: NodeJS.ErrnoException): readonly string[] {
  if (error.code === 'ENOENT') return []
  throw error
}
