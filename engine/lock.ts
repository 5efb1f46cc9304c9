/**
 * The project lock: `flock` in the holder, kept for as long as this process keeps an exec stream open. When the process dies the
 * stream closes and the lock is free: no expiry, nothing stale. Who holds it may write the record.
 */
import { AgentctlError } from './errors.ts'
import { readEntries } from './archive.ts'
import { PATHS, trustedName } from './names.ts'
import type { ContainerRuntime, ExecStream } from './ports.ts'
import { type ProjectRecord, RECORD_VERSION } from './record.ts'

/** `read` takes a byte at a time and `head -c` exactly its count, so the record's bytes are nobody else's. Written aside, synced, renamed. */
const SCRIPT = `exec 9>${PATHS.lock}
flock -w "$1" 9 || exit 75
echo locked
while read -r word size; do
  head -c "$size" >${PATHS.record}.new && sync ${PATHS.record}.new && mv ${PATHS.record}.new ${PATHS.record} && echo written
done`

export interface ProjectLock {
  writeRecord(record: ProjectRecord): Promise<void>
  release(): void
}

export async function takeLock(
  runtime: ContainerRuntime,
  project: string,
  options: { readonly timeout_ms: number; readonly signal: AbortSignal },
): Promise<ProjectLock> {
  const seconds = Math.max(0, Math.ceil(options.timeout_ms / 1000))
  const stream = await runtime.execStream(
    trustedName(project, 'secrets'),
    ['sh', '-c', SCRIPT, 'lock', String(seconds)],
    {},
    options.signal,
  )
  const lines = lineReader(stream)
  const first = await lines()
  if (first !== 'locked') {
    stream.close()
    if (options.signal.aborted)
      throw new AgentctlError('AG7002', 'interrupted while waiting for the project lock', { hint: 'Nothing was changed.', exit: 130 })
    throw new AgentctlError('AG4011', `another command or the controller has held the lock of project "${project}" for ${seconds} s`, {
      hint: 'Wait for it to end and try again.',
    })
  }
  return {
    async writeRecord(record) {
      const bytes = Buffer.from(`${JSON.stringify(record, null, 1)}\n`)
      stream.stdin.write(`record ${bytes.length}\n`)
      stream.stdin.write(bytes)
      if ((await lines()) !== 'written')
        throw new AgentctlError('AG4005', `the record of project "${project}" could not be written`, {
          hint: "Is the engine's disk full? See `agentctl doctor`.",
        })
    },
    release: () => stream.close(),
  }
}

/** Resolves to the next line, or null when the stream ended. */
function lineReader(stream: ExecStream): () => Promise<string | null> {
  const lines: string[] = []
  const waiting: ((line: string | null) => void)[] = []
  let rest = ''
  let ended = false
  stream.stdout.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString('utf8')).split('\n')
    rest = parts.pop() ?? ''
    for (const part of parts) {
      const waiter = waiting.shift()
      if (waiter === undefined) lines.push(part)
      else waiter(part)
    }
  })
  const end = (): void => {
    ended = true
    for (const waiter of waiting.splice(0)) waiter(null)
  }
  stream.stdout.on('end', end)
  stream.stdout.on('close', end)
  stream.stdout.on('error', end)
  stream.exit.then(end, end)
  return () => {
    const line = lines.shift()
    if (line !== undefined) return Promise.resolve(line)
    return ended ? Promise.resolve(null) : new Promise((resolve) => waiting.push(resolve))
  }
}

/** null: no record (never up, or half made). A newer one is refused by name. */
export async function readRecord(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<ProjectRecord | null> {
  let files: ReadonlyMap<string, Buffer>
  try {
    files = await readEntries(await runtime.getArchive(trustedName(project, 'secrets'), PATHS.record, signal))
  } catch (error) {
    if (error instanceof AgentctlError && error.code === 'AG4012') return null
    throw error
  }
  const text = files.values().next().value
  return text === undefined ? null : parseRecord(project, text.toString('utf8'))
}

export function parseRecord(project: string, text: string): ProjectRecord {
  const record = JSON.parse(text) as ProjectRecord
  if (record.version > RECORD_VERSION) {
    throw new AgentctlError(
      'AG4010',
      `project "${project}" was made by agentctl ${record.written_by} (record version ${record.version}); this is record version ${RECORD_VERSION}`,
      {
        hint: `Use agentctl ${record.written_by} or newer.`,
        exit: 2,
      },
    )
  }
  return record
}
