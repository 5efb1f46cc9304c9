import { expect, test } from 'vitest'
import { due, watchStalled } from '../../../../engine/controller/stalled.ts'
import type { ObservedContainer } from '../../../../engine/ports.ts'
import type { ReplicaView } from '../../../../spec/protocol.ts'

const view = (replica: number, stalled?: string): ReplicaView => ({
  agent: 'work',
  replica,
  connected: true,
  tasks: 0,
  ...(stalled === undefined ? {} : { stalled }),
})
const container = (replica: number, status: ObservedContainer['status'] = 'running'): ObservedContainer => ({
  id: `${replica}`,
  name: `p-work-${replica}`,
  image: 'agent:1',
  labels: { 'agentctl.kind': 'agent', 'agentctl.agent': 'work', 'agentctl.replica': `${replica}` },
  status,
  health: null,
  exit_code: null,
  created_at: '',
  status_text: '',
  networks: {},
})

/** Asks until `asked` answers are used up; what was stopped, and what was logged. */
async function watched(
  asked: readonly (readonly ReplicaView[] | null)[],
  containers: readonly ObservedContainer[],
  hasAgents = true,
): Promise<{ readonly stopped: readonly string[]; readonly logged: readonly object[]; readonly questions: number }> {
  const stop = new AbortController()
  const stopped: string[] = []
  const logged: object[] = []
  let questions = 0
  let rounds = 0
  await watchStalled({
    runtime: { containers: () => Promise.resolve(containers), stop: async (name) => void stopped.push(name) },
    project: 'p',
    replicas: () => Promise.resolve(asked[questions++] ?? null),
    hasAgents: () => {
      rounds += 1
      if (rounds > asked.length) stop.abort()
      return Promise.resolve(hasAgents && rounds <= asked.length)
    },
    log: (line) => void logged.push(line),
    signal: stop.signal,
    ask_ms: 1,
  })
  return { stopped, logged, questions }
}

test('a stalled replica is stopped once, with its reason in the log, and not again while its next session is on the way', async () => {
  const stalled = [view(1), view(2, 'the same step 10 times')]
  const { stopped, logged } = await watched([stalled, stalled, stalled], [container(1), container(2)])
  expect(stopped).toEqual(['p-work-2'])
  expect(logged).toEqual([{ event: 'replica is stalled', container: 'p-work-2', reason: 'the same step 10 times', action: 'restart' }])
})

test('a replica that was well in between is stopped again when it stalls again', async () => {
  const { stopped } = await watched([[view(1, 'loop')], [view(1)], [view(1, 'loop')]], [container(1)])
  expect(stopped).toEqual(['p-work-1', 'p-work-1'])
})

test('one whose flag nobody clears is tried again after half a minute', () => {
  const stopped = new Map([['work.1', 1_000]])
  expect(due([view(1, 'loop')], stopped, 20_000)).toEqual([])
  expect(due([view(1, 'loop')], stopped, 32_000)).toEqual([view(1, 'loop')])
})

test('what does not run is left alone, and a gateway that does not answer is no reason to stop anything', async () => {
  expect((await watched([[view(1, 'loop'), view(7, 'loop')], null], [container(1, 'exited')])).stopped).toEqual([])
})

test('a project without agents asks nobody', async () => {
  expect((await watched([[view(1, 'loop')]], [container(1)], false)).questions).toBe(0)
})
