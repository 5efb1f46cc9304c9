/** Why a record is written again, as the plan says it. Pure. */
import { type Agent, DEFAULT_ARTIFACTS, DEFAULT_BROKER, DEFAULT_WORK, type Project } from '../spec/model.ts'
import { canonicalJson } from './canonical.ts'
import type { ProjectRecord } from './record.ts'

const SHOWN = 4
const same = (a: unknown, b: unknown): boolean => canonicalJson(a) === canonicalJson(b)

/** What the gateway follows as it goes is named; of all else it is enough that the project changed. */
export function changeOf(previous: ProjectRecord | null, next: ProjectRecord): string {
  if (previous === null) return 'does not exist'
  const [before, after] = [withoutPolicies(previous), withoutPolicies(next)]
  if (!same(before, after)) return 'the project changed'
  const changed = [
    ...Object.values(next.project.agents)
      .filter((agent) => !same(workOf(agent), workOf(previous.project.agents[agent.name])))
      .map((agent) => `policy of ${agent.name}`),
    ...egressChanges(previous.project, next.project),
    ...(same(previous.project.broker ?? DEFAULT_BROKER, next.project.broker) ? [] : ['settings of the broker']),
    ...(same(previous.project.artifacts ?? DEFAULT_ARTIFACTS, next.project.artifacts) ? [] : ['limits of artifacts']),
  ]
  if (changed.length === 0) return 'the project changed'
  return `${changed.slice(0, SHOWN).join(', ')}${changed.length > SHOWN ? ` and ${changed.length - SHOWN} more` : ''} changed`
}

/** Egress follows its rules as it goes; who has which policy decides on networks, and is no such change. */
function egressChanges({ egress: before = {} }: Project, { egress: after = {} }: Project): readonly string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort()
  return names.filter((name) => !same(before[name], after[name])).map((name) => `egress rules of ${name}`)
}

/** A record of a version that did not know the key. */
const workOf = (agent: Agent | undefined): Agent['work'] => agent?.work ?? DEFAULT_WORK

function withoutPolicies(record: ProjectRecord): unknown {
  const { egress: _, ...rest } = record.project
  const project: Project = {
    ...rest,
    broker: DEFAULT_BROKER,
    artifacts: DEFAULT_ARTIFACTS,
    agents: Object.fromEntries(Object.entries(record.project.agents).map(([name, agent]) => [name, { ...agent, work: DEFAULT_WORK }])),
  }
  return { ...record, project, revision: 0, written_by: '' }
}
