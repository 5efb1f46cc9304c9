/** What containers write, line by line; followed across their restarts. */
import { AgentctlError } from '../errors.ts'
import { LABEL } from '../names.ts'
import type { ContainerRuntime, ObservedContainer } from '../ports.ts'

export interface LogLine {
  readonly container: string
  readonly agent: string | null
  readonly service: string | null
  readonly replica: number
  readonly stream: 'stdout' | 'stderr'
  /** RFC 3339, from the engine. */
  readonly time: string | null
  readonly line: string
}

export interface LogOptions {
  readonly follow: boolean
  readonly tail: number | null
  readonly since: string | null
  /** Which containers, also of those that come later. */
  readonly wants: (container: Pick<ObservedContainer, 'name' | 'labels'>) => boolean
}

/** A line longer than this is passed on in pieces: agents write it, and we hold it. */
const MAX_LINE = 65_536

type Sink = (line: LogLine) => Promise<void>
type Source = Pick<ObservedContainer, 'name' | 'labels'>

export async function streamLogs(
  runtime: ContainerRuntime,
  project: string,
  options: LogOptions,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const begin = Date.now()
  const containers = (await runtime.containers(project, signal)).filter(options.wants)
  if (!options.follow) {
    // One after the other: whole containers, as Compose prints them without --follow.
    for (const container of containers) await streamOne(runtime, container, options, sink, signal)
    return
  }
  await followAll(runtime, project, containers, begin, options, sink, signal)
}

async function followAll(
  runtime: ContainerRuntime,
  project: string,
  first: readonly ObservedContainer[],
  begin: number,
  options: LogOptions,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const over = new AbortController()
  const both = AbortSignal.any([signal, over.signal])
  const attached = new Map<string, Promise<void>>()
  const failed = Promise.withResolvers<never>()
  failed.promise.catch(() => undefined)

  const attach = (container: Source, since: string | null): void => {
    if (attached.has(container.name)) return
    const stream = streamOne(
      runtime,
      container,
      { ...options, tail: since === null ? options.tail : null, since: since ?? options.since },
      sink,
      both,
    )
      .catch((error) => (isGone(error) || both.aborted ? undefined : failed.reject(error)))
      .finally(() => {
        attached.delete(container.name)
        void endWhenAlone()
      })
    attached.set(container.name, stream)
  }
  // Nothing runs and nobody would bring it back: there is nothing to follow.
  const endWhenAlone = async (): Promise<void> => {
    if (attached.size > 0 || both.aborted) return
    const left = await runtime.containers(project, both).catch(() => [])
    const isAlive = left.some((it) => it.status === 'running' && (options.wants(it) || it.labels[LABEL.kind] === 'controller'))
    if (!isAlive && attached.size === 0) over.abort()
  }
  const watch = async (): Promise<void> => {
    for await (const event of runtime.events(project, begin / 1_000, both)) {
      if (event.action === 'start' && options.wants(event)) attach(event, String(event.time_ms / 1_000))
      if (event.action === 'destroy') void endWhenAlone()
    }
  }
  for (const container of first) attach(container, null)
  if (first.length === 0) void endWhenAlone()
  try {
    await Promise.race([watch(), failed.promise])
  } catch (error) {
    if (!over.signal.aborted) throw error
  } finally {
    over.abort()
    await Promise.allSettled(attached.values())
  }
}

/** Its container was removed meanwhile. */
const isGone = (error: unknown): boolean => error instanceof AgentctlError && (error.code === 'AG4012' || error.code === 'AG4005')

async function streamOne(
  runtime: ContainerRuntime,
  container: Source,
  { follow, tail, since }: LogOptions,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const rest = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) }
  const base = {
    container: container.name,
    agent: container.labels[LABEL.agent] ?? null,
    service: container.labels[LABEL.service] ?? null,
    replica: Number(container.labels[LABEL.replica] ?? 1),
  }
  const tell = (stream: 'stdout' | 'stderr', bytes: Buffer): Promise<void> =>
    sink({ ...base, stream, ...splitTime(bytes.toString('utf8')) })
  for await (const { stream, data } of runtime.logs(
    container.name,
    { follow, tail, timestamps: true, ...(since === null ? {} : { since }) },
    signal,
  )) {
    let buffer = rest[stream].length === 0 ? data : Buffer.concat([rest[stream], data])
    for (let end = buffer.indexOf(10); end >= 0; end = buffer.indexOf(10)) {
      await tell(stream, buffer.subarray(0, end))
      buffer = buffer.subarray(end + 1)
    }
    if (buffer.length > MAX_LINE) {
      await tell(stream, buffer)
      buffer = Buffer.alloc(0)
    }
    rest[stream] = Buffer.from(buffer)
  }
  for (const stream of ['stdout', 'stderr'] as const) if (rest[stream].length > 0) await tell(stream, rest[stream])
}

function splitTime(text: string): { time: string | null; line: string } {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z?(?:[+-]\d\d:\d\d)?) ?/.exec(text)
  return match === null
    ? { time: null, line: text.replace(/\r$/, '') }
    : { time: match[1] ?? null, line: text.slice(match[0].length).replace(/\r$/, '') }
}
