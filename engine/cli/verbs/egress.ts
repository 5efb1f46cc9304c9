import { egressPolicies, type Project } from '../../../spec/model.ts'
import { didYouMean, known } from '../../../spec/suggest.ts'
import { askOfUrl, checkAsk, URL_SCHEMES } from '../../egress/check-url.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { trustedName } from '../../names.ts'
import { checkFlags, wordOf } from '../actions.ts'
import { parseCount } from '../arguments.ts'
import { auditOf, type AuditLine } from '../audit-lines.ts'
import { requireProject } from '../existing.ts'
import { usage } from '../failure.ts'
import { streamLogs } from '../log-stream.ts'
import type { Session } from '../session.ts'
import { type Call, flag, type Run, value } from '../verb.ts'
import { renderCheck, renderAuditLine } from '../views/egress.ts'

const WORDS = {
  check: { min: 2, max: 2, what: 'an agent and an address', hint: 'For example `agentctl egress check worker https://api.example.com`.' },
  log: { min: 0, max: 1, what: '' },
} as const
const FLAGS = { method: ['check'], follow: ['log'], tail: ['log'] } as const

export const egress: Run = async (session, call) => {
  const { word, args } = wordOf('egress', call.args, WORDS)
  checkFlags('egress', word, call, FLAGS)
  const [agent = '', url = ''] = args
  return word === 'check' ? await check(session, call, agent, url) : await log(session, call, args[0] ?? null)
}

/** Of the file, or with -p of what runs. Nothing is resolved and nobody is asked. */
async function check(session: Session, call: Call, agent: string, url: string): Promise<number> {
  const ask = askOfUrl(url, (value(call, 'method') ?? 'GET').toUpperCase())
  if (ask === null)
    throw usage(`expected an address like https://api.example.com, got "${url}"`, `Schemes: ${URL_SCHEMES.join(', ')}; tcp needs a port.`)
  const project = await projectOf(session)
  const verdict = checkAsk(egressPolicies(project, agentOf(project, agent)), ask)
  await session.out.print({ agent, url, ...verdict }, renderCheck)
  return verdict.verdict === 'allow' ? EXIT.done : EXIT.failed
}

async function projectOf(session: Session): Promise<Project> {
  const { project_name } = session.globals
  if (project_name === null && (session.io.environment['AGENTCTL_PROJECT_NAME'] ?? '') === '') return (await session.load()).project
  return (await requireProject(await session.verbs(), await session.project())).project
}

function agentOf(project: Project, name: string): Project['agents'][string] {
  const found = Object.hasOwn(project.agents, name) ? project.agents[name] : undefined
  if (found !== undefined) return found
  const names = Object.keys(project.agents).sort()
  throw new AgentctlError('AG6002', `project "${project.name}" has no agent "${name}"`, {
    hint: didYouMean(name, names) ?? known('agents', names),
    exit: EXIT.usage,
  })
}

async function log(session: Session, call: Call, agent: string | null): Promise<number> {
  const name = await session.project()
  const ctx = await session.verbs()
  const { project } = await requireProject(ctx, name)
  if (agent !== null) agentOf(project, agent)
  const tail = tailOf(call)
  const wants = ({ name: container }: { readonly name: string }): boolean => container === trustedName(name, 'egress')
  const show = (line: AuditLine): Promise<void> => session.out.line(line, renderAuditLine)
  const found: AuditLine[] = []
  let last = ''
  const past = { follow: false, tail: null, since: null, wants }
  await streamLogs(
    ctx.runtime,
    name,
    past,
    async (line) => {
      last = line.time ?? last
      const record = auditOf(line, agent)
      if (record === null) return
      found.push(record)
      if (tail !== null && found.length > tail) found.shift()
    },
    session.signal,
  )
  for (const line of found) await show(line)
  if (!flag(call, 'follow')) return EXIT.done
  // What came meanwhile comes again, and is known by its time.
  const since = String((last === '' ? Date.now() : Date.parse(last)) / 1_000)
  const next = { follow: true, tail: null, since, wants }
  await streamLogs(
    ctx.runtime,
    name,
    next,
    async (line) => {
      const record = line.time !== null && line.time <= last ? null : auditOf(line, agent)
      if (record !== null) await show(record)
    },
    session.signal,
  )
  return EXIT.done
}

function tailOf(call: Call): number | null {
  const tail = value(call, 'tail')
  return tail === null || tail === 'all' ? null : parseCount('--tail', tail)
}
