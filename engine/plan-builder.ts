/** Steps as they are planned: numbered, with what each needs. */
import { kindOf } from './observe.ts'
import type { Operation, Step } from './plan.ts'
import type { ObservedContainer } from './ports.ts'

export class Builder {
  readonly #steps: Step[] = []
  add(operation: Operation, target: string, cause: string, needs: readonly (number | undefined)[]): number {
    const id = this.#steps.length + 1
    this.#steps.push({
      id,
      operation,
      target,
      cause,
      needs: [...new Set(needs.filter((need) => need !== undefined))].sort((a, b) => a - b),
    })
    return id
  }
  steps(): readonly Step[] {
    return this.#steps
  }
}

export const UP: ReadonlySet<string> = new Set(['running', 'restarting', 'paused'])

export function removeSteps(build: Builder, container: ObservedContainer, cause: string, needs: readonly (number | undefined)[]): number {
  const target = `container:${container.name}`
  const stop = UP.has(container.status)
    ? build.add(
        { op: 'stop-container', container: container.name, grace_s: kindOf(container) === 'secrets' ? 0 : 10 },
        target,
        cause,
        needs,
      )
    : undefined
  return build.add({ op: 'remove-container', container: container.name }, target, cause, stop === undefined ? needs : [stop])
}
