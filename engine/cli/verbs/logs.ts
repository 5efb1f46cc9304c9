import { EXIT } from '../../errors.ts'
import { LABEL } from '../../names.ts'
import type { ObservedContainer } from '../../ports.ts'
import { refuseNewer, resolveContainers, type VerbContext } from '../../verbs.ts'
import { parseCount } from '../arguments.ts'
import { usage } from '../failure.ts'
import { streamLogs } from '../log-stream.ts'
import { type Call, flag, type Run, value } from '../verb.ts'
import { logRenderer } from '../views/logs.ts'

export const logs: Run = async (session, call) => {
  const options = { follow: flag(call, 'follow'), tail: tailOf(call), since: sinceOf(call) }
  const project = await session.project()
  const ctx = await session.verbs()
  const [wants] = await Promise.all([wanted(ctx, project, call.args), refuseNewer(ctx, project)])
  const render = logRenderer({ prefix: call.options['logPrefix'] !== false, timestamps: flag(call, 'timestamps') })
  await streamLogs(ctx.runtime, project, { ...options, wants }, (line) => session.out.line(line, render), session.signal)
  return EXIT.done
}

type Wants = (container: Pick<ObservedContainer, 'name' | 'labels'>) => boolean

/** A name stands for its replicas now and later; one container for itself. */
async function wanted(ctx: VerbContext, project: string, names: readonly string[]): Promise<Wants> {
  if (names.length === 0) {
    await resolveContainers(ctx, project, null)
    return ({ labels }) => ['agent', 'service'].includes(labels[LABEL.kind] ?? '')
  }
  const lists = await Promise.all(names.map((name) => resolveContainers(ctx, project, name)))
  const containers = new Set(lists.flat().map((it) => it.name))
  const groups = new Set(names)
  return ({ name, labels }) => containers.has(name) || groups.has(labels[LABEL.agent] ?? labels[LABEL.service] ?? '')
}

function tailOf(call: Call): number | null {
  const tail = value(call, 'tail')
  return tail === null || tail === 'all' ? null : parseCount('--tail', tail)
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 }

/** Unix seconds, as the engine takes it. */
function sinceOf(call: Call): string | null {
  const since = value(call, 'since')
  if (since === null) return null
  const ago = /^(\d+)([smhd])$/.exec(since)
  if (ago !== null) return String(Math.floor(Date.now() / 1_000) - Number(ago[1]) * (UNITS[ago[2] ?? 's'] ?? 1))
  const time = /^\d{9,11}(\.\d+)?$/.test(since) ? Number(since) * 1_000 : Date.parse(since)
  if (Number.isNaN(time)) throw usage(`--since expects a time like 2026-01-02T13:23:37Z or a duration like 10m, got "${since}"`)
  return String(time / 1_000)
}
