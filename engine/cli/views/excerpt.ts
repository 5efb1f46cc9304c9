/** One line of a file with a caret below it that stays right under tabs, wide characters and in long lines. */

const MAX_WIDTH = 100
/** Shown before the caret in a line that is trimmed. */
const LEAD = 30
const TAB = '  '

const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** Columns on a terminal. East Asian wide and fullwidth forms and emoji take two. */
export function width(text: string): number {
  let total = 0
  for (const { segment } of segmenter.segment(text)) total += graphemeWidth(segment)
  return total
}

function graphemeWidth(grapheme: string): number {
  const point = grapheme.codePointAt(0) ?? 0
  if (/^[\p{M}\p{Cf}]+$/u.test(grapheme)) return 0
  if (/\p{Emoji_Presentation}|\uFE0F/u.test(grapheme)) return 2
  const wide =
    (point >= 0x1100 && point <= 0x115f) ||
    (point >= 0x2e80 && point <= 0xa4cf) ||
    (point >= 0xac00 && point <= 0xd7a3) ||
    (point >= 0xf900 && point <= 0xfaff) ||
    (point >= 0xfe30 && point <= 0xfe6f) ||
    (point >= 0xff00 && point <= 0xff60) ||
    (point >= 0xffe0 && point <= 0xffe6) ||
    (point >= 0x20000 && point <= 0x3fffd)
  return wide ? 2 : 1
}

/** What a terminal would act on becomes visible: a file must not be able to write escape sequences or turn the text around. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text
    .replaceAll('\t', TAB)
    .replaceAll(
      /[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
      (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, '0')}`,
    )
}

/** Columns are 1-based and count characters (code points); `end` is exclusive. */
export function excerpt(
  line: string,
  start: number,
  end: number,
): { readonly text: string; readonly caret: string; readonly trimmed: boolean } {
  const letters = [...line]
  const before = printable(letters.slice(0, start - 1).join(''))
  const marked = printable(letters.slice(start - 1, end - 1).join(''))
  const after = printable(letters.slice(end - 1).join(''))
  const left = trimStart(before)
  const room = MAX_WIDTH - width(left)
  const middle = trimEnd(marked, room)
  const right = middle === marked ? trimEnd(after, room - width(middle)) : ''
  const marks = width(middle)
  const caret = ' '.repeat(width(left)) + (marks <= 1 ? '^' : '~'.repeat(marks))
  return { text: (left + middle + right).trimEnd(), caret, trimmed: left !== before }
}

function trimStart(text: string): string {
  if (width(text) <= MAX_WIDTH - LEAD) return text
  const kept = [...text].slice(-LEAD).join('')
  return `…${kept}`
}

function trimEnd(text: string, room: number): string {
  if (width(text) <= room) return text
  let kept = ''
  let used = 0
  for (const { segment } of segmenter.segment(text)) {
    used += graphemeWidth(segment)
    if (used > room - 1) break
    kept += segment
  }
  return `${kept}…`
}
