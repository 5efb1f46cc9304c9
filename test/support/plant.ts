/**
 * A source tree in which everything that an audit should find is known beforehand: the same bytes every time. Keys are put together
 * at run time, so that nothing that looks like one stands in this repository.
 */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export interface PlantedSecret {
  readonly path: string
  readonly line: number
  readonly kind: string
}
export interface Planted {
  readonly licences: Readonly<Record<string, { readonly texts: number; readonly manifests: number; readonly headers: number }>>
  readonly secrets: readonly PlantedSecret[]
  /** The secrets themselves: none may stand in a report. */
  readonly values: readonly string[]
  /** Files that hold what only looks like a secret. */
  readonly nearMisses: readonly string[]
  readonly symlinks: number
}

/** mulberry32: small, seeded, good enough to look random to an entropy measure. */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const UPPER = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
const DIGITS = '0123456789'
const BASE62 = `${UPPER}${UPPER.toLowerCase()}${DIGITS}`
const string = (next: () => number, alphabet: string, length: number): string =>
  Array.from({ length }, () => alphabet[Math.floor(next() * alphabet.length)]).join('')

const MIT = `MIT License\n\nCopyright (c) someone\n\nPermission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal in the Software without restriction.\n
The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.\n`
const BSD3 = `Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:\n
3. Neither the name of the copyright holder nor the names of its contributors may be used to
   endorse or promote products derived from this software without specific prior written permission.\n`
const APACHE =
  '                                 Apache License\n                           Version 2.0, January 2004\n                        http://www.apache.org/licenses/\n'
const GPL3 =
  '                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n\n The GNU Affero General Public License and the GNU Lesser General Public License are others.\n'
const ISC =
  'ISC License\n\nPermission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby\ngranted, provided that the above copyright notice and this permission notice appear in all copies.\n'
const MPL =
  'Mozilla Public License Version 2.0\n==================================\n\n1.12. "Secondary License" means either the GNU General Public License, Version 2.0, or later.\n'

const LICENCE_FILES: Readonly<Record<string, string>> = {
  LICENSE: MIT,
  'packages/bsd/LICENSE.md': BSD3,
  'packages/apache/LICENSE-APACHE': APACHE,
  'packages/gpl/COPYING': GPL3,
  'packages/isc/license': ISC,
  'packages/mpl/LICENSE.txt': MPL,
  'packages/apache/package.json': '{"name":"apache","license":"Apache-2.0"}\n',
  'packages/isc/package.json': '{\n  "name": "isc",\n  "license": { "type": "ISC" }\n}\n',
  'packages/old/package.json': '{"licenses":[{"type":"MIT"},{"type":"BSD-2-Clause"}]}\n',
  'packages/dual/package.json': '{"license":"(MIT OR CC0-1.0)"}\n',
  'packages/none/package.json': '{"name":"none","private":true}\n',
  'src/lgpl.c': '/* SPDX-License-Identifier: LGPL-2.1-or-later */\nint one(void) { return 1; }\n',
  'src/zlib.rs': '// SPDX-License-Identifier: Zlib\nfn main() {}\n',
  'src/eupl.py': '#!/usr/bin/env python3\n# SPDX-License-Identifier: EUPL-1.2\nprint("hello")\n',
  'src/mention.ts':
    "// Only talks about it: a line such as SPDX-License-Identifier: AGPL-3.0 in the middle.\nexport const key = 'SPDX-License-Identifier: WTFPL'\n",
}
const LICENCES: Planted['licences'] = {
  'Apache-2.0': { texts: 1, manifests: 1, headers: 0 },
  'BSD-2-Clause': { texts: 0, manifests: 1, headers: 0 },
  'BSD-3-Clause': { texts: 1, manifests: 0, headers: 0 },
  'CC0-1.0': { texts: 0, manifests: 1, headers: 0 },
  'EUPL-1.2': { texts: 0, manifests: 0, headers: 1 },
  'GPL-3.0': { texts: 1, manifests: 0, headers: 0 },
  ISC: { texts: 1, manifests: 1, headers: 0 },
  'LGPL-2.1-or-later': { texts: 0, manifests: 0, headers: 1 },
  MIT: { texts: 1, manifests: 2, headers: 0 },
  'MPL-2.0': { texts: 1, manifests: 0, headers: 0 },
  Zlib: { texts: 0, manifests: 0, headers: 1 },
}

interface Key {
  readonly path: string
  readonly line: number
  readonly kind: string
  readonly value: string
  readonly text: string
}

/** Five keys of five kinds. */
function keys(next: () => number): readonly Key[] {
  const aws = ['AK', 'IA', string(next, `${UPPER}234567`, 16)].join('')
  const github = ['gh', 'p_', string(next, BASE62, 36)].join('')
  const slack = ['xo', 'xb-', string(next, DIGITS, 12), '-', string(next, DIGITS, 12), '-', string(next, BASE62, 24)].join('')
  const body = string(next, `${BASE62}+/`, 64)
  const begin = ['-----BEGIN', 'RSA PRIVATE', 'KEY-----'].join(' ')
  const named = string(next, BASE62, 40)
  return [
    {
      path: 'config/deploy.sh',
      line: 3,
      kind: 'aws-access-key-id',
      value: aws,
      text: `#!/bin/sh\nset -eu\nexport AWS_ACCESS_KEY_ID=${aws}\n`,
    },
    {
      path: 'src/release.ts',
      line: 2,
      kind: 'github-token',
      value: github,
      text: `export const owner = 'someone'\nconst token = '${github}'\nexport default token\n`,
    },
    {
      path: 'docs/notes.md',
      line: 5,
      kind: 'slack-token',
      value: slack,
      text: `# Notes\n\nThe bot.\n\nIt says hello with \`${slack}\`.\n`,
    },
    {
      path: 'certs/server.key',
      line: 1,
      kind: 'private-key',
      value: body,
      text: `${begin}\n${body}\n${string(next, BASE62, 64)}\n${begin.replace('BEGIN', 'END')}\n`,
    },
    { path: '.env', line: 2, kind: 'random-value', value: named, text: `PORT=8080\nPAYMENT_API_KEY=${named}\nDEBUG=1\n` },
  ]
}

/** What only looks like one: documented keys, placeholders, hashes. */
const nearMisses = (next: () => number): Readonly<Record<string, string>> => ({
  'docs/aws.md': `Use \`${['AK', 'IA', 'IOSFODNN7', 'EXAMPLE'].join('')}\` and \`aws_secret_access_key = ${['wJalrXUtnFEMI', 'K7MDENG', 'bPxRfiCYEXAMPLEKEY'].join('/')}\` as in the manual.\n`,
  'config/sample.env': `GITHUB_TOKEN=${['gh', 'p_', 'x'.repeat(36)].join('')}\nAPI_KEY=<your-key-here-please>\nSECRET=changeme-changeme-changeme-1\n`,
  'src/hashes.ts': `export const tokenHash = '${string(next, '0123456789abcdef', 64)}'\nexport const integrity = 'sha512-${string(next, BASE62, 86)}=='\n`,
  'docs/keys.md': `A key file begins with ${['-----BEGIN', 'PRIVATE', 'KEY-----'].join(' ')} and goes on with the key in base64.\n`,
})

const BRANCHES = ['if (a && b) return', 'for (const x of list) use(x)', 'const y = a ? b : c', 'plain(y)', 'other(y)']
function code(next: () => number, lines: number): string {
  return Array.from({ length: lines }, () => {
    const roll = next()
    if (roll < 0.03) return '  // TODO: later. TODO: twice on one line'
    if (roll < 0.05) return '  // FIXME before the release'
    return `  ${BRANCHES[Math.floor(next() * BRANCHES.length)]}`
  }).join('\n')
}

/** Writes the tree below `root` (made when missing). */
export function plant(root: string, options: { readonly modules?: number } = {}): Planted {
  const next = random(20_260)
  const write = (path: string, content: string | Buffer): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true, mode: 0o755 })
    writeFileSync(join(root, path), content, { mode: 0o644 })
  }
  for (const [path, text] of Object.entries(LICENCE_FILES)) write(path, text)
  const planted = keys(next)
  for (const { path, text } of planted) write(path, text)
  const misses = nearMisses(next)
  for (const [path, text] of Object.entries(misses)) write(path, text)
  for (let index = 0; index < (options.modules ?? 60); index++)
    write(
      `lib/part-${index % 7}/module-${index}.${index % 3 === 0 ? 'py' : 'ts'}`,
      `${code(next, 20 + Math.floor(next() * 300))}${index % 5 === 0 ? '' : '\n'}`,
    )
  // What trees of dependencies are full of.
  write('vendor/bundle.min.js', `${'var a=1;/*TODO*/if(a&&a){a()}'.repeat(60_000)}\n`)
  write(
    'vendor/image.png',
    Buffer.concat([Buffer.from('\x89PNG\r\n\0\0'), Buffer.from(Array.from({ length: 5_000 }, () => Math.floor(next() * 256)))]),
  )
  write(
    'vendor/latin1.txt',
    Buffer.concat([Buffer.from('caf'), Buffer.from([0xe9]), Buffer.from(' TODO\nna'), Buffer.from([0xef]), Buffer.from('ve\n')]),
  )
  write('vendor/empty.txt', '')
  write('vendor/no-newline.txt', 'one line, FIXME')
  write('vendor/a name with spaces | and `ticks`.txt', 'text\n')
  write('vendor/größe.txt', 'TODO\n')
  mkdirSync(join(root, 'vendor/.bin'), { recursive: true, mode: 0o755 })
  symlinkSync('../bundle.min.js', join(root, 'vendor/.bin/bundle'))
  symlinkSync('..', join(root, 'vendor/.bin/up'))
  symlinkSync('/etc/hostname', join(root, 'vendor/.bin/outside'))
  return {
    licences: LICENCES,
    secrets: planted.map(({ path, line, kind }) => ({ path, line, kind })),
    values: planted.map(({ value }) => value),
    nearMisses: Object.keys(misses),
    symlinks: 3,
  }
}
