import { expect, test } from 'vitest'
import { licencesInHeader, licencesInManifest, licencesInText } from '../../../examples/repo-audit/handlers/licences.ts'
import { secretsIn } from '../../../examples/repo-audit/handlers/secrets.ts'
import { random } from '../../support/plant.ts'

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
const BASE62 = `${LETTERS}${LETTERS.toLowerCase()}0123456789`
const next = random(42)
const pick = (alphabet: string, length: number): string =>
  Array.from({ length }, () => alphabet[Math.floor(next() * alphabet.length)]).join('')
const kinds = (text: string): string[] => secretsIn(text).map(({ kind }) => kind)
const base64url = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

// Each is put together from pieces: nothing that looks like a key stands in this file.
const FOUND: readonly (readonly [string, string])[] = [
  ['aws-access-key-id', `id: ${'AS'}IA${pick(`${LETTERS}234567`, 16)}`],
  ['github-token', `${'github_'}pat_${pick(BASE62, 22)}_${pick(BASE62, 59)}`],
  ['gitlab-token', `${'glp'}at-${pick(BASE62, 20)}`],
  ['slack-webhook', `https://${'hooks.'}slack.com/services/T${pick(LETTERS, 8)}/B${pick(LETTERS, 8)}/${pick(BASE62, 24)}`],
  ['stripe-key', `"${'sk_'}live_${pick(BASE62, 24)}"`],
  ['google-api-key', `key=${'AI'}za${pick(BASE62, 35)}`],
  ['npm-token', `//registry.npmjs.org/:_authToken=${'np'}m_${pick(BASE62, 36)}`],
  ['anthropic-key', `${'sk-'}ant-api03-${pick(BASE62, 93)}AA`],
  ['openai-key', `${'sk-'}proj-${pick(BASE62, 20)}${'T3Blbk'}FJ${pick(BASE62, 20)}`],
  ['sendgrid-key', `${'S'}G.${pick(BASE62, 22)}.${pick(BASE62, 43)}`],
  ['azure-storage-key', `${'Account'}Key=${pick(BASE62, 86)}==;`],
  ['jwt', [base64url({ alg: 'HS256', typ: 'JWT' }), base64url({ sub: 'svc-7', iss: 'us' }), pick(BASE62, 43)].join('.')],
  ['password-in-url', `DATABASE=postgres://app:${pick(BASE62, 14)}7q@db.internal:5432/x`],
  ['private-key', `const pem = '-----BEGIN ${'PRIVATE'} KEY-----\\n${pick(BASE62, 64)}\\n-----END'`],
  ['aws-secret-access-key', `aws_secret_access_key = ${pick(BASE62, 38)}7a`],
  ['random-value', `{"clientSecret": "${pick(BASE62, 30)}42a"}`],
  ['random-value', `const API_KEY: string = '${pick('0123456789abcdef', 32)}'`],
]
test.each(FOUND)('%s is found, and its value is not shown', (kind, text) => {
  const found = secretsIn(`before\n${text}\nafter`)
  expect(found.map((one) => one.kind)).toEqual([kind])
  for (const word of text.match(/[A-Za-z0-9]{14,}/g) ?? []) expect(found[0]?.redacted).not.toContain(word.slice(-8))
})

const MISSED: readonly (readonly [string, string])[] = [
  ['a documented key', `${'AK'}IAIOSFODNN7EXAMPLE`],
  ['a documented token without a mark', `${'gh'}p_16C7e42F292c6912E7710c838347Ae178B4a`],
  [
    'a documented token of jwt.io',
    [base64url({ alg: 'HS256', typ: 'JWT' }), base64url({ sub: '1234567890', name: 'John Doe' }), pick(BASE62, 43)].join('.'),
  ],
  ['a placeholder', `${'sk_'}live_your_key_goes_here_1234`],
  ['a run of x', `${'gh'}p_${'x'.repeat(36)}`],
  ['a typed row', `${'gh'}p_abcdefghijklmnopqrstuvwxyz0123456789`],
  ['a hash', `sha256: ${pick('0123456789abcdef', 64)}`],
  ['the hash of a token', `token_hash = "${pick('0123456789abcdef', 64)}"`],
  ['an integrity line', `"integrity": "sha512-${pick(BASE62, 86)}=="`],
  ['a commit', `commit ${pick('0123456789abcdef', 40)}`],
  ['a uuid', 'secret_id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"'],
  ['the hash of a file that has to do with tokens', `"/engine/tokens.ts": "${pick('0123456789abcdef', 40)}"`],
  ['a variable', 'password: process.env.DATABASE_PASSWORD_V2_2024'],
  ['an interpolation', 'password = "${DATABASE_PASSWORD_22}"'],
  ['an identifier', "const token = 'getAccessTokenForUserNumber22'"],
  [
    'the header of a key without a body',
    `if (text.startsWith('-----BEGIN ${'PRIVATE'} KEY-----')) return readTheKeyFromTheTextThatFollows(text)`,
  ],
  ['a part of base64', `data:font/woff;base64,${pick(BASE62, 30)}${'AK'}IA${pick(LETTERS, 16)}${pick(BASE62, 30)}`],
  ['a user and a word in a URL', 'postgres://user:password1@localhost:5432/db and https://me:hunter22@example.com'],
]
test.each(MISSED)('%s is not reported', (_, text) => {
  expect(kinds(`before\n${text}\nafter`)).toEqual([])
})

test('licence lines and texts: what they state, not what they mention', () => {
  expect(licencesInHeader('/*! SPDX-License-Identifier: (MIT OR Apache-2.0) */')).toEqual(['Apache-2.0', 'MIT'])
  expect(licencesInHeader('<!-- SPDX-License-Identifier: CC-BY-4.0 -->')).toEqual(['CC-BY-4.0'])
  expect(licencesInHeader('# SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note')).toEqual(['GPL-2.0-only'])
  expect(licencesInHeader('the line "SPDX-License-Identifier: MIT" is read')).toEqual([])
  expect(licencesInManifest('{"license":"SEE LICENSE IN x"}')).toEqual(['unrecognised'])
  expect(licencesInManifest('{"license":')).toEqual([])
  expect(licencesInText('all rights reserved')).toEqual(['unrecognised'])
})
