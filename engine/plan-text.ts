/** A plan as people read it and as `plan --format json` prints it. Pure. */
import type { Operation, Plan, Step } from './plan.ts'

export interface PlanView {
  readonly project: string
  readonly steps: readonly {
    readonly id: string
    readonly op: string
    readonly target: string
    readonly cause: string
    readonly needs: readonly string[]
  }[]
}

export const planView = (plan: Plan): PlanView => ({
  project: plan.project,
  steps: plan.steps.map((step) => ({
    id: String(step.id),
    op: step.operation.op,
    target: step.target,
    cause: step.cause,
    needs: step.needs.map(String),
  })),
})

const DETAIL: { readonly [K in Operation['op']]?: (operation: Extract<Operation, { op: K }>) => string } = {
  'create-network': (operation) => `${operation.network.subnet}${operation.network.internal ? ' internal' : ''}`,
  'own-volume': (operation) => `to ${operation.uid}:${operation.gid}`,
  'make-folder': (operation) => `${operation.folder} of ${operation.uid}:${operation.gid}`,
  'write-secrets': (operation) => (operation.containers.length === 0 ? 'kept' : `for ${operation.containers.join(', ')}`),
  'write-record': (operation) => `revision ${operation.revision}`,
  'create-container': (operation) => operation.container.image,
  'connect-network': (operation) =>
    `${operation.endpoint.network}${operation.endpoint.address === null ? '' : ` ${operation.endpoint.address}`}`,
  'disconnect-network': (operation) => operation.network,
  wait: (operation) => `${operation.until} within ${operation.timeout_ms / 1000}s`,
}

function detail(operation: Operation): string {
  const text = (DETAIL[operation.op] as ((operation: Operation) => string) | undefined)?.(operation)
  return text === undefined ? '' : ` (${text})`
}

const line = (step: Step): string =>
  `${step.needs.length === 0 ? '' : `[${step.needs.join(', ')}] -> `}#${step.id} ${step.operation.op} ${step.target}${detail(step.operation)}: ${step.cause}`

/** `[needs] -> #id op target (detail): cause`, one line each; "No changes." when there is nothing to do. */
export const renderPlan = (plan: Plan): string => (plan.steps.length === 0 ? 'No changes.' : plan.steps.map(line).join('\n'))
