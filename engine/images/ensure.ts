/** The two images of ours on the engine, built when they are missing. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { AgentctlError } from '../errors.ts'
import type { ContainerRuntime } from '../ports.ts'
import { bundlePrograms } from './bundle.ts'
import { type Content, type Part, readContent } from './content.ts'
import { buildContext, type ContextFile } from './context.ts'
import { ensureDebian } from './debian.ts'
import { findPackageRoot } from './package-root.ts'

export interface ImagesOptions {
  readonly emit: (message: string) => void
  readonly signal: AbortSignal
  /** References that are needed. Default: all. */
  readonly wanted?: readonly string[]
  /** Default: the package that this file is in. */
  readonly packageRoot?: string
}

export interface ImageReferences {
  readonly engine: string
  readonly agent: string
}

export const imageReference = (part: Part): string => `agentctl/${part.name}:${part.hash}`

/** References by content hash. One inspect each when they exist; else builds what is missing, also tagged with the version. */
export async function ensureImages(runtime: ContainerRuntime, options: ImagesOptions): Promise<ImageReferences> {
  const content = readContent(options.packageRoot ?? findPackageRoot())
  const [engine, agent] = content.parts
  const wanted = content.parts.filter((part) => options.wanted?.includes(imageReference(part)) ?? true)
  const found = await Promise.all(wanted.map((part) => runtime.image(imageReference(part), options.signal)))
  const missing = wanted.filter((_, index) => found[index] === null)
  if (missing.length > 0) await buildParts(runtime, content, missing, options)
  return { engine: imageReference(engine), agent: imageReference(agent) }
}

async function buildParts(runtime: ContainerRuntime, content: Content, parts: readonly Part[], options: ImagesOptions): Promise<void> {
  const { emit, signal } = options
  const build = async (
    tags: readonly string[],
    dockerfile: string,
    from: { readonly [name: string]: string },
    files: readonly ContextFile[],
  ): Promise<void> => {
    emit(`Building ${tags[0]}`)
    const context = buildContext(join(content.dockerfiles, `${dockerfile}.Dockerfile`), files)
    await runtime.buildImage({ context, tags, buildargs: { ...proxyArguments(), ...from } }, signal)
  }
  const ensure = async (reference: string, make: () => Promise<void>): Promise<string> => {
    if ((await runtime.image(reference, signal)) === null) await make()
    return reference
  }

  const work = await mkdtemp(join(tmpdir(), 'agentctl-images-'))
  try {
    const bundles = content.bundles ?? work
    // First what can fail within a second.
    if (content.bundles === null) {
      await bundle(parts, work, content.root)
      requireUnchanged(content)
    }
    // The tools stand on the base; with both of them there, the base itself may be gone.
    const tools = (part: Part): string => `agentctl/base:${part.name}-${content.toolsHash[part.name]}`
    let base: Promise<string> | null = null
    const ensureBase = (): Promise<string> => {
      base ??= ensure(`agentctl/base:${content.baseHash}`, async () => {
        const node = { name: 'node', source: nodeBinary(content), mode: 0o755 }
        const debian = await ensureDebian(runtime, { emit, signal })
        await build([`agentctl/base:${content.baseHash}`], 'base', { DEBIAN: debian }, [node])
      })
      return base
    }
    await Promise.all(
      parts.map(async (part) => {
        const from = await ensure(tools(part), async () => build([tools(part)], `${part.name}-tools`, { BASE: await ensureBase() }, []))
        const files = part.programs.map(({ file }) => ({ name: file, source: join(bundles, file), mode: 0o644 }))
        await build([imageReference(part), `agentctl/${part.name}:${content.version}`], part.name, { BASE: from }, files)
      }),
    )
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function bundle(parts: readonly Part[], folder: string, root: string): Promise<void> {
  try {
    await bundlePrograms(
      parts.flatMap((part) => part.programs),
      folder,
      root,
    )
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new AgentctlError('AG4013', `The programs of the images could not be bundled: ${why}`, {
      hint: 'Mend the source that it names; if a package is missing, run `npm ci` in the checkout.',
      cause: error,
    })
  }
}

/** An image must not get the tag of what its sources were a moment before. */
function requireUnchanged(content: Content): void {
  const now = readContent(content.root)
  if (now.parts.every((part, index) => part.hash === content.parts[index]?.hash)) return
  throw new AgentctlError('AG4013', 'The sources changed while they were bundled', { hint: 'Run the command again.' })
}

/** Node comes with the package, so that the images hold the very version that was tested. */
function nodeBinary({ nodeVersion, root }: Content): string {
  const name = `node-linux-${arch()}`
  const starts = [import.meta.url, join(root, 'package.json')]
  for (const start of starts) {
    try {
      const binary = join(dirname(createRequire(start).resolve(`${name}/package.json`)), 'bin', 'node')
      if (existsSync(binary)) return binary
    } catch {
      // Not installed seen from there.
    }
  }
  throw new AgentctlError('AG4013', `The package "${name}" is not installed, so there is no Node for the images`, {
    hint: `In ${root} run: npm install --no-save --force --os=linux --cpu=${arch()} ${name}@${nodeVersion}`,
  })
}

/** The engine knows these build arguments without an ARG and keeps them out of the image. */
function proxyArguments(): { readonly [name: string]: string } {
  const names = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy']
  return Object.fromEntries(names.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])))
}
