import { expect, test } from 'vitest'
import { imageSecrets } from '../../../engine/image-secrets.ts'
import { agent, project, service } from '../../support/project.ts'

const found = (
  environment: readonly string[],
  history: readonly string[] = [],
  own: { readonly [name: string]: string } = {},
): readonly string[] =>
  imageSecrets(
    project({ agents: [agent('a', { image: 'mine', environment: own })], services: [service('s', { image: 'other' })] }),
    new Map([['mine', { id: 'x', user: '', size: 1, environment, history }]]),
    new Map(),
  ).map((it) => `${it.code} ${it.message}`)

test('a variable that by its name holds a key, and has a value, is named without it', () => {
  for (const name of ['OPENAI_API_KEY', 'GH_TOKEN', 'client_secret', 'DB_PASSWORD', 'MYSQL_ROOT_PASSWORD', 'PGPASSWORD', 'APIKEY'])
    expect(found([`PATH=/bin`, `${name}=hunter2`]), name).toEqual([
      `AG3010 the image "mine" of agent "a" has a value for ${name} in its ENV: whoever has the image has it`,
    ])
  expect(found(['URL=https://x:glpat-aaaaaaaaaaaaaaaaaaaa@example.com'])).toHaveLength(1)
})

test('what is no secret passes: empty, public, a fingerprint, a path of a secret, another name; and what the file sets itself', () => {
  expect(
    found([
      'API_KEY=',
      'SSH_PUBLIC_KEY=ssh-ed25519 AAAA',
      'GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568',
      'DB_PASSWORD_FILE=/run/secrets/db',
      'TOKEN=/run/secrets/token',
      'KEYBOARD=us',
      'TOKENIZERS_PARALLELISM=false',
    ]),
  ).toEqual([])
  expect(found(['API_KEY=hunter2'], [], { API_KEY: '' })).toEqual([])
})

test('build arguments are told by the history of both builders', () => {
  for (const line of [
    '|2 VERSION=1.2 NPM_TOKEN=hunter2 /bin/sh -c npm ci',
    'RUN |1 NPM_TOKEN=hunter2 /bin/sh -c npm ci # buildkit',
    '/bin/sh -c #(nop)  ARG NPM_TOKEN=hunter2',
    'ARG NPM_TOKEN=hunter2',
  ])
    expect(found([], [line]), line).toEqual([
      'AG3010 the image "mine" of agent "a" was built with the argument NPM_TOKEN, which its history tells',
    ])
  expect(found([], ['/bin/sh -c #(nop)  ARG NPM_TOKEN', '|1 VERSION=1 /bin/sh -c echo TOKEN=x >f', '/bin/sh -c #(nop) CMD ["a"]'])).toEqual(
    [],
  )
})
