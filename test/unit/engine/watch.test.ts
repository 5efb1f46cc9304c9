import { expect, test } from 'vitest'
import type { ContainerRuntime, ObservedContainer } from '../../../engine/ports.ts'
import { Watch } from '../../../engine/watch.ts'
import { project, running, want } from '../../support/project.ts'

const all = want(project({}))
const BROKER = 'p-agentctl-broker-1'
const seen = (change: Partial<ObservedContainer>) => running(all, { [BROKER]: change })

/** An engine that lists these and tells of nothing. */
function silent(now: Partial<ObservedContainer>): { readonly runtime: ContainerRuntime; readonly lists: () => number } {
  let lists = 0
  const runtime: Pick<ContainerRuntime, 'containers' | 'events' | 'logs'> = {
    containers: async () => {
      lists += 1
      return seen(now).containers
    },
    async *events(_project, _since, signal) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      yield* []
    },
    async *logs() {
      yield { stream: 'stderr', data: Buffer.from('cannot begin\n') }
    },
  }
  return { runtime: runtime as ContainerRuntime, lists: () => lists }
}

test('a part that became healthy before its events were followed is not waited for', async () => {
  const { runtime, lists } = silent({ health: 'healthy' })
  const watch = new Watch(runtime, 'p', seen({ health: 'starting' }))
  await watch.until(BROKER, 'healthy', 2_000, new AbortController().signal)
  expect(lists()).toBe(1)
  watch.close()
})

test('one that died then is told', async () => {
  const { runtime } = silent({ status: 'exited', health: null, exit_code: 1 })
  const watch = new Watch(runtime, 'p', seen({ health: 'starting' }))
  await expect(watch.until(BROKER, 'healthy', 2_000, new AbortController().signal)).rejects.toMatchObject({ code: 'AG4009' })
  watch.close()
})

test('what this plan starts is waited for by events alone', async () => {
  const { runtime, lists } = silent({ health: 'starting' })
  const watch = new Watch(runtime, 'p', seen({ status: 'created', health: null }))
  watch.started(BROKER)
  await expect(watch.until(BROKER, 'healthy', 100, new AbortController().signal)).rejects.toMatchObject({ code: 'AG4008' })
  expect(lists()).toBe(0)
  watch.close()
})
