/** What must become of one container: the rules about recreate and restart. Pure. */
import type { DesiredContainer } from './desired.ts'
import { isRoaming, LABEL } from './names.ts'
import { UP } from './plan-builder.ts'
import type { ObservedContainer } from './ports.ts'

export type Verdict =
  | { readonly kind: 'keep' }
  | { readonly kind: 'create'; readonly cause: string; readonly old: ObservedContainer | null; readonly running: boolean }
  | { readonly kind: 'start'; readonly cause: string; readonly stopFirst: boolean }
  | { readonly kind: 'stop'; readonly cause: string }

export interface JudgeOptions {
  readonly forceRecreate?: boolean
  /** Containers that have to be made anew for what their spec does not say, and why. */
  readonly recreate?: { readonly [container: string]: string }
  /** The controller also restarts what is unhealthy. */
  readonly heal?: boolean
}

export function judge(want: DesiredContainer, have: ObservedContainer | undefined, options: JudgeOptions): Verdict {
  if (want.stopped) return have !== undefined && UP.has(have.status) ? { kind: 'stop', cause: 'stopped on purpose' } : { kind: 'keep' }
  if (have === undefined) return { kind: 'create', cause: 'does not exist', old: null, running: false }
  const running = UP.has(have.status)
  const recreate = (cause: string): Verdict => ({ kind: 'create', cause, old: have, running })
  // The holder is never updated while it runs: the secrets live only as long as it or the controller does.
  const keeps = want.spec.kind === 'secrets' && running
  if (options.forceRecreate === true && !keeps) return recreate('recreation was asked for')
  if (have.labels[LABEL.configHash] !== want.hash && !keeps) return recreate('configuration changed')
  const because = options.recreate?.[want.spec.name]
  if (because !== undefined && !keeps) return recreate(because)
  if (have.status === 'dead' || have.status === 'removing') return recreate(`is ${have.status}`)
  const missing = !isRoaming(want.spec.kind) && want.spec.endpoints.some((endpoint) => have.networks[endpoint.network] === undefined)
  if (missing && have.status !== 'created') return recreate('is not on its network')
  if (have.status === 'created') return { kind: 'start', cause: 'was created but never started', stopFirst: false }
  if (have.status === 'exited') {
    if (want.until === 'completed' && have.exit_code === 0) return { kind: 'keep' }
    // As in Compose without `restart`: a service that ended well has ended; the next `up` runs it again.
    if (options.heal === true && want.spec.kind === 'service' && have.exit_code === 0) return { kind: 'keep' }
    return { kind: 'start', cause: `exited (${have.exit_code ?? '?'})`, stopFirst: false }
  }
  if (options.heal === true && have.health === 'unhealthy' && want.spec.kind !== 'service')
    return { kind: 'start', cause: 'is unhealthy', stopFirst: true }
  return { kind: 'keep' }
}
