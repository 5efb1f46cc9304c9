/** Licences by SPDX id, from the three places where they stand: licence texts, package.json, `SPDX-License-Identifier` lines. */

export type Source = 'texts' | 'manifests' | 'headers'

/** Ids that are reported by name; the list is closed so that a hostile tree cannot make a report grow. */
export const KNOWN: readonly string[] = [
  '0BSD',
  'AFL-2.1',
  'AFL-3.0',
  'AGPL-3.0',
  'AGPL-3.0-only',
  'AGPL-3.0-or-later',
  'Apache-2.0',
  'Artistic-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BSD-4-Clause',
  'BSL-1.0',
  'BUSL-1.1',
  'BlueOak-1.0.0',
  'CC-BY-3.0',
  'CC-BY-4.0',
  'CC-BY-SA-4.0',
  'CC0-1.0',
  'CDDL-1.0',
  'EPL-1.0',
  'EPL-2.0',
  'EUPL-1.2',
  'GPL-2.0',
  'GPL-2.0-only',
  'GPL-2.0-or-later',
  'GPL-3.0',
  'GPL-3.0-only',
  'GPL-3.0-or-later',
  'ISC',
  'LGPL-2.1',
  'LGPL-2.1-only',
  'LGPL-2.1-or-later',
  'LGPL-3.0',
  'LGPL-3.0-only',
  'LGPL-3.0-or-later',
  'MIT',
  'MIT-0',
  'MPL-1.1',
  'MPL-2.0',
  'MS-PL',
  'OFL-1.1',
  'PostgreSQL',
  'Python-2.0',
  'SSPL-1.0',
  'UNLICENSED',
  'UPL-1.0',
  'Unicode-3.0',
  'Unlicense',
  'WTFPL',
  'Zlib',
]
export const UNRECOGNISED = 'unrecognised'
const BY_LOWER: ReadonlyMap<string, string> = new Map([
  ...KNOWN.map((id) => [id.toLowerCase(), id] as const),
  ['apache 2.0', 'Apache-2.0'],
  ['bsd', 'BSD-3-Clause'],
  ['mit/x11', 'MIT'],
  ['public domain', 'Unlicense'],
])

const LICENCE_NAME =
  /^(?:(?:un)?licen[cs]es?|copying|copyright|third[-_.]?party[-_.]?(?:notices?|licen[cs]es?)(?:[-_.]?text)?)(?:[-_.][\w.-]*)?$|^[\w.]+-licen[cs]e(?:\.\w+)?$/i
const CODE_NAME = /\.(?:[cm]?[jt]sx?|py|rb|go|rs|java|c|h|cpp|json|map|ya?ml|html?|css)$/i
export function isLicenceFile(path: string): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return LICENCE_NAME.test(name) && !CODE_NAME.test(name)
}

const has =
  (...phrases: readonly string[]) =>
  (text: string): boolean =>
    phrases.every((phrase) => text.includes(phrase))
const MIT_GRANT = 'permission is hereby granted, free of charge, to any person obtaining a copy'
const ISC_GRANT = 'permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted'
const BSD_GRANT = 'redistribution and use in source and binary forms, with or without modification, are permitted provided'
/** Phrases of the texts themselves, lower case and single-spaced; titles alone would match every mention of another licence. */
const TEXTS: readonly (readonly [string, (text: string) => boolean])[] = [
  ['MIT', has(MIT_GRANT, 'permission notice shall be included')],
  ['MIT-0', (text) => text.includes(MIT_GRANT) && !text.includes('permission notice shall be included')],
  [
    'ISC',
    (text) =>
      /permission to use, copy, modify, and(?:\/or)? distribute this software for any purpose with or without fee is hereby granted, provided that the above copyright notice/.test(
        text,
      ),
  ],
  ['0BSD', (text) => text.includes(ISC_GRANT) && !text.includes(`${ISC_GRANT}, provided`)],
  ['BSD-4-Clause', has(BSD_GRANT, 'all advertising materials mentioning features')],
  [
    'BSD-3-Clause',
    (text) =>
      text.includes(BSD_GRANT) &&
      text.includes('endorse or promote products derived from this software') &&
      !text.includes('all advertising materials'),
  ],
  ['BSD-2-Clause', (text) => text.includes(BSD_GRANT) && !text.includes('endorse or promote products derived')],
  ['Apache-2.0', has('apache license version 2.0, january 2004')],
  ['MPL-2.0', has('mozilla public license version 2.0')],
  ['GPL-2.0', has('gnu general public license version 2, june 1991')],
  ['GPL-3.0', has('gnu general public license version 3, 29 june 2007')],
  ['LGPL-2.1', has('gnu lesser general public license version 2.1, february 1999')],
  ['LGPL-3.0', has('gnu lesser general public license version 3, 29 june 2007')],
  ['AGPL-3.0', has('gnu affero general public license version 3, 19 november 2007')],
  ['Unlicense', has('this is free and unencumbered software released into the public domain')],
  ['CC0-1.0', has('cc0 1.0 universal')],
  ['CC-BY-4.0', (text) => text.includes('attribution 4.0 international') && !text.includes('sharealike 4.0')],
  ['CC-BY-SA-4.0', has('attribution-sharealike 4.0 international')],
  ['BSL-1.0', has('boost software license - version 1.0')],
  ['BUSL-1.1', has('business source license 1.1')],
  ['Zlib', has("provided 'as-is', without any express or implied warranty", 'altered source versions must be plainly marked')],
  ['BlueOak-1.0.0', has('blue oak model license', 'version 1.0.0')],
  ['EPL-2.0', has('eclipse public license - v 2.0')],
  ['Artistic-2.0', has('the artistic license 2.0')],
  ['Python-2.0', has('python software foundation license version 2')],
  ['OFL-1.1', has('sil open font license version 1.1')],
  ['Unicode-3.0', has('unicode license v3')],
  ['WTFPL', has('do what the fuck you want to public license')],
]

/** Ids whose text stands in a licence file; several for one that joins the texts of others. */
export function licencesInText(text: string): readonly string[] {
  // Comment signs, list dashes and line breaks between words do not matter; form feeds and quotes vary between copies.
  const flat = text
    .toLowerCase()
    .replace(/[“”]/g, '"')
    .replace(/[‘’]/g, "'")
    .replace(/^[ \t]*(?:\/\/|#|\*+|--)?[ \t]*/gm, '')
    .replace(/[\s=]+/g, ' ')
  const ids = TEXTS.filter(([, matches]) => matches(flat)).map(([id]) => id)
  return ids.length === 0 ? [UNRECOGNISED] : ids
}

/** The ids of an SPDX expression such as `(MIT OR Apache-2.0)`; an exception after WITH is no licence. */
export function idsOf(expression: string): readonly string[] {
  const whole = BY_LOWER.get(expression.trim().toLowerCase())
  if (whole !== undefined) return [whole]
  if (/^see licen[cs]e in /i.test(expression.trim())) return [UNRECOGNISED]
  const words = expression
    .replace(/\bWITH\s+\S+/gi, ' ')
    .split(/[\s()]+|\bAND\b|\bOR\b|\//i)
    .filter((word) => word !== '')
  const ids = words.map((word) => BY_LOWER.get(word.toLowerCase()) ?? UNRECOGNISED)
  return [...new Set(ids.length === 0 ? [UNRECOGNISED] : ids)].sort()
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const typeOf = (value: unknown): string | null =>
  typeof value === 'string' ? value : isRecord(value) && typeof value['type'] === 'string' ? value['type'] : null

/** `license` of a package.json, also in the two forms of old packages; [] when it names none. */
export function licencesInManifest(text: string): readonly string[] {
  let manifest: unknown
  try {
    manifest = JSON.parse(text)
  } catch {
    return []
  }
  if (!isRecord(manifest)) return []
  const old = manifest['licenses']
  const stated = [typeOf(manifest['license']), ...(Array.isArray(old) ? old.map(typeOf) : [typeOf(old)])].filter(
    (value) => value !== null && value !== '',
  )
  return [...new Set(stated.flatMap((value) => idsOf(value ?? '')))].sort()
}

/** How far into a file its licence line may stand. */
export const HEADER_BYTES = 4096
const HEADER =
  /^[ \t]*(?:\/\/|\/\*+!?|\*|#|<!--|--|;+|%|\.\.|"|'|rem\b)?[ \t]*(?:@license\s+)?SPDX-License-Identifier:[ \t]*([A-Za-z0-9(][A-Za-z0-9.+() -]*)/gm

/** Ids of the `SPDX-License-Identifier` lines in the head of a file; a line in the middle of a sentence or a string is none. */
export function licencesInHeader(head: string): readonly string[] {
  if (!head.includes('SPDX-License-Identifier')) return []
  const ids = [...head.slice(0, HEADER_BYTES).matchAll(HEADER)].flatMap((match) => idsOf((match[1] ?? '').replace(/\s+-+\s*$/, '')))
  return [...new Set(ids)].sort()
}
