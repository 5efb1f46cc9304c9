/** The events of a run: as JSON Lines, or as server-sent events for who asks for them. Both go on after the event that the reader names. */
import { type Call, type Kit, noRun } from './call.ts'

/** A reader that is gone is found by what is written to it. */
const KEEP_ALIVE_MS = 15_000
/** After which an EventSource comes back. */
const RETRY_MS = 1_000
/** Unread by a slow reader: beyond it the connection ends, and the reader comes back for the rest. */
const MAX_UNREAD_BYTES = 8_388_608

interface Form {
  readonly type: string
  readonly head: string
  readonly alive: string
  readonly event: (line: string) => string
  readonly end: (run: string, status: string) => string
}
const LINES: Form = { type: 'application/jsonl', head: '', alive: '\n', event: (line) => `${line}\n`, end: () => '' }
const SSE: Form = {
  type: 'text/event-stream',
  head: `retry: ${RETRY_MS}\n\n`,
  alive: ': keep-alive\n\n',
  // JSON text has no line break, so one `data:` holds it.
  event: (line) => `id: ${idOf(line)}\ndata: ${line}\n\n`,
  end: (run, status) => `event: end\ndata: ${JSON.stringify({ run, status })}\n\n`,
}

/** Events begin with their id; one from before the ids has none, and an empty `id:` forgets the last one. */
const idOf = (line: string): string => /^\{"id":"([^"\\]*)"/.exec(line)?.[1] ?? ''

/** `follow=0`: what is kept, and the end. Else also what comes, until the run has ended. */
export async function streamEvents(kit: Kit, call: Call): Promise<void> {
  const { request, response, url, signal, at } = call
  const id = at['run'] as string
  await kit.whenReady()
  const { events, runs } = kit
  if ((await kit.views.status(id)) === null) throw noRun(id)
  const form = (request.headers.accept ?? '').includes(SSE.type) ? SSE : LINES
  const after = header(request.headers['last-event-id']) ?? url.searchParams.get('after')
  const follows = url.searchParams.get('follow') !== '0'
  const write = (text: string): void => {
    if (text === '' || response.destroyed) return
    response.write(text)
    if (response.writableLength > MAX_UNREAD_BYTES) response.destroy()
  }
  let opened = false
  const open = (): void => {
    opened = true
    response.writeHead(200, { 'content-type': form.type, 'cache-control': 'no-store' })
    response.flushHeaders()
    write(form.head)
  }
  const stop = await events.watch(
    id,
    (lines) => {
      // An EventSource that comes back after the end of all: 204 tells it not to come again.
      const isOver = form === SSE && after !== null && lines.length === 0 && !runs.isOpen(id)
      if (!opened && isOver) return
      if (!opened) open()
      write(unique(lines).map(form.event).join(''))
    },
    after,
  )
  if (!opened) {
    stop()
    response.writeHead(204).end()
    return
  }
  try {
    while (follows && runs.isOpen(id) && !signal.aborted) {
      await runs.whenEnded(id, KEEP_ALIVE_MS, signal)
      if (runs.isOpen(id) && !signal.aborted) write(form.alive)
    }
    await events.flush()
  } finally {
    stop()
  }
  if (follows && !signal.aborted && !runs.isOpen(id)) write(form.end(id, (await kit.views.status(id)) ?? 'completed'))
  response.end()
}

const header = (value: string | string[] | undefined): string | null => (typeof value === 'string' && value !== '' ? value : null)

/** An append that was sent again after a broken connection stands there twice. */
function unique(lines: readonly string[]): readonly string[] {
  const seen = new Set<string>()
  return lines.filter((line) => {
    const id = idOf(line)
    if (id === '') return true
    const isNew = !seen.has(id)
    seen.add(id)
    return isNew
  })
}
