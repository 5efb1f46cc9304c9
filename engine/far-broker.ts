/** What `up` asks of the gateway where the broker is the user's own: that it has reached it, and that no work stays behind in another. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CODES, type Code } from '../spec/codes.ts'
import type { BrokerSettings } from '../spec/model.ts'
import { type ControlClient, openControl } from './control.ts'
import { AgentctlError } from './errors.ts'
import type { ContainerRuntime } from './ports.ts'

/** A broker that restarts, or a name that is not known yet, pass in less. */
const PATIENCE_MS = 15_000
const POLL_MS = 200

interface Health {
  readonly broker: boolean
  readonly problem?: { readonly code: string; readonly message: string } | null
}

async function withControl<T>(
  runtime: ContainerRuntime,
  project: string,
  signal: AbortSignal,
  act: (control: ControlClient) => Promise<T>,
): Promise<T> {
  const control = await openControl(runtime, project, signal, { retry_ms: 2_000 })
  try {
    return await act(control)
  } finally {
    control.close()
  }
}

/** Resolves when the gateway is connected to it. Refused settings end the wait at once, with their reason. */
export async function requireBroker(runtime: ContainerRuntime, project: string, signal: AbortSignal): Promise<void> {
  await withControl(runtime, project, signal, async (control) => {
    for (const end = Date.now() + PATIENCE_MS; ; await sleep(POLL_MS, undefined, { signal })) {
      const health = (await control.health().catch(() => null)) as Health | null
      if (health?.broker === true) return
      const code: Code = health?.problem?.code === 'AG5003' ? 'AG5003' : 'AG5002'
      if (code !== 'AG5003' && Date.now() < end) continue
      const hint =
        code === 'AG5003'
          ? CODES.AG5003.fix
          : 'Check broker.url, its secrets and the network; see `agentctl logs agentctl-egress` for the way there.'
      throw new AgentctlError(code, health?.problem?.message ?? 'the gateway does not say whether the broker answers', { hint })
    }
  })
}

/**
 * Work lives in its broker: a project that goes to another would seem to have lost it. A broker that does not answer is left all the
 * same, as there may be no other way; the next gateway tells which runs it misses.
 */
export async function requireIdle(
  runtime: ContainerRuntime,
  project: string,
  before: BrokerSettings,
  after: BrokerSettings,
  note: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  if (before.url === after.url) return
  await withControl(runtime, project, signal, async (control) => {
    const health = (await control.health().catch(() => null)) as Health | null
    if (health?.broker !== true) return note('the broker until now does not answer: what it holds stays there')
    const pages = await Promise.all((['queued', 'running'] as const).map((status) => control.runs({ status })))
    const open = pages.flatMap((page) => page.runs)
    if (open.length === 0) return
    throw new AgentctlError(
      'AG5005',
      `${open.length}${pages.some((page) => page.next !== null) ? ' or more' : ''} run(s) of project "${project}" are unfinished, and their work is in the broker until now`,
      {
        hint: 'Wait for them or cancel them (`agentctl runs ls`); or take the project down first, and they stay in the old broker.',
      },
    )
  })
}
