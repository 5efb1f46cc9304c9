/**
 * What the project keeps secret, on its tmpfs volume: the project key, the broker's password and the values of the file's secrets
 * (so that `scale` and the controller can fill a new replica's folder without the file). Read and written through the holder.
 */
import { randomBytes } from 'node:crypto'
import type { BrokerSettings } from '../../spec/model.ts'
import { packEntries, readEntries, type Entry } from '../archive.ts'
import type { DesiredContainer } from '../desired.ts'
import { AgentctlError } from '../errors.ts'
import { LABEL, PATHS, secretsFolder, TRUSTED_SECRETS, trustedName } from '../names.ts'
import type { ContainerRuntime } from '../ports.ts'
import { replicaToken } from '../tokens.ts'

export interface SecretStore {
  readonly project_key: string
  readonly broker_password: string
  /** base64, by name under `secrets:`. */
  readonly values: { readonly [name: string]: string }
}

/** Its name cannot be a container's: those start with the project's name and a dash. */
const STORE = '.agentctl-store'

export const newStore = (): SecretStore => ({
  project_key: randomBytes(32).toString('hex'),
  broker_password: randomBytes(24).toString('hex'),
  values: {},
})

/** null: there is none yet, or the machine's memory was lost. */
export async function readStore(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<SecretStore | null> {
  try {
    const files = await readEntries(await runtime.getArchive(trustedName(project, 'secrets'), `${PATHS.secretsRoot}/${STORE}`, signal))
    const text = files.get(STORE)
    return text === undefined ? null : (JSON.parse(text.toString('utf8')) as SecretStore)
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

function filesOf(
  project: string,
  store: SecretStore,
  container: DesiredContainer,
): readonly { readonly name: string; readonly content: string | Buffer }[] {
  const { spec } = container
  if (spec.kind === 'broker') return [{ name: TRUSTED_SECRETS.brokerConf, content: redisConf(store.broker_password, durabilityOf(spec)) }]
  const own = container.secrets.map((use) => {
    const value = store.values[use.source]
    if (value === undefined) {
      throw new AgentctlError('AG3003', `secret "${use.source}" of ${spec.name} has no value any more (the machine's memory was lost)`, {
        hint: "Run `agentctl up` with the secret's file or environment variable present.",
      })
    }
    return { name: use.target, content: Buffer.from(value, 'base64') }
  })
  if (spec.kind === 'gateway') {
    const given = own.some((file) => file.name === TRUSTED_SECRETS.brokerPassword)
    const password = { name: TRUSTED_SECRETS.brokerPassword, content: store.broker_password }
    return [{ name: TRUSTED_SECRETS.projectKey, content: store.project_key }, ...own, ...(given ? [] : [password])]
  }
  const agent = spec.labels[LABEL.agent]
  // Replica 0 is a one-off: it leases no work.
  return agent === undefined || container.replica === 0
    ? own
    : [...own, { name: 'agentctl-token', content: replicaToken(store.project_key, project, { agent, replica: container.replica }) }]
}

function durabilityOf(spec: DesiredContainer['spec']): Durability {
  const said = spec.environment['AGENTCTL_DURABILITY']
  return said === 'none' || said === 'strict' ? said : 'normal'
}

/** One PUT for all: the store and a folder per container, owned by and readable for its user alone. */
export async function writeSecrets(
  runtime: ContainerRuntime,
  project: string,
  store: SecretStore,
  containers: readonly DesiredContainer[],
  signal: AbortSignal,
): Promise<void> {
  const entries: Entry[] = [{ path: STORE, content: JSON.stringify(store), mode: 0o400, uid: 0, gid: 0 }]
  for (const container of containers) {
    const [uid = 0, gid = uid] = (container.spec.user ?? '0').split(':').map(Number)
    const owner = Number.isInteger(uid) && Number.isInteger(gid) ? { uid, gid } : { uid: 0, gid: 0 }
    // A service's user may be its image's, or a name that only the image can resolve: such files are readable to all inside its folder.
    const open = container.spec.kind === 'service' && (container.spec.user === null || !Number.isInteger(uid))
    const folder = secretsFolder(container.spec.name)
    entries.push({ path: `${folder}/`, mode: open ? 0o555 : 0o500, ...owner })
    for (const file of filesOf(project, store, container))
      entries.push({ path: `${folder}/${file.name}`, content: file.content, mode: open ? 0o444 : 0o400, ...owner })
  }
  await runtime.putArchive(trustedName(project, 'secrets'), PATHS.secretsRoot, packEntries(entries), signal)
}
