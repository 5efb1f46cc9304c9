/** What the images are made of, and its hash: the same content has the same tag. */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { arch } from 'node:os'
import { join, relative } from 'node:path'
import { AGENT_PROGRAMS, DOCKERFILE_FOLDER, ENGINE_PROGRAMS, type Program } from './bundle.ts'
import { readPackage } from './package-root.ts'

export interface Part {
  readonly name: 'engine' | 'agent'
  readonly programs: readonly Program[]
  readonly hash: string
}

export interface Content {
  readonly root: string
  readonly version: string
  readonly nodeVersion: string
  /** Prebuilt bundles (an installed package); null: bundle the sources. */
  readonly bundles: string | null
  readonly dockerfiles: string
  readonly baseHash: string
  readonly toolsHash: { readonly engine: string; readonly agent: string }
  readonly parts: readonly [Part, Part]
}

/** A checkout has sources and Dockerfiles, which win over a dist/ that may be stale; a package has dist/image alone. */
export function readContent(root: string): Content {
  const prebuilt = join(root, 'dist', 'image')
  const bundles = existsSync(join(root, DOCKERFILE_FOLDER, 'base.Dockerfile')) ? null : prebuilt
  const dockerfiles = bundles ?? join(root, DOCKERFILE_FOLDER)
  const { version, node } = readPackage(root)
  const dockerfile = (name: string): string => readFileSync(join(dockerfiles, `${name}.Dockerfile`), 'utf8')
  const baseHash = hash([dockerfile('base'), node, arch()])
  const toolsHash = { engine: hash([baseHash, dockerfile('engine-tools')]), agent: hash([baseHash, dockerfile('agent-tools')]) }
  const part = (name: Part['name'], programs: readonly Program[], folders: readonly string[]): Part => {
    const files =
      bundles === null
        ? [...folders.flatMap((folder) => sources(join(root, folder))), join(root, 'package-lock.json')]
        : programs.map(({ file }) => join(bundles, file))
    const texts = files.flatMap((file) => [relative(root, file), existsSync(file) ? readFileSync(file, 'utf8') : ''])
    return { name, programs, hash: hash([toolsHash[name], dockerfile(name), ...texts]) }
  }
  return {
    root,
    version,
    nodeVersion: node,
    bundles,
    dockerfiles,
    baseHash,
    toolsHash,
    parts: [part('engine', ENGINE_PROGRAMS, ['spec', 'engine']), part('agent', AGENT_PROGRAMS, ['spec', 'agents', DOCKERFILE_FOLDER])],
  }
}

/** The command line is in no image. */
const NOT_IN_IMAGES = new Set(['cli', 'node_modules'])

function sources(folder: string): readonly string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) return NOT_IN_IMAGES.has(entry.name) ? [] : sources(path)
      return /\.(ts|js|json)$/.test(entry.name) ? [path] : []
    })
}

function hash(texts: readonly string[]): string {
  const sum = createHash('sha256')
  for (const text of texts) sum.update(`${text.length}:`).update(text)
  return sum.digest('hex').slice(0, 12)
}
