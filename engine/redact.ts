/**
 * Takes the values of secrets out of what we write. It knows those that it was told: the command and the controller, which deliver them,
 * know all of a project; the gateway knows its own two and no secret of the file; an agent knows its own and may print it.
 */

/** Shorter values stand in too many words, and hiding them there would tell what they are. */
const LEAST = 6
/** The password "postgres" of a service that is called so: names in what scripts read must stay. */
export const isWord = (value: string | Buffer): boolean => /^[a-z]{1,15}$/.test(value.toString().trim())
/** Of a value with more lines it is enough to know the whole: each line is looked for in all that is written. */
const MOST_LINES = 200

export class Redactor {
  /** form → name, the longest form first. */
  #forms: readonly (readonly [form: string, name: string])[] = []
  readonly #names = new Map<string, string>()

  /** Values that change are added to those before: both may still show. */
  learn(values: { readonly [name: string]: string | Buffer }): void {
    let grown = false
    for (const [name, value] of Object.entries(values)) {
      if (isWord(value)) continue
      for (const form of [...formsOf(value), ...linesOf(value)]) {
        if (this.#names.has(form)) continue
        this.#names.set(form, name)
        grown = true
      }
    }
    if (grown) this.#forms = [...this.#names].sort(([a], [b]) => b.length - a.length)
  }

  /** An arrow, so that it can be handed on. */
  readonly redact = (text: string): string => {
    let shown = text
    for (const [form, name] of this.#forms) if (shown.includes(form)) shown = shown.replaceAll(form, () => `[secret ${name}]`)
    return shown
  }
}

/** All ways of writing a value that one meets: as it is, in JSON, in URLs, in hex, in base64 and base64url, also amid other bytes there. */
export function formsOf(value: string | Buffer): readonly string[] {
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(value, 'utf8')
  const text = bytes.toString('utf8')
  const texts = new Set([text, text.trim()])
  const forms = [
    ...[...texts].filter((part) => Buffer.byteLength(part) >= LEAST).flatMap(written),
    ...[bytes, Buffer.from(text.trim(), 'utf8')].filter((part) => part.length >= LEAST).flatMap(encoded),
  ]
  return [...new Set(forms)].filter((form) => form.length >= LEAST)
}

/** Of a value with several lines: logs are written by lines. */
function linesOf(value: string | Buffer): readonly string[] {
  const lines = value
    .toString()
    .split('\n')
    .map((line) => line.trim())
  return lines.length === 1 || lines.length > MOST_LINES ? [] : lines.filter((line) => line.length >= LEAST).flatMap(written)
}

function written(text: string): readonly string[] {
  // A lone surrogate has no URL form.
  const url = text.isWellFormed() ? encodeURIComponent(text) : text
  const strict = url.replaceAll(/[!'()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`)
  const urls = [url, strict].flatMap((form) => [
    form,
    form.replaceAll('%20', '+'),
    form.replaceAll(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
  ])
  return [text, JSON.stringify(text).slice(1, -1), ...urls]
}

function encoded(bytes: Buffer): readonly string[] {
  const hex = bytes.toString('hex')
  const base64 = [0, 1, 2].map((offset) => amid(bytes, offset))
  const plain = [bytes.toString('base64'), ...base64]
  return [hex, hex.toUpperCase(), ...plain, ...plain.map((form) => form.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, ''))]
}

/** What base64 makes of the value after so many other bytes, whatever they and those behind it are: `user:VALUE` of a header. */
function amid(bytes: Buffer, offset: number): string {
  const text = Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64')
  const first = Math.ceil((offset * 8) / 6)
  const last = Math.floor(((offset + bytes.length) * 8) / 6)
  return text.slice(first, last)
}
