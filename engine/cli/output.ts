/** What a verb prints: one document, or a stream of lines; the human text is a rendering of the same view. */
import type { Globals } from './globals.ts'
import { hasColor, type Io, type Paint, painter, write } from './io.ts'

export interface Output {
  readonly json: boolean
  /** For stdout. */
  readonly paint: Paint
  /** One view as a JSON document or as text ("" prints nothing). */
  print<View>(view: View, render: (view: View, paint: Paint) => string): Promise<void>
  /** One element of a stream: a JSON line or a line of text. */
  line<View>(view: View, render: (view: View, paint: Paint) => string): Promise<void>
  /** For errors, which have a stream of their own for text. */
  problem<View>(view: View, render: (view: View, paint: Paint) => string): Promise<void>
}

/** `redact`: what goes out has no secret in it that this command knows. */
export function makeOutput(io: Io, { format }: Pick<Globals, 'format'>, redact: (text: string) => string): Output {
  const json = format === 'json'
  const paint = painter(!json && hasColor(io, io.stdout))
  const paintError = painter(hasColor(io, io.stderr))
  const ended = (text: string): string => (text === '' || text.endsWith('\n') ? text : `${text}\n`)
  // Compact where lines of a stream may follow or precede.
  let streamed = false
  return {
    json,
    paint,
    print: (view, render) => write(io.stdout, redact(json ? `${JSON.stringify(view, null, 2)}\n` : ended(render(view, paint)))),
    line: (view, render) => {
      streamed = true
      return write(io.stdout, redact(json ? `${JSON.stringify(view)}\n` : ended(render(view, paint))))
    },
    problem: (view, render) =>
      json
        ? write(io.stdout, redact(`${JSON.stringify(view, null, streamed ? undefined : 2)}\n`))
        : write(io.stderr, redact(ended(render(view, paintError)))),
  }
}
