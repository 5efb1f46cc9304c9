/** Images: inspect, pull, build, import, tag. */
import type { Readable } from 'node:stream'
import { AgentctlError } from '../../errors.ts'
import type { ContainerRuntime } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { jsonLines } from './events.ts'
import { fields, list, number, text } from '../../fields.ts'

/** The engine answers a pull when the registry has: a machine without one should not wait for long. */
const REGISTRY_TIMEOUT_MS = 20_000
/** A build is silent while the context uploads and while a step runs quietly. */
const BUILD_START_TIMEOUT_MS = 300_000
const TAIL_LINES = 20

type ImageCalls = Pick<ContainerRuntime, 'image' | 'imageHistory' | 'pullImage' | 'buildImage' | 'importImage' | 'tagImage'>

export function imageCalls(connection: Connection): ImageCalls {
  return {
    image: async (reference, signal) => {
      const call = { doing: `inspect image "${reference}"`, method: 'GET', path: `/images/${reference}/json`, signal } as const
      const answer = await connection.jsonOrNull(call)
      if (answer === null) return null
      const image = fields(answer)
      const config = fields(image['Config'])
      return { id: text(image['Id']), user: text(config['User']), size: number(image['Size']), environment: list(config['Env']).map(text) }
    },
    imageHistory: async (reference, signal) => {
      const call = {
        doing: `read the history of image "${reference}"`,
        method: 'GET',
        path: `/images/${reference}/history`,
        signal,
      } as const
      return list(await connection.json(call)).map((layer) => text(fields(layer)['CreatedBy']))
    },
    pullImage: async (reference, signal) => {
      const doing = `pull image "${reference}"`
      try {
        const [fromImage, tag] = splitReference(reference)
        const stream = await connection.stream({
          doing,
          method: 'POST',
          path: '/images/create',
          query: { fromImage, ...(tag === null ? {} : { tag }) },
          signal,
          timeout_ms: REGISTRY_TIMEOUT_MS,
        })
        await finish(stream, (message) => new Error(message))
      } catch (error) {
        if (error instanceof AgentctlError && ['AG7002', 'AG4001', 'AG4002'].includes(error.code)) throw error
        const why = error instanceof Error ? error.message : String(error)
        throw new AgentctlError('AG4003', why.startsWith('Could not') ? why : `Could not ${doing}: ${why}`, {
          hint: 'Build or load the image, or correct its name.',
          cause: error,
        })
      }
    },
    buildImage: async ({ context, tags, buildargs }, signal) => {
      const doing = `build image "${tags[0] ?? ''}"`
      const stream = await connection.stream({
        doing,
        method: 'POST',
        path: '/build',
        // version 1: the classic builder, which every engine has.
        query: { t: tags, buildargs: JSON.stringify(buildargs ?? {}), rm: true, forcerm: true, version: '1' },
        file: context,
        signal,
        timeout_ms: BUILD_START_TIMEOUT_MS,
      })
      return finish(stream, (message, tail) => buildFailed(doing, message, tail))
    },
    importImage: async (tar, reference, signal) => {
      const [repo, tag] = splitReference(reference)
      const doing = `import image "${reference}"`
      const query = { fromSrc: '-', repo, tag: tag ?? 'latest' }
      const stream = await connection.stream({
        doing,
        method: 'POST',
        path: '/images/create',
        query,
        file: tar,
        signal,
        timeout_ms: BUILD_START_TIMEOUT_MS,
      })
      await finish(stream, (message, tail) => buildFailed(doing, message, tail))
    },
    tagImage: async (id, reference, signal) => {
      const [repo, tag] = splitReference(reference)
      const call = {
        doing: `tag image "${reference}"`,
        method: 'POST',
        path: `/images/${id}/tag`,
        query: { repo, tag: tag ?? 'latest' },
        signal,
      } as const
      await connection.json(call)
    },
  }
}

const buildFailed = (doing: string, message: string, tail: readonly string[]): AgentctlError =>
  new AgentctlError('AG4013', [`Could not ${doing}: ${message}`, ...tail.map((line) => `  ${line}`)].join('\n'), {
    hint: 'See the build output above.',
  })

/** Reads the progress to its end. The engine answers 200 and puts the error into the stream. */
async function finish(stream: Readable, failure: (message: string, tail: readonly string[]) => Error): Promise<string> {
  const tail: string[] = []
  let id = ''
  for await (const line of jsonLines(stream)) {
    const entry = fields(line)
    if (typeof entry['error'] === 'string') throw failure(entry['error'], tail.slice(-TAIL_LINES))
    id = text(fields(entry['aux'])['ID']) || id
    tail.push(
      ...text(entry['stream'])
        .split('\n')
        .filter((part) => part.trim() !== ''),
    )
    if (tail.length > 10 * TAIL_LINES) tail.splice(0, tail.length - TAIL_LINES)
  }
  return id
}

/** "registry:5000/name:tag" → name, tag; a digest stays with the name. */
export function splitReference(reference: string): readonly [string, string | null] {
  if (reference.includes('@')) return [reference, null]
  const colon = reference.lastIndexOf(':')
  if (colon <= reference.lastIndexOf('/')) return [reference, 'latest']
  return [reference.slice(0, colon), reference.slice(colon + 1)]
}
