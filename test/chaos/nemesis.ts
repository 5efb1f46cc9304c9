/** Breaks an agent each second and the gateway or Redis each quarter of a minute, one of each at a time, as its seed draws them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { LABEL } from '../../engine/names.ts'
import type { ObservedContainer } from '../../engine/ports.ts'
import { AGENT_FAULTS, CORE_FAULTS, inflict, partOf, pidOf, type Struck } from './faults.ts'
import type { Fault } from './history.ts'

const VERB_TRIES = 10

export interface NemesisOptions {
  readonly struck: Struck
  readonly agent_ms: number
  readonly core_ms: number
  readonly controller_ms: number
  /** Work of verbs (scale, up), each done once at a random moment of its share of the time. */
  readonly verbs: readonly { readonly kind: string; readonly at_ms: number; readonly act: () => Promise<void> }[]
  readonly told: (fault: Fault) => void
  readonly failed: (verb: string, error: unknown) => void
}

/** Until the signal aborts; resolves when everything has been taken back. */
export async function nemesis(options: NemesisOptions): Promise<readonly Fault[]> {
  const { struck, told } = options
  const { runtime, project, signal } = struck
  const faults: Fault[] = []
  const note = (fault: Fault | null): void => {
    if (fault === null) return
    faults.push(fault)
    told(fault)
  }
  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal }).catch(() => {})
  const containers = async (): Promise<readonly ObservedContainer[]> => await runtime.containers(project).catch(() => [])
  /** Several may be under way: a frozen agent does not keep the next one safe. */
  const underWay = new Set<Promise<void>>()
  const busy = new Set<string>()

  const agents = async (): Promise<void> => {
    const random = struck.random.fork('agents')
    while (!signal.aborted) {
      await pause(options.agent_ms)
      if (signal.aborted) return
      const kind = random.pick(Object.keys(AGENT_FAULTS))
      const able = (await containers()).filter((it) => it.labels[LABEL.kind] === 'agent' && it.status === 'running' && !busy.has(it.name))
      const strike = AGENT_FAULTS[kind]
      if (able.length === 0 || strike === undefined) continue
      const target = random.pick(able)
      busy.add(target.name)
      const one = inflict(struck, kind, target, strike)
        .then(note)
        .finally(() => {
          underWay.delete(one)
          busy.delete(target.name)
        })
      underWay.add(one)
    }
  }
  const core = async (): Promise<void> => {
    const random = struck.random.fork('core')
    // Gateway and Redis in turns, and of each every kind once before any comes again.
    const left: { readonly [part in 'gateway' | 'broker']: string[] } = { gateway: [], broker: [] }
    let part: 'gateway' | 'broker' = random.chance(0.5) ? 'gateway' : 'broker'
    while (!signal.aborted) {
      await pause(options.core_ms)
      if (signal.aborted) return
      const kinds = left[part]
      if (kinds.length === 0) kinds.push(...Object.keys(CORE_FAULTS).filter((kind) => CORE_FAULTS[kind]?.part === part))
      const [kind = ''] = kinds.splice(random.whole(0, kinds.length - 1), 1)
      part = part === 'gateway' ? 'broker' : 'gateway'
      const fault = CORE_FAULTS[kind]
      if (fault !== undefined) note(await inflict(struck, kind, partOf(await containers(), project, fault.part), fault.strike))
    }
  }
  const controller = async (): Promise<void> => {
    while (!signal.aborted) {
      await pause(options.controller_ms)
      if (signal.aborted) return
      const target = partOf(await containers(), project, 'controller')
      note(
        await inflict(
          struck,
          'controller: kill -9',
          target,
          async (_, { name }) => void process.kill(await pidOf(runtime, name), 'SIGKILL'),
        ),
      )
    }
  }
  const verb = async ({ kind, at_ms, act }: NemesisOptions['verbs'][number]): Promise<void> => {
    await pause(at_ms)
    if (signal.aborted) return
    const at = Date.now()
    // A verb may fail over what is broken around it; as its user would, it is given again.
    for (let tries = 1; tries <= VERB_TRIES; tries++) {
      try {
        await act()
        note({ kind, target: 'project', at, until: Date.now(), missed: false })
        return
      } catch (error) {
        options.failed(kind, error)
        // All tries together are longer than an engine is away.
        await sleep(3_000)
      }
    }
    note({ kind: `${kind} (failed)`, target: 'project', at, until: Date.now(), missed: true })
  }
  await Promise.all([agents(), core(), controller(), ...options.verbs.map(verb)])
  await Promise.all(underWay)
  return faults
}
