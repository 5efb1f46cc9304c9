import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { describeAddress, engineAddresses } from '../../../../../engine/runtimes/docker/discovery.ts'

type Files = { readonly [path: string]: string }
const find = (environment: { readonly [name: string]: string }, files: Files = {}): readonly string[] =>
  engineAddresses({ environment, home: '/home/u', readFile: (path) => files[path] ?? null }).map(describeAddress)

const metaFile = (name: string): string => `/home/u/.docker/contexts/meta/${createHash('sha256').update(name).digest('hex')}/meta.json`
const meta = (host: string): string => JSON.stringify({ Name: 'x', Endpoints: { docker: { Host: host, SkipTLSVerify: false } } })

test('DOCKER_HOST wins over every context', () => {
  const files = { '/home/u/.docker/config.json': '{"currentContext":"desktop"}', [metaFile('desktop')]: meta('unix:///d.sock') }
  expect(find({ DOCKER_HOST: 'unix:///x/y.sock', DOCKER_CONTEXT: 'desktop' }, files)).toEqual(['unix:///x/y.sock'])
})

test("tcp addresses get the engine's default ports", () => {
  expect(find({ DOCKER_HOST: 'tcp://build.example' })).toEqual(['tcp://build.example:2375'])
  expect(find({ DOCKER_HOST: 'tcp://build.example:80' })).toEqual(['tcp://build.example:80'])
  expect(find({ DOCKER_HOST: 'tcp://[::1]:2375' })).toEqual(['tcp://::1:2375'])
  expect(find({ DOCKER_HOST: 'tcp://build.example', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: '/certs' })).toEqual([
    'tcp://build.example:2376',
  ])
})

test('DOCKER_TLS_VERIFY reads the three files of DOCKER_CERT_PATH', () => {
  const files: Files = { '/certs/ca.pem': 'CA', '/certs/cert.pem': 'CERT', '/certs/key.pem': 'KEY' }
  const [address] = engineAddresses({
    environment: { DOCKER_HOST: 'tcp://build.example:2376', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: '/certs' },
    home: '/home/u',
    readFile: (path) => files[path] ?? null,
  })
  expect(address).toMatchObject({ kind: 'tcp', tls: { ca: 'CA', cert: 'CERT', key: 'KEY', verify: true } })
})

test('DOCKER_CONTEXT wins over the current context', () => {
  const files = {
    '/home/u/.docker/config.json': '{"currentContext":"one"}',
    [metaFile('one')]: meta('unix:///one.sock'),
    [metaFile('two')]: meta('unix:///two.sock'),
  }
  expect(find({}, files)).toEqual(['unix:///one.sock'])
  expect(find({ DOCKER_CONTEXT: 'two' }, files)).toEqual(['unix:///two.sock'])
})

test('without a word from the user every default socket is tried, in this order', () => {
  const all = [
    'unix:///var/run/docker.sock',
    'unix:///run/user/1000/docker.sock',
    'unix:///home/u/.docker/run/docker.sock',
    'unix:///home/u/.docker/desktop/docker.sock',
  ]
  expect(find({ XDG_RUNTIME_DIR: '/run/user/1000' })).toEqual(all)
  expect(find({ XDG_RUNTIME_DIR: '/run/user/1000', DOCKER_CONTEXT: 'default' })).toEqual(all)
  expect(find({ XDG_RUNTIME_DIR: '/run/user/1000' }, { '/home/u/.docker/config.json': 'not json' })).toEqual(all)
})

test.each([
  ['ssh://host', 'ssh:// is not supported'],
  ['npipe:////./pipe/docker_engine', 'expected unix:// or tcp://, got npipe://'],
  ['tcp://', 'expected tcp://host:port'],
])('%s is refused: %s', (host, why) => {
  expect(() => find({ DOCKER_HOST: host })).toThrow(expect.objectContaining({ code: 'AG4001', message: expect.stringContaining(why) }))
})

test('a context that does not exist is named', () => {
  expect(() => find({ DOCKER_CONTEXT: 'gone' })).toThrow('DOCKER_CONTEXT names the docker context "gone", which has no engine address')
})
