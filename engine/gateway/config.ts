/** What the gateway is told: the project record (watched) and its two secrets. Both may come later than the gateway itself. */
import { readFile, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Agent, type BrokerSettings, DEFAULT_ARTIFACTS, DEFAULT_BROKER, DEFAULT_WORK, type Project } from '../../spec/model.ts'
import { containerName, TRUSTED_SECRETS } from '../names.ts'
import { type ProjectRecord, RECORD_VERSION } from '../record.ts'

/** `scale` and `up` are followed within this. */
const WATCH_MS = 500
const SECRET_RETRY_MS = 200

export interface Config {
  readonly project: Project
  /** null: the role is not in the record. */
  agent(name: string): Agent | null
  /** Reads the record again: false: this replica was scaled away or stopped on purpose. */
  wanted(agent: string, replica: number): Promise<boolean>
  reload(): Promise<void>
  /** '' : there is no such network. */
  subnet(network: string): string
  close(): void
}

/** Resolves with the first readable record. `changed` is called after each later one. */
export async function watchRecord(
  path: string,
  signal: AbortSignal,
  changed: (project: Project) => void,
  warn: (message: string) => void,
): Promise<Config> {
  let stamp = ''
  let project: Project | null = null
  let scale: ProjectRecord['scale'] = {}
  let stopped: ProjectRecord['stopped'] = []
  let subnets: ProjectRecord['subnets'] = {}
  let complained = ''

  const load = async (force: boolean): Promise<boolean> => {
    try {
      const { mtimeMs, size, ino } = await stat(path)
      const now = `${mtimeMs}.${size}.${ino}`
      if (now === stamp && !force) return false
      const record = JSON.parse(await readFile(path, 'utf8')) as ProjectRecord
      if (record.version > RECORD_VERSION)
        throw new Error(`the record has version ${record.version}, made by agentctl ${record.written_by}; this one knows ${RECORD_VERSION}`)
      stamp = now
      project = complete(record.project)
      scale = record.scale ?? {}
      stopped = record.stopped ?? []
      subnets = record.subnets ?? {}
      complained = ''
      return true
    } catch (error) {
      // A record that is being replaced is read again at the next look.
      const message = `record ${path}: ${error instanceof Error ? error.message : String(error)}`
      if (message !== complained) warn(message)
      complained = message
      return false
    }
  }

  while (!(await load(false))) await sleep(WATCH_MS, undefined, { signal })
  let busy = false
  const look = async (force: boolean): Promise<void> => {
    if (busy && !force) return
    busy = true
    if ((await load(force)) && project !== null) changed(project)
    busy = false
  }
  const timer = setInterval(() => void look(false), WATCH_MS)
  timer.unref()
  return {
    get project() {
      return project as Project
    },
    agent: (name) => (project !== null && Object.hasOwn(project.agents, name) ? (project.agents[name] ?? null) : null),
    async wanted(name, replica) {
      await look(true)
      const agent = project?.agents[name]
      return (
        agent !== undefined &&
        replica <= (scale[name] ?? agent.replicas ?? Number.POSITIVE_INFINITY) &&
        !stopped.includes(containerName(project?.name ?? '', name, replica))
      )
    },
    reload: () => look(true),
    subnet: (network) => subnets[network] ?? '',
    close: () => clearInterval(timer),
  }
}

/** A record of a version that did not know these keys. */
const complete = (project: Project): Project => ({
  ...project,
  broker: project.broker ?? DEFAULT_BROKER,
  artifacts: project.artifacts ?? DEFAULT_ARTIFACTS,
  agents: Object.fromEntries(Object.entries(project.agents).map(([name, agent]) => [name, { ...agent, work: agent.work ?? DEFAULT_WORK }])),
})

export interface Secrets {
  readonly key: string
  readonly password: string
}

/** The secrets volume is empty after a reboot until the controller has filled it: wait. */
export async function readSecrets(directory: string, broker: BrokerSettings, signal: AbortSignal): Promise<Secrets> {
  const one = async (name: string): Promise<string> => {
    for (;;) {
      const text = await readFile(`${directory}/${name}`, 'utf8').catch(() => '')
      if (text.trim() !== '') return text.trim()
      await sleep(SECRET_RETRY_MS, undefined, { signal })
    }
  }
  const [key, password] = await Promise.all([
    one(TRUSTED_SECRETS.projectKey),
    broker.url === null || broker.password !== null ? one(TRUSTED_SECRETS.brokerPassword) : '',
    broker.ca === null ? null : one(TRUSTED_SECRETS.brokerCa),
  ])
  return { key, password }
}
