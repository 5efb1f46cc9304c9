/** What `doctor` looks at. Gathering never fails: what cannot be known is null, and an engine that does not answer is a fact too. */
import { constants } from 'node:fs'
import { access, readFile, stat, statfs } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { AgentctlError } from './errors.ts'
import type { ContainerRuntime, EngineInfo } from './ports.ts'
import { hostRoutes } from './subnets.ts'

export interface EngineFacts {
  readonly ok: true
  readonly info: EngineInfo
  /** Which of `references` are on the engine. */
  readonly images: { readonly agent: boolean; readonly engine: boolean; readonly base: boolean }
}
export interface SocketFacts {
  readonly path: string
  readonly gid: number
  readonly group: string | null
  readonly writable: boolean
}
export interface DoctorFacts {
  readonly engine: EngineFacts | { readonly ok: false; readonly message: string; readonly hint: string }
  readonly references: { readonly agent: string; readonly engine: string; readonly base: string }
  /** Engine sockets that exist here. */
  readonly sockets: readonly SocketFacts[]
  readonly user: { readonly uid: number; readonly name: string }
  /** Free bytes; `engine` is null when its data is on another machine (or in a desktop's VM). */
  readonly free: { readonly engine: number | null; readonly folder: number | null }
  readonly folder: string
  readonly debootstrap: string | null
  readonly node: string
  readonly subnets: { readonly range: string | undefined; readonly taken: readonly string[] }
}

export interface GatherOptions {
  /** Finds the engine and connects; rejects where there is none. */
  readonly connect: () => Promise<ContainerRuntime>
  readonly references: DoctorFacts['references']
  readonly environment: { readonly [name: string]: string | undefined }
  /** The project's folder. */
  readonly folder: string
  readonly signal?: AbortSignal
}

const ENGINE_TIMEOUT_MS = 10_000

export async function gatherFacts(options: GatherOptions): Promise<DoctorFacts> {
  const { environment, folder, references } = options
  const signal = AbortSignal.any([AbortSignal.timeout(ENGINE_TIMEOUT_MS), ...(options.signal === undefined ? [] : [options.signal])])
  const [{ engine, subnets }, sockets, routes, free, debootstrap] = await Promise.all([
    askEngine(options, signal),
    findSockets(environment),
    readFile('/proc/net/route', 'utf8').catch(() => ''),
    freeBytes(folder),
    findProgram('debootstrap', environment),
  ])
  const isLocal = engine.ok && engine.info.endpoint.startsWith('unix:')
  return {
    engine,
    references,
    sockets,
    user: { uid: process.getuid?.() ?? -1, name: userName() },
    free: { engine: isLocal ? await freeBytes(engine.info.data_root) : null, folder: free },
    folder,
    debootstrap,
    node: process.version,
    subnets: { range: environment['AGENTCTL_SUBNETS'] || undefined, taken: [...subnets, ...hostRoutes(routes)] },
  }
}

async function askEngine(
  { connect, references }: GatherOptions,
  signal: AbortSignal,
): Promise<{ engine: DoctorFacts['engine']; subnets: readonly string[] }> {
  try {
    const runtime = await connect()
    const info = await runtime.info(signal)
    const has = async (reference: string): Promise<boolean> => (await runtime.image(reference, signal)) !== null
    const [agent, engine, base, networks] = await Promise.all([
      has(references.agent),
      has(references.engine),
      has(references.base),
      runtime.networks(null, signal),
    ])
    return { engine: { ok: true, info, images: { agent, engine, base } }, subnets: networks.flatMap((network) => network.subnets) }
  } catch (error) {
    const hint = error instanceof AgentctlError ? error.hint : 'Start Docker, or set DOCKER_HOST or DOCKER_CONTEXT.'
    return { engine: { ok: false, message: error instanceof Error ? error.message : String(error), hint }, subnets: [] }
  }
}

/** Where DOCKER_HOST points, else the default places. */
function socketPaths(environment: GatherOptions['environment']): readonly string[] {
  const host = environment['DOCKER_HOST']
  if (host !== undefined && host !== '') return host.startsWith('unix://') ? [host.slice('unix://'.length)] : []
  const [runtime, home] = [environment['XDG_RUNTIME_DIR'], environment['HOME']]
  return [
    '/var/run/docker.sock',
    ...(runtime ? [join(runtime, 'docker.sock')] : []),
    ...(home ? [join(home, '.docker/run/docker.sock')] : []),
  ]
}

async function findSockets(environment: GatherOptions['environment']): Promise<readonly SocketFacts[]> {
  const groups = await readFile('/etc/group', 'utf8').catch(() => '')
  const found = await Promise.all(
    socketPaths(environment).map(async (path) => {
      const facts = await stat(path).catch(() => null)
      if (facts === null || !facts.isSocket()) return []
      const group =
        groups
          .split('\n')
          .map((line) => line.split(':'))
          .find((parts) => parts[2] === String(facts.gid))?.[0] ?? null
      return [{ path, gid: facts.gid, group, writable: await may(path, constants.R_OK | constants.W_OK) }]
    }),
  )
  return found.flat()
}

async function findProgram(name: string, environment: GatherOptions['environment']): Promise<string | null> {
  // A user's PATH often lacks the sbin folders, where debootstrap lives.
  const folders = [...(environment['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'].filter((folder) => folder !== '')
  for (const folder of folders) if (await may(join(folder, name), constants.X_OK)) return join(folder, name)
  return null
}

const may = (path: string, mode: number): Promise<boolean> =>
  access(path, mode).then(
    () => true,
    () => false,
  )
const freeBytes = (path: string): Promise<number | null> =>
  statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => null,
  )

function userName(): string {
  try {
    return userInfo().username
  } catch {
    // A uid without an entry in /etc/passwd.
    return '$USER'
  }
}
