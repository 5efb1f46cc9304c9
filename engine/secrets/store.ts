/**
 * What the project keeps secret, on its tmpfs volume: the project key, the broker's password and the values of the file's secrets
 * (so that `scale` and the controller can fill a new replica's folder without the file). Read and written through the holder.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import type { BrokerSettings, SecretUse } from '../../spec/model.ts'
import { packEntries, readEntries, type Entry } from '../archive.ts'
import { canonicalJson } from '../canonical.ts'
import type { DesiredContainer } from '../desired.ts'
import { AgentctlError } from '../errors.ts'
import { fixedFolder, LABEL, PATHS, secretPath, secretsFolder, TRUSTED_SECRETS, trustedName } from '../names.ts'
import type { ContainerRuntime } from '../ports.ts'
import { replicaToken } from '../tokens.ts'

export interface SecretStore {
  readonly project_key: string
  readonly broker_password: string
  /** base64, by name under `secrets:`. */
  readonly values: { readonly [name: string]: string }
}

/** Their names cannot be a container's: those start with the project's name and a dash. */
const STORE = '.agentctl-store'
const DELIVERED = '.agentctl-delivered'
const INCOMING = '.agentctl-incoming'

export const newStore = (): SecretStore => ({
  project_key: randomBytes(32).toString('hex'),
  broker_password: randomBytes(24).toString('hex'),
  values: {},
})

/** null: there is none yet, or the machine's memory was lost. */
export async function readStore(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<SecretStore | null> {
  const text = (await readFiles(runtime, project, STORE, signal))?.get(STORE)
  return text === undefined ? null : (JSON.parse(text.toString('utf8')) as SecretStore)
}

/** What lies in the folders of containers: by container, by file, a fingerprint that only who has the project key can make. */
export async function readDelivered(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<Delivered> {
  const files = await readFiles(runtime, project, DELIVERED, signal)
  return new Map(
    [...(files ?? [])].map(([path, text]) => [
      posix.basename(path),
      JSON.parse(text.toString('utf8')) as { readonly [file: string]: string },
    ]),
  )
}

async function readFiles(
  runtime: ContainerRuntime,
  project: string,
  path: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Buffer> | null> {
  try {
    return await readEntries(await runtime.getArchive(trustedName(project, 'secrets'), `${PATHS.secretsRoot}/${path}`, signal))
  } catch (error) {
    if (error instanceof AgentctlError && (error.code === 'AG4012' || error.code === 'AG4005')) return null
    throw error
  }
}

type Durability = BrokerSettings['durability']

/** `none`: a stop in good order writes a dump all the same, so that an upgrade or a change of this setting keeps the work. */
const PERSISTENCE: { readonly [durability in Durability]: readonly string[] } = {
  none: ['appendonly no', 'save ""', 'shutdown-on-sigterm save'],
  normal: ['appendonly yes', 'appendfsync everysec', 'save ""'],
  strict: ['appendonly yes', 'appendfsync always', 'save ""'],
}

/** 512 MiB of the container's 1 GiB: a rewrite of the AOF may copy every page. */
const redisConf = (password: string, durability: Durability): string =>
  `${[
    'bind 0.0.0.0',
    'port 6379',
    'protected-mode no',
    'dir /data',
    ...PERSISTENCE[durability],
    'maxmemory 512mb',
    'maxmemory-policy noeviction',
    'tcp-keepalive 60',
    `requirepass ${password}`,
  ].join('\n')}\n`

interface SecretFile {
  /** Below the volume's root. */
  readonly path: string
  readonly content: string | Buffer
  readonly uid: number
  readonly gid: number
  readonly mode: number
}

function filesOf(project: string, store: SecretStore, container: DesiredContainer): readonly SecretFile[] {
  const { spec } = container
  const { uid, gid, open } = userOf(container)
  const folder = secretsFolder(spec.name)
  const ours = (name: string, content: string): SecretFile => ({ path: `${folder}/${name}`, content, uid, gid, mode: open ? 0o444 : 0o400 })
  if (spec.kind === 'broker') return [ours(TRUSTED_SECRETS.brokerConf, redisConf(store.broker_password, durabilityOf(spec)))]
  const own = container.secrets.map((use): SecretFile => {
    const value = store.values[use.source]
    if (value === undefined) {
      throw new AgentctlError('AG3003', `secret "${use.source}" of ${spec.name} has no value any more (the machine's memory was lost)`, {
        hint: 'Run `agentctl up` where the secret has its file, variable or command.',
      })
    }
    return secretFile(container, use, Buffer.from(value, 'base64'))
  })
  if (spec.kind === 'gateway') {
    const given = container.secrets.some((use) => use.target === TRUSTED_SECRETS.brokerPassword)
    const password = ours(TRUSTED_SECRETS.brokerPassword, store.broker_password)
    return [ours(TRUSTED_SECRETS.projectKey, store.project_key), ...own, ...(given ? [] : [password])]
  }
  const agent = spec.labels[LABEL.agent]
  // Replica 0 is a one-off: it leases no work.
  return agent === undefined || container.replica === 0
    ? own
    : [...own, ours('agentctl-token', replicaToken(store.project_key, project, { agent, replica: container.replica }))]
}

/** `open`: a service's user may be its image's, or a name that only the image can resolve: such files are readable to all inside its folder. */
function userOf({ spec }: DesiredContainer): { readonly uid: number; readonly gid: number; readonly open: boolean } {
  const [uid = 0, gid = uid] = (spec.user ?? '0').split(':').map(Number)
  const known = Number.isInteger(uid) && Number.isInteger(gid)
  return { ...(known ? { uid, gid } : { uid: 0, gid: 0 }), open: spec.kind === 'service' && (spec.user === null || !Number.isInteger(uid)) }
}

function secretFile(container: DesiredContainer, use: SecretUse, content: Buffer): SecretFile {
  const { uid, gid, open } = userOf(container)
  return {
    path: secretPath(container.spec.name, use.target),
    content,
    uid: use.uid ?? uid,
    gid: use.gid ?? gid,
    mode: use.mode ?? (open ? 0o444 : 0o400),
  }
}

const fingerprint = (store: SecretStore, { content, ...about }: SecretFile): string =>
  createHmac('sha256', store.project_key)
    .update(canonicalJson({ ...about, content: Buffer.from(content).toString('base64') }))
    .digest('base64url')

export type Delivered = ReadonlyMap<string, { readonly [file: string]: string }>

/** How the files of a container that exists differ from what it is to have. */
export interface SecretChange {
  /** Names under `secrets:`, in the order of the file. */
  readonly changed: readonly string[]
  /** Files that it is to have no more. */
  readonly gone: readonly string[]
  /** One of them is mounted as a file, which shows the old one for as long as the container runs. */
  readonly fixed: boolean
}

/** null: all as it should be, or nothing can be said, as a value is missing. */
export function secretChange(store: SecretStore, delivered: Delivered, container: DesiredContainer): SecretChange | null {
  const has = delivered.get(container.spec.name) ?? {}
  const changed: string[] = []
  const wanted = new Set<string>()
  let fixed = false
  for (const use of container.secrets) {
    const value = store.values[use.source]
    if (value === undefined) return null
    const file = secretFile(container, use, Buffer.from(value, 'base64'))
    wanted.add(file.path)
    if (has[file.path] === fingerprint(store, file)) continue
    if (!changed.includes(use.source)) changed.push(use.source)
    fixed ||= use.target.startsWith('/')
  }
  const gone = Object.keys(has).filter((file) => !wanted.has(file))
  return changed.length + gone.length === 0 ? null : { changed, gone, fixed }
}

function durabilityOf(spec: DesiredContainer['spec']): Durability {
  const said = spec.environment['AGENTCTL_DURABILITY']
  return said === 'none' || said === 'strict' ? said : 'normal'
}

export interface DeliveryOptions {
  readonly runtime: ContainerRuntime
  readonly project: string
  readonly signal: AbortSignal
  /** What the volume holds; null: nothing. */
  readonly kept: SecretStore | null
  readonly store: SecretStore
  /** Containers that run: their files are exchanged one by one, each at once. */
  readonly live: ReadonlySet<string>
}

/**
 * The store, a folder per container with its files, and what they are, for the next comparison. What nobody has open yet is one PUT. The
 * engine unpacks in place (it removes a file before it writes it), so where someone may be reading, files are put beside and renamed.
 * Folders are root's: the holder, root without any capability, renames in them, and can read none of their files.
 */
export async function writeSecrets(options: DeliveryOptions, containers: readonly DesiredContainer[]): Promise<void> {
  const { runtime, project, signal, kept, store, live } = options
  const holder = trustedName(project, 'secrets')
  const root = { uid: 0, gid: 0 }
  const fresh: Entry[] = []
  const exchanged: Entry[] = []
  const dropped: string[] = []
  const delivered = live.size === 0 ? null : await readDelivered(runtime, project, signal)
  fresh.push({ path: `${DELIVERED}/`, mode: 0o700, ...root })
  for (const container of containers) {
    const { name } = container.spec
    const isLive = live.has(name)
    const files = filesOf(project, store, container)
    for (const folder of new Set([secretsFolder(name), ...files.map((file) => posix.dirname(file.path))]))
      fresh.push({ path: `${folder}/`, mode: 0o755, ...root })
    ;(isLive ? exchanged : fresh).push(...files)
    const marks = Object.fromEntries(
      container.secrets.map((use) => {
        const file = secretFile(container, use, Buffer.from(store.values[use.source] ?? '', 'base64'))
        return [file.path, fingerprint(store, file)]
      }),
    )
    // Last: after an interruption in between, the next `up` finds them different and writes again.
    exchanged.push(...(isLive ? [mark(name, marks)] : []))
    if (!isLive) fresh.push(mark(name, marks))
    if (isLive) dropped.push(...Object.keys(delivered?.get(name) ?? {}).filter((path) => !files.some((file) => file.path === path)))
  }
  const stored: Entry = { path: STORE, content: JSON.stringify(store), mode: 0o400, ...root }
  if (kept === null) fresh.push(stored)
  else if (canonicalJson(kept) !== canonicalJson(store)) exchanged.push(stored)

  const incoming = `${INCOMING}-${randomBytes(6).toString('hex')}`
  const aside = exchanged.map((entry, index) => ({ ...entry, path: `${incoming}/${index}` }))
  const archive = [...fresh, ...(aside.length === 0 ? [] : [{ path: `${incoming}/`, mode: 0o700, ...root }, ...aside])]
  try {
    await runtime.putArchive(holder, PATHS.secretsRoot, packEntries(archive), signal)
  } catch (error) {
    if (aside.length > 0) await sweep(runtime, holder)
    throw error
  }
  if (exchanged.length + dropped.length === 0) return
  const moved = await runtime.exec(
    holder,
    ['sh', '-c', EXCHANGE, 'exchange', PATHS.secretsRoot, incoming, ...exchanged.map((entry) => entry.path), '--', ...dropped],
    { timeout_ms: EXCHANGE_MS },
    signal,
  )
  if (moved.exit_code !== 0)
    throw new AgentctlError('AG4005', `the secrets of project "${project}" could not be exchanged (${moved.exit_code})`, {
      hint: 'Run `agentctl up` again; see `agentctl doctor`.',
    })
}

const mark = (container: string, marks: { readonly [file: string]: string }): Entry => ({
  path: `${DELIVERED}/${container}`,
  content: JSON.stringify(marks),
  mode: 0o400,
  uid: 0,
  gid: 0,
})

const EXCHANGE_MS = 30_000
/** Files 0, 1, … of the second argument's folder become those that are named; those after -- go. */
const EXCHANGE = `cd "$1" && from=$2 && shift 2 || exit 1
number=0
while [ "$1" != -- ]; do
  mv -fT "$from/$number" "$1" || exit 1
  number=$((number + 1))
  shift
done
shift
rm -rf ${INCOMING}-*
[ $# = 0 ] || rm -f "$@"
`

/** What could not be written whole (the volume is full) must not fill it. Not under the caller's signal: an interrupted one cleans up, too. */
async function sweep(runtime: ContainerRuntime, holder: string): Promise<void> {
  const script = `rm -rf ${PATHS.secretsRoot}/${INCOMING}-*`
  await runtime.exec(holder, ['sh', '-c', script], { timeout_ms: EXCHANGE_MS }, AbortSignal.timeout(EXCHANGE_MS)).catch(() => undefined)
}

/** A folder of a one-off goes with it. */
export async function forgetFolder(runtime: ContainerRuntime, project: string, container: string, signal: AbortSignal): Promise<void> {
  const paths = [secretsFolder(container), fixedFolder(container), `${DELIVERED}/${container}`]
  await runtime.exec(
    trustedName(project, 'secrets'),
    ['rm', '-rf', ...paths.map((path) => `${PATHS.secretsRoot}/${path}`)],
    { timeout_ms: EXCHANGE_MS },
    signal,
  )
}
