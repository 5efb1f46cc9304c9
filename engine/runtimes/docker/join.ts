/** A short-lived container in the namespaces of another: how a program of ours reads what holds there, whatever its image has. */
import type { ContainerRuntime } from '../../ports.ts'
import type { Connection } from './connection.ts'
import { readerBody } from './create-body.ts'
import { fields, text } from '../../fields.ts'

const TIMEOUT_MS = 20_000
/** A reader that says more is none of ours. */
const MAX_BYTES = 1_048_576

export function joinCall(
  connection: Connection,
  runtime: Pick<ContainerRuntime, 'attach' | 'start' | 'remove'>,
): Pick<ContainerRuntime, 'join'> {
  return {
    join: async (container, reader, signal) => {
      const limit = signal === undefined ? AbortSignal.timeout(TIMEOUT_MS) : AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)])
      const answer = await connection.json({
        doing: `join the namespaces of ${container}`,
        method: 'POST',
        path: '/containers/create',
        body: readerBody(container, reader),
        signal: limit,
      })
      const id = text(fields(answer)['Id'])
      try {
        const frames = await runtime.attach(id, limit)
        await runtime.start(id, limit)
        const chunks: Buffer[] = []
        let size = 0
        for await (const { stream, data } of frames) {
          size += data.length
          if (size > MAX_BYTES) break
          if (stream === 'stdout') chunks.push(data)
        }
        return Buffer.concat(chunks)
      } finally {
        // Not under the signal: an interrupted probe goes, too.
        await runtime.remove(id, AbortSignal.timeout(TIMEOUT_MS)).catch(() => undefined)
      }
    },
  }
}
