/**
 * File names are bytes, not text. Inside the audit a path is a *raw path*: a string with one character per byte (latin1),
 * so that comparing strings compares bytes and every name can be opened again. Text comes only at the edge.
 */
export type RawPath = string

export const rawBytes = (path: RawPath): Buffer => Buffer.from(path, 'latin1')

/** DFS order of a sorted walk: names compare by bytes, and a folder's content stands where the folder stands. */
export const walkKey = (path: RawPath): string => path.replaceAll('/', '\0')

const hex = (byte: number): string => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`
const isPlain = (path: string): boolean => /^[\x20-\x24\x26-\x7e]*$/.test(path)

/** Length of the UTF-8 sequence at `at`, or 0 when the bytes are none. */
function sequence(bytes: Buffer, at: number): number {
  const first = bytes[at] ?? 0
  const length = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 && first < 0xe0 ? 2 : 0
  if (length === 0 || first >= 0xf5 || at + length > bytes.length) return 0
  const text = bytes.toString('utf8', at, at + length)
  return text.includes('\ufffd') ? 0 : length
}

function escaped(path: RawPath, percent: boolean): string {
  if (isPlain(path)) return path
  const bytes = rawBytes(path)
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at] ?? 0
    const length = byte < 0x80 ? 1 : sequence(bytes, at)
    const control = byte < 0x20 || byte === 0x7f || (percent && byte === 0x25)
    text += length === 0 || control ? hex(byte) : bytes.toString('utf8', at, at + length)
    at += length || 1
  }
  return text
}

/** A form for JSON that `fromWire` turns back into the same bytes. */
export const toWire = (path: RawPath): string => escaped(path, true)
export function fromWire(text: string): RawPath {
  const parts = text.split(/(%[0-9A-F]{2})/)
  return parts
    .map((part) =>
      /^%[0-9A-F]{2}$/.test(part) ? String.fromCharCode(Number.parseInt(part.slice(1), 16)) : Buffer.from(part, 'utf8').toString('latin1'),
    )
    .join('')
}

/** Most bytes of a path in a report, as JSON: a summary has to fit into a result however long the paths of a tree are. */
export const SHOWN_BYTES = 144
const jsonBytes = (text: string): number => Buffer.byteLength(JSON.stringify(text)) - 2

/** The path as people read it; control characters and bytes that are no UTF-8 as %XX, the middle of a very long one cut out. */
export function shown(path: RawPath): string {
  const text = escaped(path, false)
  if (text.length <= SHOWN_BYTES && jsonBytes(text) <= SHOWN_BYTES) return text
  const characters = [...text]
  let head = characters.slice(0, 40)
  let tail = characters.slice(-100)
  while (jsonBytes(head.join('')) > 50) head = head.slice(0, -1)
  while (jsonBytes(tail.join('')) > 90) tail = tail.slice(1)
  return `${head.join('')}…${tail.join('')}`
}

/** `input` as a folder below the tree: relative, without "..". */
export function folderOf(input: unknown): RawPath {
  if (typeof input !== 'string') throw new Error(`"path" must be a string such as "." or "packages/core", got ${JSON.stringify(input)}`)
  const names = Buffer.from(input, 'utf8')
    .toString('latin1')
    .split('/')
    .filter((name) => name !== '' && name !== '.')
  if (input.startsWith('/') || names.includes('..'))
    throw new Error(`"path" must stay inside the source tree, got "${input}": give a folder relative to it`)
  return names.join('/')
}
