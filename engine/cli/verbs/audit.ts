import { desired } from '../../desired.ts'
import { AgentctlError, EXIT } from '../../errors.ts'
import { fields } from '../../fields.ts'
import { looseningsOf } from '../../loosening.ts'
import { observe } from '../../observe.ts'
import type { ContainerRuntime, ContainerSpec } from '../../ports.ts'
import { auditReport, type Looked } from '../../posture/audit.ts'
import { compareProbe } from '../../posture/probe.ts'
import { effectiveOf, Images, imageVolumes, probe } from '../../posture/prove.ts'
import type { ProjectRecord } from '../../record.ts'
import { SECCOMP } from '../../seccomp.ts'
import { requireProject } from '../existing.ts'
import type { Run } from '../verb.ts'
import { renderAudit } from '../views/audit.ts'

/** Each look is an exec or a container. */
const PARALLEL = 4

export const audit: Run = async (session, call) => {
  const project = await session.project()
  const ctx = await session.verbs()
  const record = await requireProject(ctx, project)
  const [info, observed] = await Promise.all([ctx.runtime.info(session.signal), observe(ctx.runtime, project, session.signal)])
  const present = new Set(observed.containers.map((container) => container.name))
  const all = desired(record, SECCOMP).containers
  for (const name of call.args)
    if (!all.some((want) => want.group === name))
      throw new AgentctlError('AG4012', `project "${project}" has no agent, service or part "${name}"`, {
        hint: `It has ${[...new Set(all.map((want) => want.group))].join(', ')}.`,
        exit: EXIT.usage,
      })
  const specs = all
    .filter((want) => present.has(want.spec.name) && (call.args.length === 0 || call.args.includes(want.group)))
    .map((want) => want.spec)
    // What runs an attacker's code comes first.
    .sort((a, b) => Number(a.kind !== 'agent') - Number(b.kind !== 'agent'))
  const images = new Images(ctx.runtime)
  const looked: Looked[] = []
  const next = specs.entries()
  const work = async (): Promise<void> => {
    for (const [index, spec] of next) looked[index] = await look(ctx.runtime, images, spec, record, session.signal)
  }
  await Promise.all(Array.from({ length: PARALLEL }, work))
  const loosenings = looseningsOf(record.project).filter(
    (it) => call.args.length === 0 || call.args.some((name) => it.of.endsWith(` ${name}`)),
  )
  const report = auditReport(project, info, looked, loosenings)
  await session.out.print(report, renderAudit)
  return report.ok ? EXIT.done : EXIT.failed
}

async function look(
  runtime: ContainerRuntime,
  images: Images,
  spec: ContainerSpec,
  record: ProjectRecord,
  signal: AbortSignal,
): Promise<Looked> {
  const effective = await effectiveOf(runtime, images, spec.name, signal)
  if (spec.kind !== 'agent') return { spec, effective, probe: null }
  if (fields(effective.inspect['State'])['Running'] !== true) return { spec, effective, probe: 'not running' }
  try {
    return { spec, effective, probe: compareProbe(spec, await probe(runtime, spec, record.images, signal), imageVolumes(effective)) }
  } catch (error) {
    if (signal.aborted) throw error
    return { spec, effective, probe: 'not readable' }
  }
}
