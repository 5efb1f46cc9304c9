/** Secrets: files that nobody could read or that lie where something else does, and keys that stand where everyone can read them. */
import { type Checking, requireDeclared, unique } from './checking.ts'
import { knownKey } from './known-keys.ts'
import { DEFAULTS, type Agent, type SecretUse, type Template, type Workload } from './model.ts'

const FOLDER = '/run/secrets'
const isWithin = (outer: string, inner: string): boolean => inner === outer || inner.startsWith(`${outer}/`)

export function checkSecretUses(path: string, what: string, workload: Workload, checking: Checking): void {
  const { report, at } = checking
  for (const [index, use] of workload.secrets.entries()) requireDeclared(checking, `${path}.secrets.${index}`, 'secrets', use.source, what)
  unique(
    workload.secrets.map((use) => use.target),
    (index) => at(`${path}.secrets.${index}`),
    (target) => `two secrets of ${what} have the file name "${target}"`,
    report,
  )
  for (const [index, mount] of workload.mounts.entries()) {
    if (isWithin(FOLDER, mount.target))
      report('AG2003', at(`${path}.mounts.${index}`), `${FOLDER} of ${what} belongs to its secrets`, {
        help: 'choose another target, or use `secrets`',
      })
    const same = workload.secrets.findIndex((use) => use.target.startsWith('/') && isWithin(use.target, mount.target))
    if (same >= 0)
      report('AG2003', at(`${path}.secrets.${same}`), `a mount of ${what} lies where this secret is to be a file`, {
        help: 'change one of the targets',
        notes: [{ message: 'the mount is here', span: at(`${path}.mounts.${index}`) }],
      })
  }
}

/** Agents have numeric users: what they could not open is a mistake. */
export function checkReadable(agent: Agent, path: string, what: string, { report, at }: Checking): void {
  const [uid = 0, gid = uid] = (agent.user ?? DEFAULTS.agent.user).split(':').map(Number)
  // Another user than a numeric one has been complained about.
  if (Number.isNaN(uid) || Number.isNaN(gid)) return
  for (const [index, use] of agent.secrets.entries()) {
    const place = at(`${path}.secrets.${index}`)
    if (/^\/(proc|sys|dev)(\/|$)/.test(use.target))
      report('AG3001', place, `${what} must not have a file at "${use.target}"`, { help: 'choose another target' })
    if (isReadable(use, uid, gid)) continue
    const owner = `${use.uid ?? uid}:${use.gid ?? gid}`
    const mode = `0${(use.mode ?? 0o400).toString(8).padStart(3, '0')}`
    report(
      'AG3003',
      place,
      `${what} could not read the file of secret "${use.source}": it runs as ${uid}:${gid}, the file is ${owner}, ${mode}`,
      {
        help: 'leave uid, gid and mode out, or let them fit its user',
      },
    )
  }
}

function isReadable({ mode = 0o400, ...use }: SecretUse, uid: number, gid: number): boolean {
  const bits = (use.uid ?? uid) === uid ? mode >> 6 : (use.gid ?? gid) === gid ? mode >> 3 : mode
  return (bits & 4) !== 0
}

const WAY =
  'take it out, declare it under the top-level `secrets` and name it in `secrets` of who needs it: it is a file at /run/secrets there'

/** What stands in a container's configuration is read by whoever may use the engine, and in a pipeline by whoever sees its runs. */
export function checkPlainKeys(checking: Checking): void {
  const { project, report, at } = checking
  const look = (path: string, where: string, texts: readonly string[]): void => {
    const kind = texts.map(knownKey).find((found) => found !== null) ?? null
    if (kind !== null) report('AG3010', at(path), `${where} holds what looks like ${kind}`, { help: WAY })
  }
  for (const [section, one] of [
    ['agents', 'agent'],
    ['services', 'service'],
  ] as const) {
    for (const workload of Object.values<Workload>(project[section])) {
      const [path, what] = [`${section}.${workload.name}`, `${one} "${workload.name}"`]
      for (const [name, value] of Object.entries(workload.environment))
        look(`${path}.environment.${name}`, `the variable ${name} of ${what}`, [value])
      for (const [name, value] of Object.entries(workload.labels)) look(`${path}.labels.${name}`, `the label "${name}" of ${what}`, [value])
      look(`${path}.command`, `the command of ${what}`, workload.command ?? [])
      look(`${path}.entrypoint`, `the entrypoint of ${what}`, workload.entrypoint ?? [])
      look(`${path}.healthcheck`, `the healthcheck of ${what}`, workload.healthcheck?.test ?? [])
    }
  }
  for (const secret of Object.values(project.secrets))
    if (secret.kind === 'command') look(`secrets.${secret.name}.command`, `the command of secret "${secret.name}"`, secret.argv)
  for (const pipeline of Object.values(project.pipelines))
    for (const job of Object.values(pipeline.jobs))
      look(`pipelines.${pipeline.name}.jobs.${job.id}.with`, `the input of job "${job.id}"`, textsIn(job.with))
}

function textsIn(value: Template): readonly string[] {
  if (typeof value === 'string') return [value]
  return value === null || typeof value !== 'object' ? [] : Object.values(value).flatMap((inner) => textsIn(inner as Template))
}
