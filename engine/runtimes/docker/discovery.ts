/** Where the engine may be, in the order of the docker CLI. Pure but for the reads that it is given. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { AgentctlError } from '../../errors.ts'

export interface TlsFiles {
  readonly ca: string | null
  readonly cert: string | null
  readonly key: string | null
  readonly verify: boolean
}

export type EngineAddress =
  | { readonly kind: 'unix'; readonly path: string; readonly source: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls: TlsFiles | null; readonly source: string }

export interface DiscoveryOptions {
  readonly environment: { readonly [name: string]: string | undefined }
  /** The home folder when HOME is not set. */
  readonly home: string
  /** null: no such file. */
  readonly readFile: (path: string) => string | null
}

export const describeAddress = (address: EngineAddress): string =>
  address.kind === 'unix' ? `unix://${address.path}` : `tcp://${address.host}:${address.port}`

/** One address where the user named it; else every default socket, the first that answers wins. */
export function engineAddresses(options: DiscoveryOptions): readonly EngineAddress[] {
  const { environment } = options
  const host = environment['DOCKER_HOST']
  if (host !== undefined && host !== '') return [parseHost(host, 'DOCKER_HOST', environmentTls(options))]
  const configFolder = environment['DOCKER_CONFIG'] || join(homeOf(options), '.docker')
  const named = environment['DOCKER_CONTEXT']
  const context = named || currentContext(configFolder, options)
  if (context === null || context === 'default') return defaultSockets(options)
  return [contextAddress(context, named ? 'DOCKER_CONTEXT' : join(configFolder, 'config.json'), configFolder, options)]
}

const homeOf = ({ environment, home }: DiscoveryOptions): string => environment['HOME'] || home

function parseHost(text: string, source: string, tls: TlsFiles | null): EngineAddress {
  const refuse = (why: string): AgentctlError =>
    new AgentctlError('AG4001', `${source} names the engine "${text}": ${why}`, {
      hint: 'Use unix:///path/to/docker.sock or tcp://host:port. For a remote machine forward its socket first: ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST, then DOCKER_HOST=unix:///tmp/docker.sock.',
    })
  const scheme = /^([a-z]+):\/\//.exec(text)?.[1] ?? 'tcp'
  if (scheme === 'ssh') throw refuse('ssh:// is not supported')
  if (scheme === 'unix') {
    const path = text.slice('unix://'.length)
    return { kind: 'unix', path: path === '' ? '/var/run/docker.sock' : path, source }
  }
  if (scheme !== 'tcp' && scheme !== 'http' && scheme !== 'https') throw refuse(`expected unix:// or tcp://, got ${scheme}://`)
  const url = URL.parse(`http://${text.replace(/^[a-z]+:\/\//, '')}`)
  if (url === null || url.hostname === '') throw refuse('expected tcp://host:port')
  const secure = tls ?? (scheme === 'https' ? { ca: null, cert: null, key: null, verify: true } : null)
  // URL drops ":80", the default port of http.
  const written = /:(\d+)\/?$/.exec(text)?.[1]
  const port = Number(written ?? (secure === null ? 2375 : 2376))
  return { kind: 'tcp', host: url.hostname.replace(/^\[|\]$/g, ''), port, tls: secure, source }
}

function environmentTls(options: DiscoveryOptions): TlsFiles | null {
  const { environment } = options
  const verify = environment['DOCKER_TLS_VERIFY']
  const isVerified = verify !== undefined && verify !== ''
  const isTls = isVerified || Boolean(environment['DOCKER_TLS'])
  if (!isTls) return null
  const folder = environment['DOCKER_CERT_PATH'] || environment['DOCKER_CONFIG'] || join(homeOf(options), '.docker')
  return readTls(folder, isVerified, options)
}

function readTls(folder: string, verify: boolean, { readFile }: DiscoveryOptions): TlsFiles {
  return { ca: readFile(join(folder, 'ca.pem')), cert: readFile(join(folder, 'cert.pem')), key: readFile(join(folder, 'key.pem')), verify }
}

function currentContext(configFolder: string, { readFile }: DiscoveryOptions): string | null {
  const name = parseJson(readFile(join(configFolder, 'config.json')))['currentContext']
  return typeof name === 'string' && name !== '' ? name : null
}

function contextAddress(name: string, source: string, configFolder: string, options: DiscoveryOptions): EngineAddress {
  const id = createHash('sha256').update(name).digest('hex')
  const file = join(configFolder, 'contexts', 'meta', id, 'meta.json')
  const endpoint = record(record(parseJson(options.readFile(file))['Endpoints'])['docker'])
  const host = endpoint['Host']
  if (typeof host !== 'string') {
    throw new AgentctlError('AG4001', `${source} names the docker context "${name}", which has no engine address (${file})`, {
      hint: 'Choose another one with `docker context use NAME`, or set DOCKER_HOST.',
    })
  }
  const tlsFolder = join(configFolder, 'contexts', 'tls', id, 'docker')
  const tls = readTls(tlsFolder, endpoint['SkipTLSVerify'] !== true, options)
  const hasTls = tls.ca !== null || tls.cert !== null
  return parseHost(host, `docker context "${name}"`, hasTls ? tls : null)
}

function defaultSockets(options: DiscoveryOptions): readonly EngineAddress[] {
  const runtimeFolder = options.environment['XDG_RUNTIME_DIR']
  const home = homeOf(options)
  const paths = [
    '/var/run/docker.sock',
    ...(runtimeFolder ? [join(runtimeFolder, 'docker.sock')] : []),
    join(home, '.docker', 'run', 'docker.sock'),
    join(home, '.docker', 'desktop', 'docker.sock'),
  ]
  return paths.map((path) => ({ kind: 'unix', path, source: 'default' }))
}

function parseJson(text: string | null): Record<string, unknown> {
  if (text === null) return {}
  try {
    return record(JSON.parse(text))
  } catch {
    // A broken config.json is the docker CLI's to report; the defaults may still work.
    return {}
  }
}

const record = (value: unknown): Record<string, unknown> => (typeof value === 'object' && value !== null ? { ...value } : {})
